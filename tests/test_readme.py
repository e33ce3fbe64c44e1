"""The README is true: its SQL runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from click.testing import CliRunner

from perdure.cli.main import main
from perdure.server.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


async def test_its_sql_runs(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "orders.db"))
    await store.open()
    await store.close()
    statements = re.findall(r'sqlite3 orders\.db "([^"]+)"', README)
    assert statements
    connection = sqlite3.connect(tmp_path / "orders.db")
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE) + re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for arguments in re.findall(r"^perdure ([a-z -]+?)(?: --|$)", README, re.MULTILINE):
        assert CliRunner().invoke(main, [*arguments.split(), "--help"]).exit_code == 0
