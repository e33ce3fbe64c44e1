"""What PostgreSQL's errors mean for the caller: away for now, or refused for what was written."""

from __future__ import annotations

import asyncpg

from perdure.server.store.interface import BatchRejected, StoreError, StoreUnavailable

FAILURES = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    UnicodeError,
    OverflowError,
    ValueError,
)
"""What a call of the driver raises where the database, the network or a value is to blame. A timeout is an OSError."""

_REFUSED = ("21", "22", "23", "54")
"""Classes of SQLSTATE that speak of what was given: how many rows, a value, a constraint, a size."""

_OF_THE_TRANSACTION = ("23", "25", "40")
"""Classes of SQLSTATE that speak of a transaction that was ended: by a constraint, by its state, by another one."""

_OF_THE_STATEMENT = (*_REFUSED, "0A", "25", "40", "42", "53", "55")
"""Classes of SQLSTATE with which a statement ends that was not done: what was given, a lock, the disk, another one."""

_TO_BE_RETRIED = frozenset({"40001", "40P01"})
"""A serialisation failure and a deadlock: the database gave the transaction up for another one's sake."""

_READ_ONLY = "25006"
"""A session may have been made so when it began, and stays so when its database takes writes again."""


def map_error(error: Exception) -> StoreError:
    """Return the store's own error for one of `FAILURES`."""
    if isinstance(error, asyncpg.PostgresError):
        # Values that the driver cannot encode (a lone surrogate, an integer beyond 64 bits) come as class 22 too.
        if (error.sqlstate or "")[:2] in _REFUSED:
            return BatchRejected(f"The database refuses a row: {error}")
    elif isinstance(error, UnicodeError | OverflowError):
        return BatchRejected(f"The database cannot hold a value: {error}")
    elif isinstance(error, TimeoutError):
        return StoreUnavailable("The database did not answer in time.")
    return StoreUnavailable(f"The database cannot answer: {error}")


def is_to_be_retried(error: asyncpg.PostgresError) -> bool:
    """Whether the same transaction may well succeed when it is begun anew."""
    return error.sqlstate in _TO_BE_RETRIED


def is_surely_undone(error: Exception) -> bool:
    """Whether an error in answer to COMMIT says that nothing was committed.

    Few do: a serialisation failure, a constraint, a transaction that had ended before. Whatever else is said (that the
    completion is unknown, that time was up) may have been said of a transaction that is durable.
    """
    return _speaks_of(error, _OF_THE_TRANSACTION)


def is_refused(error: Exception) -> bool:
    """Whether an error in answer to a statement that commits by itself says that nothing was committed.

    That time was up does not: CockroachDB may say so of a commit that is on its way. Nor does a session that is ended.
    """
    # The driver may have found a value that it cannot send.
    return isinstance(error, UnicodeError | OverflowError) or _speaks_of(error, _OF_THE_STATEMENT)


def _speaks_of(error: Exception, classes: tuple[str, ...]) -> bool:
    """Whether the database answered with one of these classes, and not that it does not know the end."""
    if not isinstance(error, asyncpg.PostgresError) or error.sqlstate == "40003":
        return False
    return (error.sqlstate or "")[:2] in classes


def is_lost_connection(error: Exception) -> bool:
    """Whether an error says that the connection is gone, so that a new one may have more luck."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "")[:2] in ("08", "57") and error.sqlstate != "57014"
    kinds = asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    return isinstance(error, kinds) and not isinstance(error, TimeoutError)


def leaves_connection_usable(error: BaseException) -> bool:
    """Whether more can be asked on the connection: the database refused a statement, and nothing else happened.

    The driver may go on holding a connection of which the database took leave while nothing was asked, and then refuses
    every question.
    """
    if not isinstance(error, asyncpg.PostgresError) or error.sqlstate == _READ_ONLY:
        return False
    return not is_lost_connection(error)
