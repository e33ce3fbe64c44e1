"""The timeouts that watch over all of a run: its own, after which it may be retried, and that of the chain of runs."""

from __future__ import annotations

from perdure.server.core import registry
from perdure.server.core.failures import run_timeout_failure
from perdure.server.core.machines import closure, start
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


def _run_timeout_due_at(run: Run, key: int | str) -> int | None:
    return start.run_expires_at(run) if run.is_open else None


def _execution_timeout_due_at(run: Run, key: int | str) -> int | None:
    return start.execution_expires_at(run) if run.is_open else None


def _time_out_run(t: Transition, key: int | str) -> None:
    closure.time_out(t, run_timeout_failure())


def _time_out_execution(t: Transition, key: int | str) -> None:
    closure.time_out(t, None)


registry.alarm(start.EXECUTION_TIMEOUT_ALARM, due_at=_execution_timeout_due_at, fire=_time_out_execution)
registry.alarm(start.RUN_TIMEOUT_ALARM, due_at=_run_timeout_due_at, fire=_time_out_run)
