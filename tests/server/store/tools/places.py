"""Databases of each kind with workflows in many states, made by the core itself, for tests of the tools."""

from __future__ import annotations

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import Store
from perdure.server.store.postgres import POSTGRES, PostgresStore
from perdure.server.store.postgres.dialect import PostgresDialect
from perdure.server.store.postgres.tools import PostgresDatabase
from perdure.server.store.sqlite import SqliteStore
from perdure.server.store.sqlite.tools import SqliteDatabase
from perdure.server.store.tools.interface import Database, PageLimits
from tests.server.core.commands import (
    application_failure,
    cancel_external,
    complete_workflow,
    continue_as_new,
    schedule_activity,
    signal_external,
    start_child,
    start_timer,
)
from tests.server.core.rows import Rows
from tests.server.core.story import KEY
from tests.server.core.town import Town
from tests.server.store import rows
from tests.server.store.faults import Never, faulty_dialect
from tests.server.store.writing import Writer


class Recording(Rows):
    """Rows that keep what was written, to be written again elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[EntityWrite] = []

    def apply(self, write: EntityWrite) -> None:
        super().apply(write)
        self.writes.append(write)


def dialect_of(url: str) -> PostgresDialect:
    """Return the dialect of a database: CockroachDB's is spoken to PostgreSQL here, and held to its documentation."""
    return faulty_dialect(Never()) if url.startswith("cockroachdb://") else POSTGRES


def by_hand(url: str) -> str:
    """Return the URL of a session that may say what Perdure does not."""
    return url.replace("cockroachdb://", "postgresql://", 1)


def store_of(url: str) -> Store:
    """Return a server's store on a database, not opened."""
    return PostgresStore(url, dialect=dialect_of(url)) if "://" in url else SqliteStore(url)


SMALL_PAGES = PageLimits(7)
"""So small that every table with rows has several."""


def database_of(url: str, limits: PageLimits = SMALL_PAGES) -> Database:
    """Return a database for tools, not opened."""
    return PostgresDatabase(url, url, limits, dialect_of(url)) if "://" in url else SqliteDatabase(url, limits)


async def fill(url: str) -> None:
    """Write what a server would have written of workflows in many states, then stop it."""
    store = store_of(url)
    await store.open()
    await store.save_namespace(rows.namespace("default", KEY.namespace_id))
    writer = await Writer.claim(store)
    await writer.commit(*writes())
    await store.close()


def writes() -> list[EntityWrite]:
    """Return all that happened to workflows which wait for, have and are everything there is, in order."""
    town = Town()
    town.rows = kept = Recording()
    for number in range(10):
        order = town[f"order-{number}"]
        order.start()
        order.signal(request_id=f"signal-{number}")
        order.decide(schedule_activity("a"), schedule_activity("b"), start_timer("t", seconds=100 + number))
        order.fail_activity(order.poll_activity("b"), application_failure("out of stock"))
        order.poll_activity("a")
    town["order-2"].signal("enough")
    town["order-2"].decide(complete_workflow())
    town["order-3"].signal("one more")
    town["order-3"].poll()
    town["order-3"].signal("behind a started task")
    town["order-4"].terminate()
    town["loop"].start()
    town["loop"].decide(continue_as_new())
    _family(town)
    return kept.writes


def _family(town: Town) -> None:
    """A parent with a child that is started, one that is not yet, and messages that are, and are not, delivered."""
    parent = town["parent"]
    parent.start()
    parent.decide(start_child("child"))
    town.deliver()
    parent.decide(start_child("late"), signal_external("order-5"), cancel_external("order-6"))
    signal = next(message for message in town.outbox if message.receiver.workflow_id == "order-5")
    town.carry(signal)
