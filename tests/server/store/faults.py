"""A database that gives up, loses its connections and leaves commits unknown, at statements of our choice.

The errors are the database's own: it is made to raise them in the place of a statement, so that its transaction has
really ended. Nothing but a connection is ours, and the store's own dialect brings it along.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, ClassVar, NamedTuple, NoReturn, Protocol, TypeVar

import asyncpg

from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import Batch, Claim, ClusterView, CommitUnknown, StoreUnavailable
from perdure.server.store.postgres import POSTGRES, PostgresStore
from perdure.server.store.postgres.cockroach import CockroachDialect
from perdure.server.store.postgres.listings import numbered
from perdure.server.store.postgres.tool_queries import ToolQueries
from perdure.server.store.schema import Index, Table
from perdure.server.store.settings import PostgresSettings
from tests.architecture.cockroach_sql import faults as undocumented
from tests.server.store import cockroach_catalog

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

T = TypeVar("T")

MANY = 200
MANY_ATTEMPTS = PostgresSettings(transaction_attempts=MANY)
"""For a database that gives a transaction up once at each of its statements."""


class _HistoryLeft(NamedTuple):
    """How many rows there are of a run's history, and whether it is noted as discarded."""

    events: int
    requests: int
    notes: int


_HISTORY_LEFT = (
    "SELECT (SELECT count(*) FROM event WHERE run_id = $1), (SELECT count(*) FROM request WHERE run_id = $1),"
    " (SELECT count(*) FROM discarded_history WHERE run_id = $1)"
)


class Fault(Enum):
    """What happens in the place of a statement."""

    GIVEN_UP = "40001"
    DEADLOCK = "40P01"
    UNKNOWN_AND_UNDONE = "40003, and nothing was done"
    UNKNOWN_AND_DONE = "40003, and all was done"
    LOST_AND_UNDONE = "the connection is lost before the statement arrives"
    LOST_AND_DONE = "the connection is lost before the answer arrives"

    @property
    def is_done(self) -> bool:
        """Whether the statement has its effect all the same."""
        return self in (Fault.UNKNOWN_AND_DONE, Fault.LOST_AND_DONE)


class Call(NamedTuple):
    """A statement and what it is called with, as text: it may be what no set can hold."""

    statement: str
    arguments: str


class Plan(Protocol):
    """Says which statements fail, and how."""

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        """Return what happens in the place of the next statement; None for nothing unusual."""


class EachStatement:
    """Every statement of a transaction fails in turn: the first one, then after a new beginning the second, and so on.

    A transaction is known by how its first statement was called. BEGIN, COMMIT after each first statement, and what is
    a transaction of its own, fail every other time; no read leaves it unknown what it has done.
    """

    def __init__(self, fault: Fault) -> None:
        self._fault = fault
        self._transaction: Call | None = None
        self._at = 0
        self._reached: dict[Call, int] = {}
        self._failed_last: set[str] = set()

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        """See `Plan.fault_of`."""
        if call.statement == "ROLLBACK":
            return None
        if not is_in_transaction:
            self._transaction, self._at = None, 0
            is_unknown = self._fault in (Fault.UNKNOWN_AND_UNDONE, Fault.UNKNOWN_AND_DONE)
            if is_unknown and call.statement.startswith("SELECT"):
                return None
            return self._every_other_time(call.statement)
        if self._transaction is None:
            self._transaction = call
        if call.statement == "COMMIT":
            return self._every_other_time(f"COMMIT after {self._transaction.statement}")
        self._at += 1
        if self._at <= self._reached.get(self._transaction, 0):
            return None
        self._reached[self._transaction] = self._at
        return self._fault

    def _every_other_time(self, statement: str) -> Fault | None:
        if statement in self._failed_last:
            self._failed_last.remove(statement)
            return None
        self._failed_last.add(statement)
        return self._fault


class EachCommit:
    """Every commit fails in another way, but for some that pass; and every change that is a transaction of its own.

    Args:
        start: With which outcome to begin.
    """

    _OUTCOMES: ClassVar[Sequence[Fault | None]] = (
        Fault.UNKNOWN_AND_UNDONE,
        None,
        Fault.UNKNOWN_AND_DONE,
        None,
        Fault.LOST_AND_UNDONE,
        None,
        Fault.LOST_AND_DONE,
    )

    def __init__(self, start: int = 0) -> None:
        self._outcomes = cycle((*self._OUTCOMES[start:], *self._OUTCOMES[:start]))

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        """See `Plan.fault_of`."""
        alone = not is_in_transaction and call.statement.startswith(("INSERT", "UPDATE", "DELETE", "WITH"))
        return next(self._outcomes) if alone or call.statement == "COMMIT" else None


