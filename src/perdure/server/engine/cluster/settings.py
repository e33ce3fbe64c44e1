"""The limits of a cluster: each has a name, a default and a test."""

from __future__ import annotations

import msgspec

_MIB = 1024 * 1024


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one node lives with the others of its cluster."""

    lease_seconds: float = 5.0
    """How long a node that has fallen silent keeps its shards; the others take them then. All nodes should agree."""
    lease_margin: float = 0.1
    """The share of a lease by which a node believes it to end earlier than the database does."""
    renewals_per_lease: int = 5
    """How often a node prolongs its lease within one lease."""
    patience_seconds: float = 10.0
    """How long a request waits for its shard to have an owner within reach, before its caller is told to retry."""
    dial_retry_seconds: float = 0.25
    """Pause before another node is dialled again."""
    dial_timeout_seconds: float = 2.0
    """How long another node may take to answer when it is dialled."""
    ask_timeout_seconds: float = 2.0
    """How long another node may take to answer what only it knows, such as who polls a task queue there."""
    hang_up_seconds: float = 0.5
    """How long a node that stops waits for calls that are in progress at others, or for others."""
    link_bytes_max: int = 64 * _MIB
    """How many bytes may wait to be sent to one other node; calls beyond are refused as unavailable."""
    link_calls_max: int = 50_000
    """Most calls of one other node that are in progress here; more are refused."""
    unproven_links_max: int = 100
    """Most streams to this node of which none has proved yet that it comes from a member; more are closed."""
    queue_sweep_seconds: float = 2.0
    """How often a node looks which task queues are not polled there any more, to tell the others."""
