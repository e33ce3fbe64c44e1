"""The namespaces of this server: all of them in memory, each change written to the store before it is seen.

Every request names a namespace, so resolving one is a dictionary look-up and never waits. Changes are rare and go one
after the other. This module must never delete what a namespace holds: it knows configuration only.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from temporalio.api.errordetails.v1 import (
    NamespaceAlreadyExistsFailure,
    NamespaceNotFoundFailure,
)

from perdure.server.core.checks.names import is_too_long
from perdure.server.core.checks.namespaces import DELETED, DEPRECATED, REGISTERED, require_namespace_state
from perdure.server.core.errors import AlreadyExists, InvalidArgument, NotFound
from perdure.server.core.limits import Limits
from perdure.server.core.records import NamespaceRecord
from perdure.server.store.interface import BatchRejected

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_NAMESPACE = "default"
DEFAULT_RETENTION_SECONDS = 24 * 3600
"""Retention of namespaces that the server makes itself; those registered by a request name their own."""


_SUFFIX_LENGTH: Final = 5
"""As many characters of its id as Temporal puts behind the name of a namespace that is being deleted."""


class NamespaceStore(Protocol):
    """What this module needs of a store."""

    async def list_namespaces(self) -> list[NamespaceRecord]:
        """Return all namespaces, in name order."""

    async def save_namespace(self, namespace: NamespaceRecord) -> None:
        """Insert or replace a namespace, by id."""

    async def delete_namespace(self, namespace_id: str) -> bool:
        """Remove a namespace, unless something of it is left; return whether it is gone."""


class Clock(Protocol):
    """What this module needs of a clock."""

    def now(self) -> int:
        """Return the time in nanoseconds since the epoch."""


class Fellows(Protocol):
    """The other nodes that hold the same namespaces."""

    def require_registry(self) -> None:
        """Do nothing, if this node is the one that changes namespaces. Raises where another one is."""

    async def tell(self) -> bool:
        """Have the others read the namespaces anew, and wait for it; return whether all of them have."""


class NoFellows:
    """There is no other node."""

    def require_registry(self) -> None:
        """See `Fellows.require_registry`."""

    async def tell(self) -> bool:
        """See `Fellows.tell`."""
        return True


class Namespaces:
    """The namespaces by name and by id.

    Args:
        store: Where they are kept.
        clock: For the time at which one is made.
        limits: Of names.
        fellows: The other nodes that hold them too.
    """

    __slots__ = ("_by_id", "_by_name", "_changing", "_clock", "_fellows", "_limits", "_listeners", "_store")

    def __init__(
        self, store: NamespaceStore, clock: Clock, limits: Limits | None = None, fellows: Fellows | None = None
    ) -> None:
        self._store = store
        self._fellows = fellows or NoFellows()
        self._clock = clock
        self._limits = limits or Limits()
        self._by_name: dict[str, NamespaceRecord] = {}
        self._by_id: dict[str, NamespaceRecord] = {}
        self._changing = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    def tell_of_changes(self, listener: Callable[[], None]) -> None:
        """Have a function called after a namespace was changed or removed."""
        self._listeners.append(listener)

    async def load(self, wanted: Iterable[str] = (), *, retention_seconds: int = DEFAULT_RETENTION_SECONDS) -> None:
        """Read all namespaces of the store and register those that must exist and do not.

        Args:
            wanted: Names that must exist besides `default`.
            retention_seconds: How long those registered now keep closed runs.
        """
        await self.read_again()
        for name in (DEFAULT_NAMESPACE, *wanted):
            if name not in self._by_name:
                # Another node may make it at this moment.
                with suppress(AlreadyExists):
                    await self.register(name, retention_seconds=retention_seconds)

    async def read_again(self) -> None:
        """Take in what other nodes have changed. Raises StoreError."""
        records = await self._store.list_namespaces()
        self._by_name = {record.name: record for record in records}
        self._by_id = {record.namespace_id: record for record in records}
        self._tell()

    def resolve(self, name: str) -> NamespaceRecord:
        """Return the namespace a request names, for anything but new workflows.

        Raises:
            InvalidArgument: The name is empty.
            NotFound: There is none of that name.
            FailedPrecondition: It is deleted.
        """
        record = self._by_name.get(name)
        if record is None:
            raise self._absent(name)
        if record.state != REGISTERED:
            require_namespace_state(record, (REGISTERED, DEPRECATED))
        return record

    def resolve_registered(self, name: str) -> NamespaceRecord:
        """Return the namespace a new workflow is started in: a deprecated one takes none.

        Raises:
            InvalidArgument: The name is empty.
            NotFound: There is none of that name.
            FailedPrecondition: It is deprecated or deleted.
        """
        record = self._by_name.get(name)
        if record is None:
            raise self._absent(name)
        if record.state != REGISTERED:
            require_namespace_state(record, (REGISTERED,))
        return record

    def by_id(self, namespace_id: str) -> NamespaceRecord:
        """Return the namespace of an id, whatever its state. Raises NotFound where there is none."""
        record = self._by_id.get(namespace_id)
        if record is None:
            raise NotFound(
                f"Namespace {namespace_id} is not found.", detail=NamespaceNotFoundFailure(namespace=namespace_id)
            )
        return record

    def by_name(self, name: str) -> NamespaceRecord:
        """Return the namespace of a name, whatever its state. Raises NotFound where there is none."""
        record = self._by_name.get(name)
        if record is None:
            raise self._absent(name)
        return record

    def all(self) -> list[NamespaceRecord]:
        """Return every namespace in name order."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    async def register(
        self,
        name: str,
        *,
        retention_seconds: int,
        description: str = "",
        owner_email: str = "",
        data: dict[str, str] | None = None,
    ) -> NamespaceRecord:
        """Make a namespace; it is there for others when this returns.

        Args:
            name: Its name, at most as long as an id.
            retention_seconds: How long closed runs stay.
            description: For people.
            owner_email: For people.
            data: For people.

        Raises:
            AlreadyExists: There is one of that name.
        """
        async with self._changing:
            if name in self._by_name:
                raise AlreadyExists(f'Namespace "{name}" already exists', detail=NamespaceAlreadyExistsFailure())
            record = NamespaceRecord(
                namespace_id=str(uuid.uuid4()),
                name=name,
                state=REGISTERED,
                description=description,
                owner_email=owner_email,
                data=data or {},
                retention_seconds=retention_seconds,
                created_at=self._clock.now(),
            )
            try:
                await self._store.save_namespace(record)
            except BatchRejected as error:
                # Another node was faster.
                await self.read_again()
                if name not in self._by_name:
                    raise
                raise AlreadyExists(
                    f'Namespace "{name}" already exists', detail=NamespaceAlreadyExistsFailure()
                ) from error
            self._hold(record)
            await self._fellows.tell()
            return record

    async def change(self, name: str, edit: Callable[[NamespaceRecord], None]) -> NamespaceRecord:
        """Change a namespace: `edit` gets a copy, which takes the place of the old one once it is stored.

        Args:
            name: Which one.
            edit: Changes the copy in place, or raises and leaves everything as it is.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._changing:
            self._fellows.require_registry()
            old = self.by_name(name)
            record = msgspec.structs.replace(old, data=dict(old.data), search_attributes=dict(old.search_attributes))
            edit(record)
            if record != old:
                await self._store.save_namespace(record)
                self._forget(old)
                self._hold(record)
                self._tell()
                await self._fellows.tell()
            return record

    async def begin_deletion(self, name: str, delay_seconds: int) -> NamespaceRecord:
        """Close a namespace for good and free its name; its runs are deleted from now on, and then itself.

        Args:
            name: Which one; one that is being deleted already takes the new delay.
            delay_seconds: How long it stays when all its runs are deleted.

        Returns:
            It, under the name that it has until then.

        Raises:
            NotFound: There is none of that name.
        """

        def edit(record: NamespaceRecord) -> None:
            record.state = DELETED
            record.name = self._name_of_deleted(record)
            record.delete_delay_seconds = delay_seconds

        return await self.change(name, edit)

    async def remove(self, record: NamespaceRecord) -> bool:
        """Remove a namespace, unless something of it is left; return whether it is gone.

        Not before every node knows that it is to go, and has written what it had taken in for it.
        """
        async with self._changing:
            self._fellows.require_registry()
            if not await self._fellows.tell():
                return False
            is_gone = await self._store.delete_namespace(record.namespace_id)
            if is_gone:
                known = self._by_id.get(record.namespace_id)
                if known is not None:
                    self._forget(known)
                self._tell()
                await self._fellows.tell()
            return is_gone

    def _name_of_deleted(self, record: NamespaceRecord) -> str:
        """Return the name with a beginning of the id behind it: five characters of it, or more where that is taken."""
        for length in range(_SUFFIX_LENGTH, len(record.namespace_id) + 1):
            suffix = f"-deleted-{record.namespace_id[:length]}"
            if record.name.endswith(suffix):
                return record.name
            if record.name + suffix not in self._by_name:
                return record.name + suffix
        raise AlreadyExists(f'Every name that "{record.name}" could have while it is being deleted is taken')

    def _absent(self, name: str) -> InvalidArgument | NotFound:
        if not name:
            return InvalidArgument("Namespace is empty.")
        if is_too_long(name, self._limits):
            return InvalidArgument("Namespace length exceeds limit.")
        return NotFound(f"Namespace {name} is not found.", detail=NamespaceNotFoundFailure(namespace=name))

    def _hold(self, record: NamespaceRecord) -> None:
        self._by_name[record.name] = record
        self._by_id[record.namespace_id] = record

    def _forget(self, record: NamespaceRecord) -> None:
        del self._by_name[record.name]
        del self._by_id[record.namespace_id]

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()