class Never:
    """Nothing fails."""

    def fault_of(self, call: Call, *, is_in_transaction: bool) -> Fault | None:
        """See `Plan.fault_of`."""
        return None


PLANS: dict[str, Callable[[], Plan]] = {
    "given up at each statement": lambda: EachStatement(Fault.GIVEN_UP),
    "each commit unknown": EachCommit,
}
"""What a store on PostgreSQL goes through in every test of the conformance suite."""

if os.environ.get("PERDURE_TEST_FAULTS") == "all":
    PLANS |= {f"{fault.name} at each statement": partial(EachStatement, fault) for fault in Fault}
    PLANS |= {f"each commit unknown, from {start} on": partial(EachCommit, start) for start in range(1, 7)}


class FaultyConnection(_Connection):
    """A connection that follows a plan, and takes nothing that CockroachDB would not."""

    plan: ClassVar[Plan] = Never()

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:
        return await self._or_fault(
            Call(query, str(args)), lambda: super(FaultyConnection, self).execute(query, *args, timeout=timeout)
        )

    async def fetch(  # type: ignore[override]  # the driver's own has a choice of record classes, which nobody makes
        self, query: str, *args: object, timeout: float | None = None
    ) -> list[asyncpg.Record]:
        return await self._or_fault(
            Call(query, str(args)), lambda: super(FaultyConnection, self).fetch(query, *args, timeout=timeout)
        )

    async def _or_fault(self, call: Call, ask: Callable[[], Awaitable[T]]) -> T:
        assert call.statement in _INSTEAD or not undocumented(call.statement), undocumented(call.statement)
        fault = self.plan.fault_of(call, is_in_transaction=self.is_in_transaction())
        if fault is None:
            return await ask()
        if fault.is_done:
            await ask()
        elif fault is Fault.UNKNOWN_AND_UNDONE and call.statement == "COMMIT":
            await super().execute("ROLLBACK")
        return await self._fail(fault)

    async def _fail(self, fault: Fault) -> NoReturn:
        if fault in (Fault.LOST_AND_DONE, Fault.LOST_AND_UNDONE):
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        code = fault.value[:5]
        await super().execute(f"DO $$ BEGIN RAISE EXCEPTION 'a fault' USING ERRCODE = '{code}'; END $$")
        raise AssertionError("unreachable: the statement fails")


class CockroachOnPostgres(CockroachDialect):
    """CockroachDB's dialect, spoken to PostgreSQL: all of it but what PostgreSQL cannot parse. All is serialisable."""

    by_index: ClassVar[Mapping[str, str]] = {"default_transaction_isolation": "serializable"}
    tools: ClassVar[ToolQueries] = cockroach_catalog.ON_POSTGRES

    def dsn(self, url: str) -> str:
        return url.replace(f"{self.scheme}://", "postgresql://", 1)

    async def check_server(self, connection: _Connection) -> None:
        """Take any server."""

    def create_index(self, table: Table, index: Index) -> str:
        return super().create_index(table, index).replace(" USING HASH", "")

    def utc(self, column: str) -> str:
        return POSTGRES.utc(column)


_INSTEAD = frozenset(
    numbered(text)
    for text in (*cockroach_catalog.ON_POSTGRES, *CockroachOnPostgres().definitions())
    if text is not None
)
"""What PostgreSQL is told instead of what it does not have; a test holds what that stands for to the documentation."""


class FaultyDialect(CockroachOnPostgres):
    """The dialect of a database that fails as a plan says."""

    connection_class: ClassVar[type[FaultyConnection]] = FaultyConnection


def faulty_dialect(plan: Plan) -> FaultyDialect:
    """Return a dialect whose connections follow a plan of their own, and take nothing that CockroachDB would not."""

    class Connection(FaultyConnection):
        pass

    class Dialect(FaultyDialect):
        connection_class = Connection

    Connection.plan = plan
    return Dialect()


