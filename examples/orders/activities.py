"""The activities: everything the workflows do to the world.

An activity may run more than once (its worker can die between doing and telling), so a real one passes an id that
lets the other side recognise a repetition; the order id serves for that here.
"""

from __future__ import annotations

from temporalio import activity
from temporalio.exceptions import ApplicationError

from examples.orders.model import Charge, Order

BANK_ANSWERS_AT_ATTEMPT = 3


@activity.defn
async def greet(name: str) -> str:
    """Return a greeting."""
    return f"Hello, {name}!"


@activity.defn
async def reserve_goods(order: Order) -> str:
    """Put the goods of an order aside and return the number of the reservation."""
    return f"reservation-{order.order_id}"


@activity.defn
async def charge_card(charge: Charge) -> str:
    """Take the money and return the number of the payment; the bank does not answer the first two attempts."""
    if activity.info().attempt < BANK_ANSWERS_AT_ATTEMPT:
        raise ApplicationError("the bank does not answer", type="BankUnavailable")
    return f"payment-{charge.order_id}"


@activity.defn
async def ship_parcel(order: Order) -> str:
    """Hand the parcel over and return its number."""
    return f"parcel-{order.order_id}"
