"""A state machine as a table: `{(state, type of fact): next state}`.

The table is the document: tests make every legal and illegal pair from it, diagrams are drawn from it, and a coverage
report lists the rows never taken. Only `move` assigns a state. An illegal move raises and changes nothing; what it
means (a refusal, non-determinism, our bug) is for the caller to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol, TypeVar


class MachineState(Enum):
    """The states of one machine. A move looks one up, and the hash of a plain enum is slow Python code."""

    __hash__ = object.__hash__


S = TypeVar("S", bound=Enum)

Table = Mapping[tuple[S, type], S]


class Machine(Protocol[S]):
    """Whatever has a state."""

    state: S


class IllegalMove(Exception):
    """The table has no row for this fact in the machine's present state."""


_observers: list[Callable[[object, type], None]] = []


def observe(observer: Callable[[object, type], None]) -> Callable[[], None]:
    """Have every move taken reported as (state before, type of fact), for coverage; the result stops it."""
    _observers.append(observer)
    return lambda: _observers.remove(observer)


def can(table: Table[S], machine: Machine[S], fact: type) -> bool:
    """Return whether the table has a row for this type of fact in the machine's present state."""
    return (machine.state, fact) in table


def move(table: Table[S], machine: Machine[S], fact: type) -> None:
    """Put the machine into its next state. Raises IllegalMove, changing nothing, where there is no row."""
    after = table.get((machine.state, fact))
    if after is None:
        raise IllegalMove(f"{type(machine).__name__} in state {machine.state.name} cannot take {fact.__name__}")
    if _observers:
        for observer in _observers:
            observer(machine.state, fact)
    machine.state = after
