"""A transaction whose end is known: it happened, it did not, or nobody can say.

Before COMMIT is sent, whatever goes wrong leaves nothing: the database undoes what a lost connection began. From then
until its answer has come the fate is unknown. COMMIT is never cancelled: a database with synchronous copies would then
report as done what it has not made durable in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from perdure.server.store.interface import CommitUnknown, StoreUnavailable
from perdure.server.store.postgres.errors import FAILURES, is_lost_connection, is_to_be_retried

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

T = TypeVar("T")

_ATTEMPTS: Final = 4
"""How often a transaction is tried that the database gives up for the sake of another one."""


async def in_transaction(connection: Connection, work: Callable[[], Awaitable[T]], limit_seconds: float) -> T:
    """Do the work in one transaction; do it again where the database gave it up for the sake of another one.

    The work must begin with what tells whether it was done already, as the fence does.

    Args:
        connection: In no transaction.
        work: What to do; it may be done several times, of which one counts.
        limit_seconds: How long the work may take, and after it COMMIT.

    Raises:
        CommitUnknown: COMMIT was sent and no answer came.
        StoreUnavailable: The work or the commit took too long, or was given up each time. Nothing was written.
    """
    attempts = 0
    while True:
        try:
            return await _once(connection, work, limit_seconds)
        except asyncpg.PostgresError as error:
            attempts += 1
            if not is_to_be_retried(error):
                raise
            if attempts == _ATTEMPTS:
                raise StoreUnavailable(f"The database gave the transaction up {attempts} times: {error}") from error


async def _once(connection: Connection, work: Callable[[], Awaitable[T]], limit_seconds: float) -> T:
    try:
        async with asyncio.timeout(limit_seconds):
            await connection.execute("BEGIN")
            result = await work()
    except (TimeoutError, asyncio.CancelledError):
        connection.terminate()
        raise
    except BaseException:
        await _roll_back(connection, limit_seconds)
        raise
    await _commit(connection, limit_seconds)
    return result


async def _roll_back(connection: Connection, limit_seconds: float) -> None:
    try:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=limit_seconds)
    except FAILURES:
        connection.terminate()


async def _commit(connection: Connection, limit_seconds: float) -> None:
    commit = asyncio.create_task(connection.execute("COMMIT"), name="COMMIT")
    try:
        await asyncio.wait([commit], timeout=limit_seconds)
    finally:
        if not commit.done():
            # Not by a cancellation of ours, which the driver would pass on to the database.
            connection.terminate()
    try:
        status = await commit
    except FAILURES as error:
        if isinstance(error, asyncpg.PostgresError) and not is_lost_connection(error):
            raise
        raise CommitUnknown(f"No answer to COMMIT came: {error}") from error
    if status != "COMMIT":
        raise StoreUnavailable(f"The database answered {status} to COMMIT.")
