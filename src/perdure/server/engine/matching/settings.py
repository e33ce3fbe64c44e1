"""The limits and times of the matcher. Every one has a default that suits a server of any size."""

from __future__ import annotations

import msgspec


class MatcherSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits per queue unless said otherwise; times in seconds."""

    window_offers: int = 1_000
    """Task offers held in memory; what is beyond stays in the index on disk."""
    refill_offers: int = 500
    """Offers a refill is meant to find; one is due when so many fit into the window."""
    concurrent_refills: int = 4
    """Reads of the index at one time, of all queues."""
    refill_retry_seconds: float = 1.0
    """Pause after a read that failed."""
    rescan_seconds: float = 30.0
    """How often every polled queue is checked against the index, and idle queues are looked for."""
    answered_seconds: float = 10.0
    """How long a refill passes over a task that was just answered: the default timeout of a workflow task."""
    max_answered: int = 20_000
    """Answered tasks remembered for that."""
    max_queries: int = 1_000
    """Queries that wait for a poll."""
    max_parked_polls: int = 10_000
    """Polls that wait for a task."""
    max_unpolled_queues: int = 10_000
    """Queues in memory, of all namespaces, from which on one that nobody polls is not remembered."""
    idle_queue_seconds: float = 300.0
    """How long a queue stays in memory after its last poll."""
    poller_history_seconds: float = 300.0
    """How long a poller is shown after its last poll."""
    max_pollers_shown: int = 1_000
    """Pollers remembered."""
    worker_shutdown_seconds: float = 30.0
    """How long polls of a worker that was shut down end at once."""
    max_shut_down_workers: int = 10_000
    """Workers remembered for that, of all namespaces."""
