"""The workflows: ordinary async code that the server makes durable.

Workflow code decides and waits; it never talks to the world itself. Everything it learns comes from its history, so
that a new worker can run it again from the first line and arrive at the same place.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from examples.orders import activities
    from examples.orders.model import Charge, Order, Receipt

ACTIVITIES = "orders-activities"
"""The task queue of the workers that run activities."""

PACKING_TIME = timedelta(seconds=4)


@workflow.defn(name="Greeting")
class GreetingWorkflow:
    """The smallest workflow with an activity: one call, one answer."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Greet someone."""
        return await workflow.execute_activity(
            activities.greet, name, task_queue=ACTIVITIES, start_to_close_timeout=timedelta(seconds=10)
        )


@workflow.defn(name="Order")
class OrderWorkflow:
    """One order, from the reservation of the goods to the parcel."""

    def __init__(self) -> None:
        self._status = "received"
        self._approved_by: str | None = None

    @workflow.run
    async def run(self, order: Order) -> Receipt:
        """Fulfil an order."""
        self._status = "reserving the goods"
        reservation = await workflow.execute_activity(
            activities.reserve_goods, order, task_queue=ACTIVITIES, start_to_close_timeout=timedelta(seconds=10)
        )
        total_cents = self.total_cents(order)

        self._status = "waiting for approval"
        await workflow.wait_condition(lambda: self._approved_by is not None)

        self._status = f"approved by {self._approved_by}, charging the card"
        payment = await workflow.execute_activity(
            activities.charge_card,
            Charge(order.order_id, total_cents),
            task_queue=ACTIVITIES,
            start_to_close_timeout=timedelta(seconds=10),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), backoff_coefficient=1.5),
        )

        self._status = "packing"
        await workflow.sleep(PACKING_TIME)

        self._status = "shipping"
        parcel = await workflow.execute_activity(
            activities.ship_parcel, order, task_queue=ACTIVITIES, start_to_close_timeout=timedelta(seconds=10)
        )
        self._status = "done"
        return Receipt(order.order_id, total_cents, reservation, payment, parcel)

    @workflow.signal
    def approve(self, approved_by: str) -> None:
        """Let the order go on to payment."""
        self._approved_by = approved_by

    @workflow.query
    def status(self) -> str:
        """Say where the order is."""
        return self._status

    def total_cents(self, order: Order) -> int:
        """Return what the customer pays."""
        return sum(line.quantity * line.price_cents for line in order.lines)
