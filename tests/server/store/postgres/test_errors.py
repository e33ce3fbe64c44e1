"""What PostgreSQL's errors mean: for those that no test can have a server raise."""

from __future__ import annotations

import asyncpg
import pytest

from perdure.server.store.interface import BatchRejected, StoreUnavailable
from perdure.server.store.postgres.errors import (
    is_lost_connection,
    is_surely_undone,
    leaves_connection_usable,
    map_error,
)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError("duplicate key"),
        asyncpg.NotNullViolationError("null value"),
        asyncpg.CharacterNotInRepertoireError("invalid byte sequence"),
        asyncpg.ProgramLimitExceededError("index row size exceeds maximum"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        OverflowError("too large"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_wrong_with_a_row_is_refused(error: Exception) -> None:
    assert isinstance(map_error(error), BatchRejected)
    assert not is_lost_connection(error)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"), True),
        (asyncpg.AdminShutdownError("terminating connection"), True),
        (asyncpg.CrashShutdownError("terminating connection"), True),
        (asyncpg.CannotConnectNowError("the database system is starting up"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InternalClientError("another operation is in progress"), True),
        (ConnectionRefusedError("refused"), True),
        (asyncpg.QueryCanceledError("canceling statement due to statement timeout"), False),
        (asyncpg.LockNotAvailableError("canceling statement due to lock timeout"), False),
        (asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"), False),
        (asyncpg.DiskFullError("no space left on device"), False),
        (asyncpg.TooManyConnectionsError("too many clients"), False),
        (asyncpg.InsufficientPrivilegeError("permission denied"), False),
        (TimeoutError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_pass_is_away_for_now(error: Exception, is_lost: bool) -> None:
    assert isinstance(map_error(error), StoreUnavailable)
    assert is_lost_connection(error) is is_lost


def test_a_connection_is_used_on_only_after_a_refusal_of_the_database() -> None:
    assert leaves_connection_usable(asyncpg.UniqueViolationError("duplicate key"))
    for error in (asyncpg.AdminShutdownError("bye"), asyncpg.InternalClientError("stuck"), TimeoutError(), OSError()):
        assert not leaves_connection_usable(error)


@pytest.mark.parametrize(
    ("error", "is_undone"),
    [
        (asyncpg.SerializationError("restart transaction"), True),
        (asyncpg.DeadlockDetectedError("deadlock detected"), True),
        (asyncpg.UniqueViolationError("duplicate key"), True),
        (asyncpg.IdleInTransactionSessionTimeoutError("terminating connection"), True),
        (asyncpg.StatementCompletionUnknownError("result is ambiguous"), False),
        (asyncpg.QueryCanceledError("canceling statement due to statement timeout"), False),
        (asyncpg.AdminShutdownError("terminating connection"), False),
        (asyncpg.InternalServerError("internal error"), False),
        (asyncpg.ConnectionDoesNotExistError("closed in the middle of operation"), False),
        (TimeoutError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_few_answers_to_commit_say_for_sure_that_nothing_was_committed(error: Exception, is_undone: bool) -> None:
    assert is_surely_undone(error) is is_undone
