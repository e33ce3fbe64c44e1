"""The matcher: task queues in memory, over the store's index of ready tasks. Soft state; truth is in the runs."""

from perdure.server.engine.matching.loaded_queue import Visit
from perdure.server.engine.matching.matcher import (
    STICKY_WORKER_GONE_SECONDS,
    BacklogStats,
    Clock,
    Matcher,
    ReadyTaskIndex,
)
from perdure.server.engine.matching.neighbours import Neighbours
from perdure.server.engine.matching.poller_history import DEFAULT_RATE_PER_SECOND, Poller, PollerInfo
from perdure.server.engine.matching.settings import MatcherSettings
from perdure.server.engine.matching.task_queue import Offer, QueueKey, QueueKind

__all__ = [
    "DEFAULT_RATE_PER_SECOND",
    "STICKY_WORKER_GONE_SECONDS",
    "BacklogStats",
    "Clock",
    "Matcher",
    "MatcherSettings",
    "Neighbours",
    "Offer",
    "Poller",
    "PollerInfo",
    "QueueKey",
    "QueueKind",
    "ReadyTaskIndex",
    "Visit",
]
