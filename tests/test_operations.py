"""The operations page is true: what it quotes of the log is logged, at that level, and its links lead somewhere.

Its SQL runs in `tests/server/store/test_views.py`.
"""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.server.store.sqlite import SqliteStore
from tests.server.store import rows
from tests.server.store.writing import Writer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = {"critical": "error", "error": "error", "exception": "error", "warning": "warn", "info": "info"}
"""How the text of a log line names the level of each method of a logger."""

ROWS: list[tuple[str, str]] = [
    (row[1], message)
    for row in re.finditer(r"^\| (error|warn|info) \| (.*?) \|", PAGE, re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", row[2])
]


def _logged() -> Iterator[tuple[str, str]]:
    """Yield level and text of everything that the server logs."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log" | "_logger"), attr=method),
                    args=[ast.Constant(value=str(text)), *_],
                ) if method in LEVELS:
                    yield LEVELS[method], text


LOGGED = list(_logged())


@pytest.mark.parametrize(("level", "message"), ROWS)
def test_what_it_quotes_is_logged(level: str, message: str) -> None:
    pattern = re.compile(".+".join(re.escape(part) for part in message.split("...")))
    assert any(level == its_level and pattern.match(text) for its_level, text in LOGGED)


def test_it_quotes_something() -> None:
    assert len(ROWS) > 15


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", PAGE)]
    assert links
    assert not [file for file, _, _ in links if file and not (ROOT / "docs" / file).exists()]
    assert {anchor for file, _, anchor in links if not file} <= anchors


async def test_a_run_whose_first_task_is_not_due_needs_nobody_from_outside(tmp_path: Path) -> None:
    [query] = re.findall(r"moved only from outside\?.*?```sql\n(.*?)```", PAGE, re.DOTALL)
    store = SqliteStore(str(tmp_path / "orders.db"))
    await store.open()
    await store.save_namespace(rows.namespace("default"))
    writer = await Writer.claim(store)
    due, expires = rows.START + 60 * rows.SECOND, rows.START + 90 * rows.SECOND
    runs = [
        rows.run("for-ever", "r1", workflow_type="Waits"),
        rows.run("until-it-expires", "r2", workflow_type="Waits", alarm_at=expires),
        rows.run("delayed-and-begun", "r3", workflow_type="Waits", execution_at=due, alarm_at=expires),
        rows.run("delayed", "r4", workflow_type="Delayed", execution_at=due, alarm_at=due),
        rows.run("expires-before", "r5", workflow_type="Delayed", execution_at=due, alarm_at=due - rows.SECOND),
    ]
    await writer.commit(*(rows.write(run.workflow_id, run) for run in runs))
    with closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        assert connection.execute(query).fetchall() == [("Waits", 3, "delayed-and-begun")]
    await store.close()
