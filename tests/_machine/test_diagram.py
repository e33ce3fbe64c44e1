"""Diagrams of tables, and the page of documentation that is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure._machine import diagram, page
from perdure.server.core import machines
from tests._machine.tables import TABLES
from tests._machine.test_coverage import TABLE

DOCS = Path(__file__).parents[2] / "docs" / "state-machines.md"


def test_a_diagram_has_an_arrow_for_every_row() -> None:
    assert diagram(TABLE).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> OFF",
        "    OFF --> ON: Pressed",
        "    ON --> OFF: Pressed",
        "    ON --> OFF: Burnt",
    ]


@pytest.mark.parametrize("name", TABLES)
def test_a_diagram_shows_where_a_machine_begins_and_ends(name: str) -> None:
    table = TABLES[name]
    lines = diagram(table).splitlines()
    first = next(iter(type(next(iter(table))[0])))
    assert lines[1] == f"    [*] --> {first.name}"
    ends = {state for state in table.values() if not any(before is state for before, _ in table)}
    assert {line for line in lines if line.endswith("--> [*]")} == {f"    {end.name} --> [*]" for end in ends}
    assert len(lines) == 2 + len(table) + len(ends)


def test_the_documentation_is_what_the_tables_say() -> None:
    command = f"python -m perdure._machine {machines.__name__} > docs/state-machines.md"
    assert DOCS.read_text(encoding="utf-8") == page(machines.__name__), f"write it anew: {command}"


def test_every_machine_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        assert f"## {name.replace('_', ' ').capitalize()}\n" in text
        assert diagram(table) in text
