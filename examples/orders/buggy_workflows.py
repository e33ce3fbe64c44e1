"""The release that should not have gone out: the order workflow with a bug.

It registers under the same name as the fixed one. That is all it takes for the fixed release to carry on with a run
that this one could not finish.
"""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from examples.orders.model import Order, Receipt
    from examples.orders.workflows import OrderWorkflow


@workflow.defn(name="Order")
class BuggyOrderWorkflow(OrderWorkflow):
    """The order workflow, unable to add up its lines."""

    @workflow.run
    async def run(self, order: Order) -> Receipt:
        """Fulfil an order, or rather not."""
        return await super().run(order)

    def total_cents(self, order: Order) -> int:
        """Return what the customer pays: counts one line too many and fails with an IndexError."""
        total = 0
        for number in range(len(order.lines) + 1):
            line = order.lines[number]
            total += line.quantity * line.price_cents
        return total
