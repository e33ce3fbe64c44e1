"""Every limit of the engine, by name; the defaults are Temporal's where it has the limit. Data only.

Who checks a limit is the module it concerns. Sizes are bytes, counts are plain, durations are nanoseconds. An operator
changes a limit by building another `Limits`; nothing in the engine may hold a second copy of one of these numbers.
"""

from __future__ import annotations

import msgspec

_KIB = 1024
_MIB = 1024 * 1024
_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits one namespace's runs live under. The defaults are Temporal's where it has the limit."""

    # --- names and messages ------------------------------------------------------------------------------------------

    id_length: int = 1000
    """Longest id or name, in UTF-8 bytes: workflow, activity, timer, type, task queue, signal, request id, identity."""
    fairness_key_length: int = 64
    """Longest fairness key of a priority, in UTF-8 bytes."""
    message_size: int = 4 * _MIB
    """Largest message the gRPC front end takes."""
    links_per_request: int = 10
    """Most links one request may attach."""

    # --- payloads -----------------------------------------------------------------------------------------------------

    blob_size_warn: int = 512 * _KIB
    """Size to which a failure is cut that is too large."""
    blob_size_error: int = 2 * _MIB
    """Largest payloads of one event; a command with more ends its run."""
    memo_size_error: int = 2 * _MIB
    """Largest memo."""
    activity_failure_size: int = 4 * _KIB
    """Largest failure kept with a pending activity between attempts; a larger one is truncated."""

    # --- search attributes --------------------------------------------------------------------------------------------

    search_attributes_count: int = 100
    """Most search attributes one request may set."""
    search_attribute_value_size: int = 2 * _KIB
    """Largest value of one search attribute."""
    search_attributes_size: int = 40 * _KIB
    """Largest set of search attributes of one run."""

    # --- history ------------------------------------------------------------------------------------------------------

    history_count_suggest_continue_as_new: int = 4 * _KIB
    """Events from which on workflow tasks suggest to continue as new."""
    history_count_warn: int = 10 * _KIB
    """Events from which on the run is logged."""
    history_count_error: int = 50 * _KIB
    """Events above which the run is terminated."""
    history_size_suggest_continue_as_new: int = 4 * _MIB
    """History size from which on workflow tasks suggest to continue as new."""
    history_size_warn: int = 10 * _MIB
    """History size from which on the run is logged."""
    history_size_error: int = 50 * _MIB
    """History size above which the run is terminated."""
    history_page_size: int = 256
    """Most events in one page of a history, and the page size where the caller names none."""

    # --- what one run may hold ----------------------------------------------------------------------------------------

    pending_activities: int = 2_000
    """Pending activities from which on scheduling one more fails the workflow task."""
    pending_child_workflows: int = 2_000
    """Pending child workflows from which on starting one more fails the workflow task."""
    pending_external_signals: int = 2_000
    """Pending signals to other workflows from which on sending one more fails the workflow task."""
    pending_external_cancels: int = 2_000
    """Pending cancel requests to other workflows from which on sending one more fails the workflow task."""
    signals_per_execution: int = 10_000
    """Signals one run takes in all."""
    buffered_events_count: int = 100
    """Events buffered behind a started workflow task; one more fails that task."""
    buffered_events_size: int = 2 * _MIB
    """Bytes of events buffered behind a started workflow task; more fail that task."""
    buffered_queries: int = 100
    """Queries one run holds until its next workflow task; Temporal holds one, and refuses the others for a moment."""

    # --- workflow tasks -----------------------------------------------------------------------------------------------

    workflow_task_timeout_default: int = 10 * _SECOND
    """Start-to-close timeout of a workflow task where the start request names none."""
    workflow_task_timeout_max: int = 120 * _SECOND
    """Longest start-to-close timeout of a workflow task."""
    workflow_task_heartbeat_timeout: int = 30 * _MINUTE
    """How long a workflow task may be prolonged by completing it with a forced successor."""
    workflow_task_retry_interval_max: int = 10 * _MINUTE
    """Most that repeated failures add to the start-to-close timeout of a workflow task."""

    # --- time ---------------------------------------------------------------------------------------------------------

    activity_timeout_grace: int = 300_000_000
    """How late the timeout of a started activity is told, so that an answer sent just in time is still taken.

    Temporal has no such limit, but a queue of timers that tells a timeout up to a second late.
    """
    run_interval_min: int = 1 * _SECOND
    """Shortest time from the start of a run to the start of its successor: no tight loop of runs."""
