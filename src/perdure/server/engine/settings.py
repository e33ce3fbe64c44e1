"""The engine's own limits: each has a name, a default and a test."""

from __future__ import annotations

import msgspec

from perdure.server.core.limits import Limits
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.matching.settings import MatcherSettings

_MIB = 1024 * 1024


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one engine runs."""

    node: str = "local"
    """The name this engine writes under; a second engine of the same name fences the first."""
    cache_bytes: int = 200 * _MIB
    """How many bytes of runs are kept in memory between their transitions."""
    batch_entities: int = 500
    """Most entities one transaction writes; the rest goes into the next one."""
    gather_seconds: float = 0.002
    """How long transactions are apart at least while several workflows are at work; an idle engine writes at once."""
    gather_seconds_max: float = 0.01
    """How long they are apart at most for taking long, as on a busy machine: twice as long as one takes."""
    load_keys: int = 200
    """Most entities one read loads."""
    alarm_horizon_seconds: float = 60.0
    """How far ahead alarms are held in memory."""
    alarms_in_memory: int = 20_000
    """Most alarms one look into the index brings into memory."""
    alarms_at_once: int = 500
    """Most alarms that are being worked on at the same time."""
    outbox_messages: int = 10_000
    """Most messages between workflows that wait in memory; the others wait in the store."""
    outbox_bytes: int = 32 * _MIB
    """About how many bytes of them one look into the store brings into memory."""
    outbox_rescan_seconds: float = 60.0
    """How often the store is asked for messages that are not in memory and should be."""
    messages_at_once: int = 500
    """Most messages that are being delivered at the same time."""
    deletions_per_second: int = 400
    """Most runs deleted per second because their retention is over, or their namespace is being deleted."""
    retention_rescan_seconds: float = 600.0
    """How often closed runs whose retention is over are looked for where none should be due."""
    events_deleted_at_once: int = 500
    """Most events of a long history deleted in one transaction, after its run; a short one goes with the run."""
    events_deleted_per_second: int = 10_000
    """Most events of such histories deleted per second."""
    discarded_rescan_seconds: float = 60.0
    """How often such histories are looked for where none are left."""
    history_page_bytes: int = 1 * _MIB
    """Most bytes of events in one page of a history; one event is always given, whatever its size."""
    task_history_events: int = 1_000
    """Most events in the reply that hands out a workflow task; the worker reads the rest page by page."""
    pending_queries: int = 10_000
    """Most queries that wait for an answer at the same time."""
    cluster: ClusterSettings = ClusterSettings()
    """How several nodes live on one database."""
    limits: Limits = Limits()
    """What requests and runs may be at most."""
    matcher: MatcherSettings = MatcherSettings()
    """What task queues may hold."""
