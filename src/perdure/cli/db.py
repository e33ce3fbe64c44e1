"""`perdure db`: the database itself, without a server. What each exit code means is in docs/operations.md."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import click

from perdure.server.settings import ServerSettings, SettingsError, is_postgres, sqlite_path

if TYPE_CHECKING:
    from perdure.server.tools import Progress
    from perdure.server.tools.status import Status

T = TypeVar("T")

_EXIT_PROBLEMS: Final = 1
_EXIT_INTERRUPTED: Final = 130
EXIT_BY_STANDING: Final = {"current": 0, "foreign": 1, "empty": 3, "older": 4, "newer": 5, "unfinished copy": 6}
"""Of `status`: how the schema stands to this release."""

_URLS: Final = (
    "sqlite:///file.db, a path, postgresql://user:password@host:port/database, or cockroachdb:// the same way"
)


def _named_database(context: click.Context, parameter: click.Parameter, db: str) -> str:
    """Refuse what names no database as `perdure server` does, before anything is opened."""
    try:
        if not is_postgres(db):
            sqlite_path(db)
    except SettingsError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    return db


_db_option = click.option("--db", default=ServerSettings().db, show_default=True, callback=_named_database, help=_URLS)


@click.group("db")
def db_commands() -> None:
    """Make, look at, check and copy the database of servers."""


@db_commands.command("status")
@_db_option
def status_command(db: str) -> None:
    """Say how a database stands to this release, who uses it, and how large it is."""
    from perdure.server.tools.status import status

    found = _run(status(db))
    for label, text in _status_lines(found):
        click.echo(f"{label:<12}{text}".rstrip())
    raise SystemExit(EXIT_BY_STANDING[found.state.standing.value])


@db_commands.command("migrate")
@_db_option
def migrate_command(db: str) -> None:
    """Make the schema of a new database, or lead an older one to this release's version.

    It may be called beside running servers, twice, and twice at once. Where servers of the previous release cannot go
    on beside the new schema, `perdure db status` says so before.
    """
    from perdure.server.tools.commands import migrate
    from perdure.server.tools.status import steps_between

    done = _run(migrate(db))
    if done.before == done.after:
        click.echo(f"Nothing to do: the schema has version {done.after}.")
    elif done.before is None:
        click.echo(f"Made the schema, version {done.after}.")
    else:
        click.echo(f"Led the schema from version {done.before} to {done.after}:")
        for step in steps_between(done.before, done.after):
            click.echo(f"  {step}")


@db_commands.command("check")
@_db_option
def check_command(db: str) -> None:
    """Check the files, the schema and every run; change nothing. Exit code 1 says that something is wrong."""
    problems = _run(_check(db))
    if problems:
        raise SystemExit(_EXIT_PROBLEMS)


async def _check(db: str) -> int:
    from perdure.server.tools.check import Checked
    from perdure.server.tools.commands import check

    so_far, problems = Checked(), 0
    async for problem in check(db, so_far):
        problems += 1
        click.echo(f"{problem.where}: {problem.what}\n    {problem.remedy}")
    found = _counted(problems, "problem") if problems else "all is well"
    click.echo(f"{_counted(so_far.runs, 'run')} checked: {found}.")
    return problems


@db_commands.command("copy")
@click.option("--from", "source", required=True, metavar="URL", callback=_named_database, help=f"Copy what: {_URLS}")
@click.option(
    "--to", "target", required=True, metavar="URL", callback=_named_database, help="Into which new, empty database."
)
def copy_command(source: str, target: str) -> None:
    """Copy a database into an empty one, of another kind if you like, and compare the two.

    No server may run on either. Interrupted, it goes on where it ended when it is called again.
    """
    from perdure.server.tools.commands import copy

    progress = _ProgressLine()
    copied = _run(copy(source, target, progress.show), interrupted="Interrupted; the same command goes on from here.")
    width = _width([each.table for each in copied])
    for each in copied:
        click.echo(f"{each.table:<{width}}{each.checksum.rows:>14,}  {each.checksum.digest}")
    rows = _counted(sum(each.checksum.rows for each in copied), "row")
    click.echo(f"Copied {rows}; both databases hold the same.")


class _ProgressLine:
    """Writes to standard error how far a copy has come: once a second, and when a table is done."""

    def __init__(self) -> None:
        self._next = time.monotonic()
        self._last = ""

    def show(self, progress: Progress) -> None:
        if not progress.is_done and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1
        line = f"{progress.step} {progress.table}: {_counted(progress.rows, 'row')}"
        # That a table is done says nothing new where its last page was just shown.
        if line != self._last:
            click.echo(line, err=True)
        self._last = line


def _status_lines(found: Status) -> list[tuple[str, str]]:
    room = "" if found.total_bytes is None else f", {_size(found.total_bytes)}"
    lines = [
        ("database", f"{found.shown} ({found.product}{room})"),
        ("cluster id", found.state.cluster_id or "none"),
        ("schema", found.standing),
    ]
    if found.state.marker is not None:
        lines.append(("", found.state.marker.refusal()))
    lines += [("", step) for step in found.steps]
    lines += [("used by" if first else "", line) for first, line in _marked(found.servers or ["nobody"])]
    lines += [
        ("written by" if first else "", f"{writer.node}: incarnation {writer.incarnation}, batch {writer.batch:,}")
        for first, writer in _marked(found.writers)
    ]
    width = _width([name for name, _ in found.tables])
    for first, (name, size) in _marked(found.tables):
        rows = f"{'about ' if size.is_estimate else ''}{size.rows:,}"
        room = "" if size.size_bytes is None else _size(size.size_bytes)
        lines.append(("tables" if first else "", f"{name:<{width}}{rows:>18} rows{room:>12}"))
    return lines


def _width(names: Sequence[str]) -> int:
    """Return the width of a column of names."""
    return max(map(len, names), default=0) + 1


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _marked(items: Sequence[T]) -> list[tuple[bool, T]]:
    """Return each item and whether it is the first."""
    return [(at == 0, item) for at, item in enumerate(items)]


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _run(work: Coroutine[None, None, T], *, interrupted: str = "Interrupted.") -> T:
    """Do it; an error becomes one line, and an interruption an exit code."""
    from perdure.server.tools import ToolError

    try:
        return asyncio.run(work)
    except ToolError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo(interrupted, err=True)
        sys.exit(_EXIT_INTERRUPTED)
