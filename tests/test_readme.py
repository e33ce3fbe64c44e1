"""The README is true: its Python and its SQL run, its links lead somewhere, its commands exist."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from perdure.cli.main import main
from perdure.server.store.sqlite import SqliteStore
from tests.cli.server_process import serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.process
def test_its_python_runs_as_it_is(tmp_path: Path) -> None:
    """Saved as a file, as whoever reads it does: the SDK's sandbox imports that again."""
    [program] = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert program.count("127.0.0.1:7233") == 1
    with serving(["server", "--port", "0", "--db", "orders.db"], tmp_path) as server:
        (tmp_path / "greeting.py").write_text(program.replace("127.0.0.1:7233", server.address), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "greeting.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    # Not how it ended: the SDK's native core sometimes brings the interpreter down as that ends.
    assert done.stdout == "Hello, Ada\n", done.stderr


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
