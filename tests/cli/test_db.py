"""`perdure db` as it is typed: what it prints, and its exit codes, which docs/operations.md lists."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from perdure.cli.db import EXIT_BY_STANDING, db_commands
from perdure.cli.main import main
from perdure.server.store.schema import SCHEMA_VERSION
from perdure.server.store.tools.state import Standing
from tests.cli.server_process import serving, spawn
from tests.server.store import versions
from tests.server.store.tools.places import fill

MANUAL = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def perdure(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["db", *arguments])


@pytest.fixture
def orders(tmp_path: Path) -> str:
    """A file with workflows in many states."""
    path = str(tmp_path / "orders.db")
    asyncio.run(fill(path))
    return path


def test_every_standing_has_its_exit_code() -> None:
    assert set(EXIT_BY_STANDING) == {standing.value for standing in Standing}
    assert [name for name, code in EXIT_BY_STANDING.items() if code == 0] == [Standing.CURRENT.value]
    # 2 is a wrong argument's.
    assert 2 not in EXIT_BY_STANDING.values()


def test_the_manual_lists_every_command_and_exit_code() -> None:
    for name in db_commands.commands:
        assert f"`perdure db {name}" in MANUAL
    codes = {int(code) for code in re.findall(r"^\| `(\d+)` \|", MANUAL, re.MULTILINE)}
    assert codes == {*EXIT_BY_STANDING.values(), 2, 130}


def test_the_life_of_a_database(tmp_path: Path) -> None:
    db = str(tmp_path / "orders.db")
    missing = perdure("status", "--db", db)
    assert (missing.exit_code, "There is no file" in missing.output) == (1, True)
    _execute(db, "PRAGMA user_version")
    assert perdure("status", "--db", db).exit_code == 3
    assert perdure("migrate", "--db", db).output == f"Made the schema, version {SCHEMA_VERSION}.\n"
    assert perdure("migrate", "--db", db).output == f"Nothing to do: the schema has version {SCHEMA_VERSION}.\n"
    assert perdure("status", "--db", db).exit_code == 0
    assert perdure("check", "--db", db).output == "0 runs checked: all is well.\n"


def test_an_older_database(tmp_path: Path) -> None:
    db = str(tmp_path / "orders.db")
    for statement in versions.schema(1, "sqlite"):
        _execute(db, statement)
    _execute(db, "INSERT INTO migration (version, applied_at) VALUES (1, 0)")
    _execute(db, "INSERT INTO meta (name, value) VALUES ('cluster_id', 'one')")
    status = perdure("status", "--db", db)
    assert (status.exit_code, f"a migration leads it to {SCHEMA_VERSION}" in status.output) == (4, True)
    for command in (("check", "--db", db), ("copy", "--from", db, "--to", str(tmp_path / "copy.db"))):
        refused = perdure(*command)
        assert (refused.exit_code, "`perdure db migrate`" in refused.output) == (1, True)
    led = perdure("migrate", "--db", db)
    assert led.output.startswith(f"Led the schema from version 1 to {SCHEMA_VERSION}:\n  2: adds the shard")
    assert perdure("status", "--db", db).exit_code == 0


def test_a_newer_database(orders: str) -> None:
    _execute(orders, "INSERT INTO migration (version, applied_at) VALUES (?, 0)", SCHEMA_VERSION + 1)
    assert perdure("status", "--db", orders).exit_code == 5
    assert perdure("migrate", "--db", orders).exit_code == 1


def test_a_check_that_finds_something(orders: str) -> None:
    _execute(orders, "DELETE FROM timer WHERE run_id = (SELECT min(run_id) FROM timer)")
    result = perdure("check", "--db", orders)
    assert result.exit_code == 1
    assert re.search(r"^run \S+ of workflow order-\d: cannot be.*\n    Restore a backup", result.output, re.MULTILINE)
    assert result.output.endswith("14 runs checked: 1 problem.\n")


def test_a_database_that_has_lost_its_meta(orders: str, tmp_path: Path) -> None:
    _execute(orders, "DELETE FROM meta")
    for command in (("check", "--db", orders), ("copy", "--from", orders, "--to", str(tmp_path / "copy.db"))):
        result = perdure(*command)
        assert (result.exit_code, "is damaged: the table meta has no row cluster_id" in result.output) == (1, True)


@pytest.mark.parametrize("db", ["mysql://x/y", "sqlite:///", "sqlite://orders.db", ""])
def test_what_names_no_database_is_a_wrong_argument(db: str, orders: str) -> None:
    """As it is to `perdure server`."""
    for command in ("status", "migrate", "check"):
        assert perdure(command, "--db", db).exit_code == 2
    source, target = perdure("copy", "--from", db, "--to", orders), perdure("copy", "--from", orders, "--to", db)
    assert (source.exit_code, "Invalid value for '--from'" in source.output) == (2, True)
    assert (target.exit_code, "Invalid value for '--to'" in target.output) == (2, True)


def test_columns_hold_the_longest_name(orders: str, tmp_path: Path) -> None:
    status = perdure("status", "--db", orders).output
    assert len({line.index(" rows") for line in status.splitlines() if re.search(r"\d rows", line)}) == 1
    copied = perdure("copy", "--from", orders, "--to", str(tmp_path / "copy.db")).stdout
    assert len({line.rindex("  ") for line in copied.splitlines() if re.search(r"[0-9a-f]{32}$", line)}) == 1


def test_a_copy(orders: str, tmp_path: Path) -> None:
    copied = perdure("copy", "--from", orders, "--to", str(tmp_path / "copy.db"))
    assert copied.exit_code == 0
    assert re.search(r"^run +14  [0-9a-f]{32}$", copied.stdout, re.MULTILINE)
    assert "copied event:" in copied.stderr
    assert "copied namespace: 1 row\n" in copied.stderr
    progress = copied.stderr.splitlines()
    assert len(progress) == len(set(progress)), "nothing is said twice"
    assert copied.stdout.endswith("both databases hold the same.\n")
    assert perdure("check", "--db", str(tmp_path / "copy.db")).exit_code == 0
    same = perdure("copy", "--from", orders, "--to", f"sqlite:///{tmp_path}/../{tmp_path.name}/orders.db")
    assert (same.exit_code, "are the same file" in same.output) == (1, True)


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_copy_that_is_ended_goes_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    source, target = str(tmp_path / "orders.db"), str(tmp_path / "copy.db")
    asyncio.run(fill(source))
    _add_events(source, 200_000)
    command = [sys.executable, "-m", "perdure", "db", "copy", "--from", source, "--to", target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("copied event"):
                process.send_signal(number)
                break
        _, log = process.communicate(timeout=30)
    assert process.returncode == code, "it was in the middle"
    assert ("the same command goes on" in log) == (number == signal.SIGINT)
    assert perdure("status", "--db", target).exit_code == 6
    with spawn(["server", "--port", "0", "--db", target], tmp_path) as server:
        _, log = server.communicate(timeout=30)
    assert (server.returncode, "Call `perdure db copy` again" in log) == (1, True)
    again = perdure("copy", "--from", source, "--to", target)
    assert again.exit_code == 0, again.output
    assert again.stdout.endswith("both databases hold the same.\n")
    rows = [len(_execute(path, "SELECT event_id FROM event")) for path in (source, target)]
    assert rows[0] == rows[1] > 200_000


@pytest.mark.process
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_beside_a_running_server(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    db = str(tmp_path / "orders.db") if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))
    with serving(["server", "--port", "0", "--db", db], tmp_path) as server:
        status = perdure("status", "--db", db)
        assert status.exit_code == 0
        assert re.search(r"^used by +(.* is in use by process \d+ on|node )", status.output, re.MULTILINE)
        assert perdure("migrate", "--db", db).exit_code == 0
        assert perdure("check", "--db", db).exit_code == 0
        copied = perdure("copy", "--from", db, "--to", str(tmp_path / "copy.db"))
        assert copied.exit_code == 1
        assert re.search("[Ss]top", copied.output)
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0, "none of it was in the way of the server"
    assert perdure("copy", "--from", db, "--to", str(tmp_path / "copy.db")).exit_code == 0


@pytest.mark.process
def test_a_server_that_is_not_to_migrate(tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", "orders.db", "--no-migrate"]
    with spawn(arguments, tmp_path) as process:
        _, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert log.splitlines()[-1].startswith("Error: cannot open the store orders.db: The database has no schema")
    assert perdure("migrate", "--db", str(tmp_path / "orders.db")).exit_code == 0
    with serving(arguments, tmp_path) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.end()[0] == 0


def _execute(path: str, statement: str, *parameters: object) -> list[tuple[object, ...]]:
    """Execute a statement as `sqlite3` would, and let go of the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, parameters).fetchall()


def _add_events(path: str, count: int) -> None:
    _execute(
        path,
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)"
        " INSERT INTO event (run_id, event_id, event_type, event_at, data) SELECT 'z', n, 1, n, x'00' FROM numbers",
        count,
    )
