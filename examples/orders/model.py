"""What the order workflow, its activities and its client say to each other.

Plain dataclasses: they travel as JSON in the history, so a field may be added with a default but never renamed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OrderLine:
    """So many of one article."""

    article: str
    quantity: int
    price_cents: int


@dataclass
class Order:
    """What a customer wants."""

    order_id: str
    customer: str
    lines: list[OrderLine]


@dataclass
class Charge:
    """What a customer is to pay."""

    order_id: str
    amount_cents: int


@dataclass
class Receipt:
    """What became of an order."""

    order_id: str
    total_cents: int
    reservation: str
    payment: str
    parcel: str
