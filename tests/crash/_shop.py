"""The workflows of the cluster's load, on the official SDK: orders with parcels as children, and a ledger for all.

An order runs its activities and its parcels, waits for its clients' signals, and enters itself into the ledger. Each
parcel is signalled by its order and signals it back, and enters itself into the ledger too, which continues as new
again and again. So every token crosses from one workflow to another, mostly on another node, and is seen at both ends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError
from temporalio.workflow import ActivityCancellationType, ParentClosePolicy

LEDGER_ID = "ledger"
CLOSE = "close"
START_TO_CLOSE_SECONDS = 4
_ENTRIES_PER_RUN = 25
_REPLACEMENTS = 50


@dataclass
class StepPlan:
    """One activity of an order."""

    once: bool
    """Whether it has one attempt."""
    fails_first: bool = False
    """Whether its first attempt fails and it is retried."""
    completes_later: bool = False
    """Whether a client completes it, by its token."""


@dataclass
class OrderPlan:
    """What an order does."""

    steps: list[StepPlan] = field(default_factory=list)
    parcels: int = 0
    signals: int = 0
    sleep_milliseconds: int = 0


def parcel_id(order_id: str, number: int) -> str:
    """Return the workflow id of an order's parcel."""
    return f"{order_id}/parcel-{number}"


@workflow.defn
class Order:
    """Completes when everything of it has happened."""

    def __init__(self) -> None:
        self._approvals: list[str] = []
        self._packed: list[str] = []

    @workflow.run
    async def run(self, plan: OrderPlan) -> list[str]:
        """Return the tokens of all signals that came, in their order."""
        parts = [self._step(number, step) for number, step in enumerate(plan.steps)]
        parts += [self._parcel(number) for number in range(plan.parcels)]
        if plan.sleep_milliseconds:
            parts.append(asyncio.sleep(plan.sleep_milliseconds / 1_000))
        await asyncio.gather(*parts)
        await workflow.wait_condition(lambda: len(self._approvals) >= plan.signals)
        await workflow.wait_condition(lambda: len(self._packed) >= plan.parcels)
        await _enter(workflow.info().workflow_id)
        return self._approvals + self._packed

    @workflow.signal
    def approve(self, token: str) -> None:
        """Take a client's signal."""
        self._approvals.append(token)

    @workflow.signal
    def packed(self, token: str) -> None:
        """Take a parcel's signal."""
        self._packed.append(token)

    async def _step(self, number: int, plan: StepPlan) -> None:
        """Run an activity; one that was lost for good with its worker or its node is replaced."""
        for replacement in range(_REPLACEMENTS):
            try:
                await workflow.execute_activity(
                    "step",
                    plan,
                    activity_id=f"{number}.{replacement}",
                    start_to_close_timeout=timedelta(seconds=START_TO_CLOSE_SECONDS),
                    retry_policy=RetryPolicy(
                        initial_interval=timedelta(milliseconds=100), maximum_attempts=1 if plan.once else 0
                    ),
                    cancellation_type=ActivityCancellationType.ABANDON,
                )
            except ActivityError:
                continue
            return
        raise RuntimeError(f"step {number} was lost {_REPLACEMENTS} times")

    async def _parcel(self, number: int) -> None:
        order_id = workflow.info().workflow_id
        name = parcel_id(order_id, number)
        parcel = await workflow.start_child_workflow(
            Parcel.run, order_id, id=name, parent_close_policy=ParentClosePolicy.ABANDON, task_timeout=_TASK_TIMEOUT
        )
        await parcel.signal(Parcel.pack, name)
        await parcel


@workflow.defn
class Parcel:
    """A child of an order."""

    def __init__(self) -> None:
        self._packed: list[str] = []

    @workflow.run
    async def run(self, order_id: str) -> list[str]:
        """Return the tokens of all signals that came."""
        await workflow.wait_condition(lambda: bool(self._packed))
        name = workflow.info().workflow_id
        await workflow.get_external_workflow_handle_for(Order.run, order_id).signal(Order.packed, name)
        await _enter(name)
        return self._packed

    @workflow.signal
    def pack(self, token: str) -> None:
        """Take the order's signal."""
        self._packed.append(token)


@workflow.defn
class Ledger:
    """Takes an entry of every order and every parcel, over as many runs as it takes."""

    def __init__(self) -> None:
        self._entries: list[str] = []

    @workflow.run
    async def run(self, carried: int) -> int:
        """Return how many entries there were in all runs, without the last one, which ends it."""
        await workflow.wait_condition(lambda: CLOSE in self._entries or len(self._entries) >= _ENTRIES_PER_RUN)
        if CLOSE not in self._entries:
            workflow.continue_as_new(carried + len(self._entries))
        return carried + len(self._entries) - 1

    @workflow.signal
    def enter(self, token: str) -> None:
        """Take an entry."""
        self._entries.append(token)


async def _enter(token: str) -> None:
    await workflow.get_external_workflow_handle_for(Ledger.run, LEDGER_ID).signal(Ledger.enter, token)


_TASK_TIMEOUT = timedelta(seconds=2)
