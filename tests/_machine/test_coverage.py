"""Coverage of tables: what was taken while it watched, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import pytest

from perdure._machine import Coverage, IllegalMove, Table, move


class Light(Enum):
    OFF = auto()
    ON = auto()


class Pressed:
    """Somebody pressed the switch."""


class Burnt:
    """The bulb is gone."""


TABLE: Table[Light] = {
    (Light.OFF, Pressed): Light.ON,
    (Light.ON, Pressed): Light.OFF,
    (Light.ON, Burnt): Light.OFF,
}


@dataclass
class Lamp:
    state: Light = Light.OFF


def test_rows_that_were_taken_are_known() -> None:
    coverage = Coverage()
    with coverage.watching():
        move(TABLE, Lamp(), Pressed)
    assert coverage.untaken(TABLE) == ["ON + Pressed", "ON + Burnt"]


def test_moves_are_collected_only_while_watching() -> None:
    coverage = Coverage()
    lamp = Lamp()
    move(TABLE, lamp, Pressed)
    with coverage.watching():
        move(TABLE, lamp, Burnt)
    move(TABLE, lamp, Pressed)
    assert coverage.untaken(TABLE) == ["OFF + Pressed", "ON + Pressed"]


def test_an_illegal_move_is_not_taken() -> None:
    coverage = Coverage()
    with coverage.watching(), pytest.raises(IllegalMove):
        move(TABLE, Lamp(), Burnt)
    assert len(coverage.untaken(TABLE)) == 3


def test_watching_ends_with_an_error_too() -> None:
    coverage = Coverage()
    with pytest.raises(ZeroDivisionError), coverage.watching():
        raise ZeroDivisionError
    move(TABLE, Lamp(), Pressed)
    assert len(coverage.untaken(TABLE)) == 3