class PersistentStore(PostgresStore):
    """A store that fails as a plan says, and goes on as the engine does: finds out what happened, and tries again.

    Args:
        url: A database on PostgreSQL.
        plan: What fails, once the store is open.
    """

    def __init__(self, url: str, plan: Plan) -> None:
        dialect = faulty_dialect(Never())
        super().__init__(url, MANY_ATTEMPTS, dialect)
        self._connection_class = dialect.connection_class
        self._plan = plan

    async def open(self) -> None:
        await super().open()
        self._connection_class.plan = self._plan

    async def claim(self, node: str) -> Claim:
        return await _persistently(lambda: super(PersistentStore, self).claim(node))

    async def resolve(self) -> Claim:
        return await _persistently(super().resolve)

    async def save_namespace(self, namespace: NamespaceRecord, former: NamespaceRecord | None = None) -> None:
        may_happen = former is None or former in await self.list_namespaces()
        for _ in range(MANY):
            try:
                return await super().save_namespace(namespace, former)
            except (StoreUnavailable, CommitUnknown):
                # It may have happened all the same; then the next attempt would be refused.
                if may_happen and namespace in await self.list_namespaces():
                    return None
        raise StoreUnavailable("the database never answers")

    async def delete_namespace(self, namespace_id: str) -> bool:
        return await _persistently(lambda: super(PersistentStore, self).delete_namespace(namespace_id))

    async def delete_history(self, run_id: str, limit: int) -> bool:
        for _ in range(MANY):
            before = await self._history_left(run_id)
            try:
                return await super().delete_history(run_id, limit)
            except (StoreUnavailable, CommitUnknown):
                left = await self._history_left(run_id)
                if left != before:
                    # A piece is gone, or with the last one the note that there are some.
                    return left.notes < before.notes
        raise StoreUnavailable("the database never answers")

    async def _history_left(self, run_id: str) -> _HistoryLeft:
        [row] = await self._reader.fetch(_HISTORY_LEFT, run_id)
        return _HistoryLeft._make(row)

    async def join(self, node: str, session: str, release: str, lease_seconds: float) -> Claim:
        return await _persistently(lambda: super(PersistentStore, self).join(node, session, release, lease_seconds))

    async def renew(self, lease_seconds: float) -> int:
        return await _persistently(lambda: super(PersistentStore, self).renew(lease_seconds))

    async def read_view(self) -> ClusterView:
        return await _persistently(super().read_view)

    async def set_leaving(self) -> None:
        await _persistently(super().set_leaving)

    async def leave(self) -> None:
        await _persistently(super().leave)

    async def take_over(self, node: str, session: str | None, shards: Mapping[str, Sequence[int]]) -> bool:
        given = {shard: to for to, shards_given in shards.items() for shard in shards_given}
        before = set((await self.read_view()).shards)
        for _ in range(MANY):
            try:
                return await super().take_over(node, session, shards)
            except StoreUnavailable:
                continue
            except CommitUnknown:
                view = await self.read_view()
                is_gone = node not in {member.node for member in view.members}
                changed = set(view.shards) - before
                if is_gone and (not given or any(each.owner == given.get(each.shard) for each in changed)):
                    return True
        raise StoreUnavailable("the database never answers")

    async def commit(self, batch: Batch) -> None:
        # The caller may change it while it is tried again.
        batch = copy.deepcopy(batch)
        with self._undisturbed():
            if await self._last_batch() != batch.number - 1:
                # What became of a batch out of turn its number does not tell.
                return await super().commit(batch)
        for _ in range(MANY):
            try:
                return await super().commit(batch)
            except StoreUnavailable:
                continue
            except CommitUnknown:
                claim = await self.resolve()
                assert claim.batch in (batch.number - 1, batch.number)
                if claim.batch == batch.number:
                    return None
        raise StoreUnavailable("the database never takes the batch")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        self._connection_class.plan = Never()
        try:
            yield
        finally:
            self._connection_class.plan = self._plan

    async def _last_batch(self) -> int:
        node, _ = self._claim_held()
        [(batch,)] = await self._reader.fetch("SELECT batch FROM node WHERE node = $1", node)
        assert isinstance(batch, int)
        return batch


async def _persistently(call: Callable[[], Awaitable[T]]) -> T:
    for _ in range(MANY):
        try:
            return await call()
        except (StoreUnavailable, CommitUnknown):
            continue
    raise StoreUnavailable("the database never answers")
