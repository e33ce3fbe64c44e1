"""Every pair of a state and a fact, of every machine: a legal one moves, any other raises and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pytest

from perdure._machine import IllegalMove, can, move, observe
from tests._machine.tables import TABLES


@dataclass
class Anything:
    """A machine of which the table is all that matters."""

    state: Enum


def pairs() -> Iterator[tuple[str, Enum, type]]:
    for name, table in TABLES.items():
        facts = dict.fromkeys(fact for _, fact in table)
        for state in type(next(iter(table))[0]):
            yield from ((name, state, fact) for fact in facts)


def test_there_are_machines() -> None:
    assert {"activity", "query", "timer", "workflow_task"} <= set(TABLES)


@pytest.mark.parametrize(
    ("name", "state", "fact"), list(pairs()), ids=lambda value: getattr(value, "__name__", str(value))
)
def test_every_pair_moves_as_the_table_says_or_not_at_all(name: str, state: Enum, fact: type) -> None:
    table = TABLES[name]
    machine = Anything(state)
    seen: list[tuple[object, type]] = []
    stop = observe(lambda before, by: seen.append((before, by)))
    try:
        if (state, fact) in table:
            assert can(table, machine, fact)
            move(table, machine, fact)
            assert machine.state is table[state, fact]
            assert seen == [(state, fact)]
        else:
            assert not can(table, machine, fact)
            with pytest.raises(IllegalMove, match=f"in state {state.name} cannot take {fact.__name__}"):
                move(table, machine, fact)
            assert machine.state is state
            assert not seen
    finally:
        stop()


@pytest.mark.parametrize("name", TABLES)
def test_every_state_is_used(name: str) -> None:
    table = TABLES[name]
    states = type(next(iter(table))[0])
    assert {before for before, _ in table} | set(table.values()) == set(states)
