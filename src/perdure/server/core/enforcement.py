"""Limits on what a run may become, enforced at the end of every step that changed it.

A run whose history is too long or too large is terminated: nothing it could do would make it shorter. A started
workflow task behind which too many events wait is failed, so that they reach history and the next task.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.effects import HistoryGrowsLarge
from perdure.server.core.limits import Limits
from perdure.server.core.machines import closure, task_failure, workflow_task
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

HISTORY_TOO_LONG = "Workflow history count exceeds limit."
HISTORY_TOO_LARGE = "Workflow history size exceeds limit."

_FORCE_CLOSE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND


def enforce(t: Transition) -> None:
    """Hold the run of a finished step to its limits."""
    run, limits = t.run, t.world.limits
    if not run.is_open or (_is_small(run, limits) and not run.buffered):
        return
    if run.next_event_id - 1 > limits.history_count_error:
        closure.terminate(t, reason=HISTORY_TOO_LONG)
    elif run.history_size_bytes > limits.history_size_error:
        closure.terminate(t, reason=HISTORY_TOO_LARGE)
    elif _waits_too_much(run, limits.buffered_events_count, limits.buffered_events_size):
        t.identity = closure.SERVER_IDENTITY
        task_failure.end_with_failure(t, _FORCE_CLOSE, None)
        workflow_task.schedule(t)
    elif not run.has_warned and _grows_large(run, limits):
        run.has_warned = True
        t.effects.append(HistoryGrowsLarge(run.key, run.run_id, run.next_event_id - 1, run.history_size_bytes))


def _is_small(run: Run, limits: Limits) -> bool:
    """Whether the history is within all its limits, as nearly all are."""
    events, size = run.next_event_id - 1, run.history_size_bytes
    return (
        events <= limits.history_count_warn
        and events <= limits.history_count_error
        and size <= limits.history_size_warn
        and size <= limits.history_size_error
    )


def _grows_large(run: Run, limits: Limits) -> bool:
    return run.next_event_id - 1 > limits.history_count_warn or run.history_size_bytes > limits.history_size_warn


def _waits_too_much(run: Run, count: int, size: int) -> bool:
    if not run.buffered:
        return False
    return len(run.buffered) > count or sum(len(event.serialize()) for event in run.buffered) > size
