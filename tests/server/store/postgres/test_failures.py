"""PostgreSQL's errors, made to happen: who is told what, and that nothing half is ever left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from perdure.server.core.records import EntityWrite
from perdure.server.store.interface import (
    Batch,
    BatchRejected,
    Claim,
    CommitUnknown,
    Fenced,
    Store,
    StoreMismatch,
    StoreUnavailable,
)
from perdure.server.store.postgres import PostgresStore
from perdure.server.store.postgres.errors import FAILURES
from perdure.server.store.postgres.transactions import in_transaction
from perdure.server.store.settings import PostgresSettings
from perdure.server.store.visibility.filter import EVERYTHING
from tests.server.store import rows
from tests.server.store.postgres.shell import Shell, end_other_sessions, until
from tests.server.store.writing import Writer

IMPATIENT = PostgresSettings(
    connect_timeout_seconds=5.0,
    statement_timeout_seconds=0.3,
    lock_timeout_seconds=0.2,
    idle_transaction_timeout_seconds=0.2,
)


WRONG_TYPE = rows.event("r", 1)._replace(data="not bytes")  # type: ignore[arg-type]  # what a bug would pass


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def impatient(postgres_url: str) -> AsyncIterator[PostgresStore]:
    """A store for which everything soon takes too long, also where the machine is busy with others."""
    store = PostgresStore(postgres_url, IMPATIENT)
    await store.open()
    yield store
    await store.close()


def _write(workflow_id: str = "w", run_id: str = "r") -> EntityWrite:
    return rows.write(workflow_id, rows.run(workflow_id, run_id))


async def _is_there(store: Store, workflow_id: str = "w", run_id: str = "r") -> bool:
    return await store.load_run(rows.key(workflow_id), run_id) is not None


# --- locks and limits ---------------------------------------------------------------------------------------------


async def test_a_row_that_somebody_else_holds_is_waited_for_only_so_long(
    impatient: PostgresStore, shell: Shell
) -> None:
    writer = await Writer.claim(impatient)
    async with shell.transaction():
        await shell.execute("SELECT * FROM node FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await writer.commit(_write())
    assert not await _is_there(impatient)
    await writer.commit(_write())
    assert await _is_there(impatient)


async def test_a_statement_that_takes_too_long_is_given_up(impatient: PostgresStore, shell: Shell) -> None:
    writer = await Writer.claim(impatient)
    await _on_insert_of_events(shell, "PERFORM pg_sleep(60);")
    with pytest.raises(CommitUnknown):
        await writer.commit(_with_event())
    assert await impatient.resolve() == Claim(incarnation=2, batch=0)
    await shell.execute("DROP TRIGGER fault ON event")
    await writer.commit(_with_event())
    assert await _is_there(impatient)


async def test_a_listing_that_takes_too_long_is_given_up(impatient: PostgresStore, shell: Shell) -> None:
    async with shell.transaction():
        await shell.execute("LOCK TABLE run IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="timeout"):
            await impatient.count_runs(rows.NAMESPACE, EVERYTHING)
    assert await impatient.count_runs(rows.NAMESPACE, EVERYTHING) == 0


async def test_more_readers_than_connections_wait_their_turn(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, PostgresSettings(read_connections=1))
    await store.open()
    writer = await Writer.claim(store)
    await writer.commit(_write())
    found = await asyncio.gather(*(store.load_run(rows.key("w"), "r") for _ in range(50)))
    assert all(found)
    await store.close()


async def test_a_process_that_stopped_in_the_middle_of_a_batch_blocks_a_takeover_only_for_a_moment(
    store: PostgresStore, postgres_url: str
) -> None:
    await store.claim("node")
    stopped = await asyncpg.connect(postgres_url, server_settings={"idle_in_transaction_session_timeout": "200"})
    await stopped.execute("BEGIN")
    await stopped.execute("UPDATE node SET batch = 1 WHERE node = 'node'")
    patient = PostgresStore(postgres_url, PostgresSettings(lock_timeout_seconds=30))
    await patient.open()
    assert await patient.claim("node") == Claim(incarnation=2, batch=0)
    await patient.close()
    with pytest.raises(FAILURES):
        await stopped.execute("COMMIT")


async def test_a_batch_that_stops_in_the_middle_is_undone_and_the_next_one_is_written(
    impatient: PostgresStore, shell: Shell
) -> None:
    writer = await Writer.claim(impatient)

    async def stop_in_the_middle(connection: Shell) -> None:
        async def work() -> None:
            await connection.execute("UPDATE node SET batch = 1")
            await shell.execute(until("NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'node'::regclass)"))
            await connection.execute("UPDATE node SET batch = 1")

        await in_transaction(connection, work, PostgresSettings(statement_timeout_seconds=10))

    with pytest.raises(StoreUnavailable):
        await impatient._writer.run(stop_in_the_middle)
    await writer.commit(_write())
    assert await impatient.resolve() == Claim(incarnation=2, batch=1)


# --- what a database refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        rows.write("w", rows.run("w", "r", started_at=2**63)),
        rows.write("w", rows.run("w", "r", task_queue="\udfff")),
        rows.write("w", rows.run("w", "r", task_queue="a\0b")),
        rows.write("w", rows.run("w", "r", workflow_type="".join(map(chr, range(40, 9_000))))),
        EntityWrite(rows.key("w"), events=[WRONG_TYPE]),
    ],
    ids=["integer too large", "lone surrogate", "NUL", "key too long", "wrong type"],
)
async def test_values_the_database_cannot_hold_are_refused(store: PostgresStore, write: EntityWrite) -> None:
    writer = await Writer.claim(store)
    with pytest.raises(BatchRejected):
        await writer.commit(_write("innocent", "q"), write)
    assert not await _is_there(store, "innocent", "q")
    await writer.commit(_write("innocent", "q"))


# --- the database gives up or goes away ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["40001", "40P01"], ids=["serialisation failure", "deadlock"])
async def test_a_transaction_given_up_for_another_one_is_begun_anew(
    store: PostgresStore, shell: Shell, code: str
) -> None:
    writer = await Writer.claim(store)
    await shell.execute("CREATE SEQUENCE faults")
    await _on_insert_of_events(shell, _fail(code, "nextval('faults') < 3"))
    await writer.commit(_with_event())
    assert await _is_there(store)
    assert await shell.fetchval("SELECT last_value FROM faults") == 3


async def test_a_database_whose_disk_is_full_is_away_until_there_is_room(store: PostgresStore, shell: Shell) -> None:
    """It may still be read, and rows that fit where others were are still written."""
    writer = await Writer.claim(store)
    await _on_insert_of_events(shell, _fail("53100", "true"))
    await _on_new_tables(shell, _fail("53100", "true"))
    await store.check()
    with pytest.raises(StoreUnavailable):
        await writer.commit(_with_event())
    await writer.commit(_write("small"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="a fault"):
            await store.check()
    await shell.execute("DROP EVENT TRIGGER fault")
    await store.check()
    assert not await shell.fetch("SELECT FROM pg_class WHERE relpersistence = 't'"), "nothing is left behind"


async def test_who_may_make_no_temporary_table_is_not_kept_from_serving(store: PostgresStore, shell: Shell) -> None:
    writer = await Writer.claim(store)
    await _on_insert_of_events(shell, _fail("53100", "true"))
    await _on_new_tables(shell, _fail("42501", "true"))
    with pytest.raises(StoreUnavailable):
        await writer.commit(_with_event())
    await store.check()


async def test_a_transaction_given_up_each_time_leaves_nothing(store: PostgresStore, shell: Shell) -> None:
    writer = await Writer.claim(store)
    await _on_insert_of_events(shell, _fail("40001", "true"))
    with pytest.raises(StoreUnavailable, match="gave the transaction up 4 times"):
        await writer.commit(_with_event())
    assert not await _is_there(store)
    assert await store.resolve() == Claim(incarnation=2, batch=0)


async def test_a_batch_that_meets_a_takeover_at_the_fence_is_refused(shell: Shell, postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    writer = await Writer.claim(store)
    async with shell.transaction():
        await shell.execute("UPDATE node SET incarnation = incarnation + 1")
        commit = asyncio.create_task(writer.commit(_write()))
        await shell.execute(until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    with pytest.raises(Fenced):
        await commit
    assert not await _is_there(store)
    await store.close()


async def test_a_batch_that_waits_at_its_fence_is_in_nobodys_way(shell: Shell, postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    writer = await Writer.claim(store)
    await writer.commit(_write())
    other = await asyncpg.connect(postgres_url)
    async with shell.transaction():
        await shell.execute("SELECT FROM node FOR UPDATE")
        commit = asyncio.create_task(writer.commit(rows.write("w", rows.run("w", "r", stored_version=1))))
        await shell.execute(until("EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        assert await other.fetch("SELECT run_id FROM run FOR UPDATE NOWAIT")
    await commit
    await other.close()
    await store.close()


async def test_a_read_only_database_is_away_for_now(store: PostgresStore, shell: Shell, postgres_url: str) -> None:
    writer = await Writer.claim(store)
    await store.check()
    await _make_read_only(shell, is_read_only=True)
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await writer.commit(_write())
    assert not await _is_there(store), "reading goes on"
    await _make_read_only(shell, is_read_only=False)
    await store.check()
    await writer.commit(_write())


async def test_a_session_that_began_read_only_is_given_up(store: PostgresStore, shell: Shell) -> None:
    await store.join("a:1", "a", "1.0", 60)
    await _make_read_only(shell, is_read_only=True)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.renew(60)
    await _make_read_only(shell, is_read_only=False, ends_sessions=False)
    await store.renew(60)


async def test_of_several_servers_the_one_that_answers_is_used(postgres_url: str) -> None:
    parts = urlsplit(postgres_url)
    user, separator, address = parts.netloc.rpartition("@")
    store = PostgresStore(parts._replace(netloc=f"{user}{separator}127.0.0.1:1,{address}").geturl())
    await store.open()
    writer = await Writer.claim(store)
    await writer.commit(_write())
    assert await _is_there(store)
    await store.close()


async def test_sessions_that_were_ended_are_made_anew(store: PostgresStore, shell: Shell) -> None:
    writer = await Writer.claim(store)
    await writer.commit(_write())
    assert await _is_there(store)
    assert await store.count_runs(rows.NAMESPACE, EVERYTHING) == 1
    await end_other_sessions(shell)
    assert await _is_there(store), "a reader asks again on a new connection"
    assert await store.count_runs(rows.NAMESPACE, EVERYTHING) == 1
    try:
        await writer.commit(_write("v", "q"))
    except StoreUnavailable:
        await writer.commit(_write("v", "q"))
    assert await _is_there(store, "v", "q")


# --- opening and closing ------------------------------------------------------------------------------------------


async def test_a_store_that_is_not_open_refuses_and_may_be_closed(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.claim("node")
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.list_namespaces()
    await store.open()
    await store.claim("node")
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.commit(Batch(1, []))


async def test_closing_finishes_what_is_being_written(postgres_url: str) -> None:
    store, again = PostgresStore(postgres_url), PostgresStore(postgres_url)
    await store.open()
    writer = await Writer.claim(store)
    commit = asyncio.create_task(writer.commit(_write()))
    await asyncio.sleep(0)
    await store.close()
    await commit
    await again.open()
    assert await _is_there(again)
    await again.close()


async def test_a_caller_that_gives_up_does_not_stop_the_commit(store: PostgresStore) -> None:
    writer = await Writer.claim(store)
    commit = asyncio.create_task(writer.commit(_write()))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    assert await store.resolve() == Claim(incarnation=2, batch=1)
    assert await _is_there(store)


async def test_a_database_that_has_lost_its_id_is_refused(store: PostgresStore, shell: Shell) -> None:
    await shell.execute("DELETE FROM meta WHERE name = 'cluster_id'")
    with pytest.raises(StoreMismatch, match=r"no row cluster_id\. Restore a backup"):
        await store.cluster_id()


async def test_a_database_that_is_not_there_is_reported(postgres_url: str) -> None:
    store = PostgresStore(postgres_url + "_missing")
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await store.open()
    await store.close()


async def test_a_server_that_is_not_there_is_reported() -> None:
    store = PostgresStore("postgresql://perdure@127.0.0.1:1/perdure")
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()


async def test_sessions_are_set_to_what_keeps_acknowledged_work_and_lets_others_on(
    postgres_url: str, shell: Shell
) -> None:
    database = postgres_url.rpartition("/")[2]
    await shell.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    store = PostgresStore(postgres_url, IMPATIENT)
    await store.open()
    names = ("synchronous_commit", "transaction_isolation", "lock_timeout", "idle_in_transaction_session_timeout")

    async def settings(connection: Shell) -> list[str]:
        return [await connection.fetchval(f"SHOW {name}") for name in names]

    found = await store._writer.run(settings)
    assert found == ["on", "read committed", "200ms", "200ms"]
    await store.close()


# --- the faults ---------------------------------------------------------------------------------------------------


def _with_event() -> EntityWrite:
    write = _write()
    write.events = [rows.event("r", 1)]
    return write


async def _on_insert_of_events(shell: Shell, body: str) -> None:
    """Have the database do something in the middle of each batch that has events."""
    await shell.execute(
        f"CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
    )
    await shell.execute("CREATE TRIGGER fault AFTER INSERT ON event EXECUTE FUNCTION fault()")


async def _on_new_tables(shell: Shell, body: str) -> None:
    """Have the database do something before each table that is made for a query's rows."""
    await shell.execute(
        f"CREATE FUNCTION table_fault() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"
    )
    await shell.execute(
        "CREATE EVENT TRIGGER fault ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS') EXECUTE FUNCTION table_fault()"
    )


def _fail(code: str, condition: str) -> str:
    return f"IF {condition} THEN RAISE EXCEPTION 'a fault' USING ERRCODE = '{code}'; END IF;"


async def _make_read_only(shell: Shell, *, is_read_only: bool, ends_sessions: bool = True) -> None:
    database = await shell.fetchval("SELECT current_database()")
    value = "on" if is_read_only else "off"
    await shell.execute("SET default_transaction_read_only = off")
    await shell.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")
    if ends_sessions:
        await end_other_sessions(shell)
