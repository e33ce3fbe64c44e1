"""docs/configuration.md names every setting, every limit and every argument, with its default."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

import click
import msgspec

from perdure.cli.server import server
from perdure.cli.start_dev import start_dev
from perdure.server.settings import (
    ClusterSettings,
    EngineSettings,
    Limits,
    MatcherSettings,
    PostgresSettings,
    ServerSettings,
)

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading: first cell to the other cells, without code marks."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    return {row[0].strip("`"): [cell.strip("`") for cell in row[1:]] for row in cells[2:]}


def options(command: click.Command, *, hidden: bool = False) -> set[str]:
    """Return the long names of a command's options."""
    return {
        name
        for option in command.params
        if isinstance(option, click.Option) and option.hidden == hidden
        for name in option.opts
        if name.startswith("--")
    }


def test_every_setting_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in rows("Settings").items()}
    defaults = {field.name: default_text(field) for field in msgspec.structs.fields(ServerSettings)}
    assert listed == defaults | {"engine": "see below", "postgres": "see below"}


def test_every_setting_of_the_engine_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in rows("Engine").items()}
    engine = {field.name: default_text(field) for field in msgspec.structs.fields(EngineSettings)}
    matcher = {f"matcher.{field.name}": default_text(field) for field in msgspec.structs.fields(MatcherSettings)}
    groups = ("limits", "matcher", "cluster")
    assert listed == {name: text for name, text in (engine | matcher).items() if name not in groups}


def test_every_setting_of_a_cluster_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in rows("Cluster").items()}
    assert listed == {f"cluster.{field.name}": default_text(field) for field in msgspec.structs.fields(ClusterSettings)}


def test_every_setting_of_postgresql_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in rows("PostgreSQL").items()}
    assert listed == {field.name: default_text(field) for field in msgspec.structs.fields(PostgresSettings)}


def test_every_limit_is_listed_with_its_default() -> None:
    listed = {name: cells[0] for name, cells in rows("Limits").items()}
    assert listed == {field.name: str(field.default) for field in msgspec.structs.fields(Limits)}


def test_every_setting_names_its_argument() -> None:
    named = {name for cells in rows("Settings").values() for name in re.findall(r"--[a-z-]+", cells[1])}
    assert named == options(server)


def test_every_argument_of_the_development_server_is_listed() -> None:
    section = PAGE.partition("\n## Instead of ")[2]
    named = set(re.findall(r"`(--[a-z-]+)`", section))
    assert options(start_dev) <= named
    assert named <= options(start_dev) | options(start_dev, hidden=True)


def default_text(field: msgspec.structs.FieldInfo) -> str:
    """Return a field's default as the page writes it."""
    default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    text = default.value if isinstance(default, Enum) else default
    return f'"{text}"' if isinstance(text, str) else str(text)
