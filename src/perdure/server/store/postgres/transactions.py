"""A transaction whose end is known: it happened, it did not, or nobody can say.

Before COMMIT is sent, whatever goes wrong leaves nothing: the database undoes what a lost connection began. From then
until its answer has come the fate is unknown; that of a single statement, which commits by itself, from the beginning.
No time limit cancels what commits, it ends the connection: a database with synchronous copies would report as done what
it has not made durable in all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from perdure.server.store.interface import CommitUnknown, StoreUnavailable
from perdure.server.store.postgres.errors import FAILURES, is_refused, is_surely_undone, is_to_be_retried
from perdure.server.store.settings import PostgresSettings

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

T = TypeVar("T")


async def in_transaction(connection: Connection, work: Callable[[], Awaitable[T]], settings: PostgresSettings) -> T:
    """Do the work in one transaction; do it again where the database gave it up for the sake of another one.

    The work must begin with what tells whether it was done already, as the fence does.

    Args:
        connection: In no transaction.
        work: What to do; it may be done several times, of which one counts.
        settings: How long the work may take, and after it COMMIT; and how often both are tried.

    Raises:
        CommitUnknown: COMMIT was sent, and what was answered, if anything, does not say that it failed.
        StoreUnavailable: The work took too long, or was given up each time. Nothing was written.
    """
    limit_seconds = settings.statement_timeout_seconds
    return await retried(lambda: _once(connection, work, limit_seconds), settings.transaction_attempts)


async def in_one_statement(connection: Connection, ask: Callable[[], Awaitable[T]], settings: PostgresSettings) -> T:
    """Ask what is a transaction by itself, begun and committed with its one statement; again, if it was given up.

    Args:
        connection: In no transaction.
        ask: Executes the statement; it may be asked several times, of which one counts.
        settings: How long it may take, and how often it is tried.

    Raises:
        CommitUnknown: What was answered, if anything, does not say that nothing was committed.
        StoreUnavailable: It was given up each time. Nothing was written.
    """
    limit_seconds = settings.statement_timeout_seconds
    return await retried(lambda: _alone(connection, ask, limit_seconds), settings.transaction_attempts)


async def retried(work: Callable[[], Awaitable[T]], attempts: int) -> T:
    """Do what is a transaction of its own; do it again where the database gave it up for the sake of another one."""
    attempt = 0
    while True:
        try:
            return await work()
        except asyncpg.PostgresError as error:
            attempt += 1
            if not is_to_be_retried(error):
                raise
            if attempt >= attempts:
                raise StoreUnavailable(f"The database gave the transaction up {attempt} times: {error}") from error


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
    try:
        await _commit(connection, limit_seconds)
    except BaseException:
        await _roll_back(connection, limit_seconds)
        raise
    return result


async def _roll_back(connection: Connection, limit_seconds: float) -> None:
    try:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=limit_seconds)
    except FAILURES:
        connection.terminate()


async def _alone(connection: Connection, ask: Callable[[], Awaitable[T]], limit_seconds: float) -> T:
    try:
        return await _to_its_end(connection, ask(), limit_seconds)
    except FAILURES as error:
        if is_refused(error):
            raise
        raise CommitUnknown(f"No answer tells whether the batch was written: {error}") from error


async def _commit(connection: Connection, limit_seconds: float) -> None:
    try:
        status = await _to_its_end(connection, connection.execute("COMMIT"), limit_seconds)
    except FAILURES as error:
        if is_surely_undone(error):
            raise
        raise CommitUnknown(f"No answer to COMMIT tells that it failed: {error}") from error
    if status != "COMMIT":
        raise StoreUnavailable(f"The database answered {status} to COMMIT.")


async def _to_its_end(connection: Connection, question: Awaitable[T], limit_seconds: float) -> T:
    """Wait for what commits, or lose the connection: the driver's own time limit would cancel it in the database."""
    limit = asyncio.get_running_loop().call_later(limit_seconds, connection.terminate)
    try:
        return await question
    except asyncio.CancelledError:
        connection.terminate()
        raise
    except FAILURES:
        raise
    except Exception as error:
        if connection.is_closed():
            # Ended between two of its steps, the driver stumbles over what is not there any more.
            raise ConnectionError("The connection ended in the middle of a question.") from error
        raise
    finally:
        limit.cancel()
