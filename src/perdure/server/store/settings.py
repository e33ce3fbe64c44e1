"""What of a database can be set from outside: sizes and times, each with a name, a default and a test.

Data only. It stands beside the stores and not in one, because reading settings must not load a driver.
"""

from __future__ import annotations

from typing import Final

import msgspec

COCKROACH_SCHEME: Final = "cockroachdb"
"""What the URL of a database on CockroachDB begins with. Its protocol is PostgreSQL's, what it is told is not."""

_IDLE_SHARE: Final = 0.4
_LOCK_SHARE: Final = 0.48
"""Of a lease: both below a half, and whoever waits for a lock outlasts a batch that has stopped."""


class PostgresSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a server uses PostgreSQL. The timeouts keep a stopped or cut-off server from blocking the next one."""

    read_connections: int = 4
    """Most connections that load workflows and read histories and task queues. One more connection writes."""
    list_connections: int = 2
    """Most connections that list and count, so that a count over a million runs delays nothing else."""
    connect_timeout_seconds: float = 10.0
    """How long connecting, or waiting for a free connection, may take."""
    statement_timeout_seconds: float = 30.0
    """How long one statement may take; for a batch also how long all of it and its commit may take."""
    lock_timeout_seconds: float = 5.0
    """How long a batch, or a server that takes over, waits for a lock; longer than the one below."""
    idle_transaction_timeout_seconds: float = 3.0
    """How long the database waits for the next statement of a batch before it undoes it and lets others on."""
    transaction_attempts: int = 4
    """How often a transaction is tried that the database gives up for the sake of another one."""

    def within(self, lease_seconds: float) -> PostgresSettings:
        """Return these as a member of a cluster needs them.

        One that stops in the middle of a batch must not block for long those who take its shards: the two that bound
        that are below half a lease, however long they were set.
        """
        return msgspec.structs.replace(
            self,
            lock_timeout_seconds=min(self.lock_timeout_seconds, _LOCK_SHARE * lease_seconds),
            idle_transaction_timeout_seconds=min(self.idle_transaction_timeout_seconds, _IDLE_SHARE * lease_seconds),
        )
