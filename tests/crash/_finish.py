"""The end of a run: every workflow of the load closes, and its history is compared with what was acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio.api.common.v1 import WorkflowExecution

from tests.crash._audit import audit
from tests.crash._calls import Calls, Refused
from tests.crash._load import Journal, closed, history

FINISH_SECONDS = 60.0
_READERS = 20


async def audit_all(calls: Calls, journal: Journal, finish_seconds: float = FINISH_SECONDS) -> list[str]:
    """Wait for every workflow to close, and audit its history."""
    faults: list[str] = []
    starts = journal.starts()
    remaining = iter(starts.items())
    unfinished = set(starts)

    async def read() -> None:
        for workflow_id, run_id in remaining:
            faults.extend(await _audit_one(calls, journal, workflow_id, run_id))
            unfinished.remove(workflow_id)

    try:
        async with asyncio.timeout(finish_seconds):
            await asyncio.gather(*(read() for _ in range(_READERS)))
    except TimeoutError:
        stuck = sorted(unfinished - journal.finishing)
        faults.append(f"{len(stuck)} workflows had not completed {finish_seconds:.0f} s after the last fault: {stuck}")
    return faults


async def _audit_one(calls: Calls, journal: Journal, workflow_id: str, run_id: str) -> Sequence[str]:
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
    try:
        await closed(calls, execution)
        events = await history(calls, execution)
    except Refused as refusal:
        return [f"{workflow_id}: its start was acknowledged and it is not there: {refusal}"]
    return audit(workflow_id, events, journal.promises[workflow_id])
