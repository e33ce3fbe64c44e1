"""The style that a machine can check: sizes, names, and what is banned where. Every ban names what to use instead."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.architecture.sources import FOLDERS, ROOT, Source, imports, sources, sources_under, uses

FILE_LINES = 500
FUNCTION_LINES = 70

LONG_FILES: dict[str, int] = {}
"""Files above the limit and their length. A ratchet: an entry may only go down, and goes away below the limit."""

VAGUE_NAMES = {"util", "utils", "helper", "helpers", "misc", "manager", "managers"}


class Ban(NamedTuple):
    """Names that may not be used in some folders. A banned module bans all that is in it."""

    folders: tuple[str, ...]
    names: tuple[str, ...]
    instead: str
    except_in: tuple[str, ...] = ()


PURE = ("src/perdure/_machine", "src/perdure/server/core", "src/perdure/worker/_replay")
REAL_TIME = ("tests/crash/", "tests/e2e/", "tests/interop/")
"""Tests of real processes, which cannot have a fake clock."""

VIRTUAL_TIME = ("tests/simulation/", "tests/server/engine/cluster/")
"""Tests in which everything runs in virtual time, where a sleep costs nothing."""

BANS = [
    Ban(PURE, ("time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"), "the `now` given"),
    Ban(PURE, ("random", "uuid", "secrets", "os.urandom"), "the ids and nonces that arrive in the input"),
    Ban(PURE, ("asyncio", "threading", "concurrent", "socket"), "plain functions; what waits belongs to the engine"),
    Ban(PURE, ("logging", "print"), "a fact in the reply or an effect; the engine logs"),
    Ban(PURE, ("os", "io", "pathlib", "open", "sqlite3", "subprocess"), "values; what reads belongs to the engine"),
    Ban(
        tuple(f"src/perdure/server/{folder}" for folder in ("engine", "handlers", "frontends")),
        ("time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow"),
        "the clock handed in, so that virtual time works",
        ("src/perdure/server/engine/clock.py",),
    ),
    Ban(("tests",), ("time.sleep",), "virtual time, or waiting for the event itself", REAL_TIME),
]


def test_files_are_short() -> None:
    found = [
        f"{source.path} has {lines} lines: give one of its ideas a file of its own"
        for source in sources()
        if (lines := source.text.count("\n")) > LONG_FILES.get(source.path, FILE_LINES)
    ]
    assert not found, "\n".join(found)


def test_functions_fit_a_screen() -> None:
    found = [
        f"{source.path}:{node.lineno} {node.name} has {length} lines: split it"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (length := _length(node)) > FUNCTION_LINES
    ]
    assert not found, "\n".join(found)


def test_the_ratchet_of_long_files_is_tight() -> None:
    lengths = {source.path: source.text.count("\n") for source in sources()}
    for path, allowed in LONG_FILES.items():
        assert FILE_LINES < allowed == lengths.get(path), f"{path} has {lengths.get(path)} lines now: lower its entry"


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: f"{ban.names[0]}-in-{ban.folders[0]}")
def test_banned_names_are_not_used(ban: Ban) -> None:
    found = [
        f"{source.path}:{node.lineno}: {name}; use {ban.instead}"
        for source in sources_under(*ban.folders)
        if not source.path.startswith(ban.except_in)
        for node, name in uses(source)
        if any(name == banned or name.startswith(f"{banned}.") for banned in ban.names)
    ]
    assert not found, "\n".join(found)


def test_a_ban_sees_through_imports() -> None:
    text = "from time import time as t\nimport datetime as d\nt()\nd.datetime.now()\nself.time()"
    names = {name for _, name in uses(Source("example.py", text, ast.parse(text)))}
    assert {"time.time", "datetime.datetime.now", "self.time"} <= names


def test_tests_do_not_wait_for_the_wall_clock() -> None:
    found = [
        f"{source.path}:{line}: asyncio.sleep of more than 0; use virtual time, or wait for the event itself"
        for source in sources_under("tests")
        if not source.path.startswith(REAL_TIME + VIRTUAL_TIME) and "tests.virtual_time" not in imports(source)
        for line in _sleeps(source)
    ]
    assert not found, "\n".join(found)


def test_modules_are_named_for_what_they_hold() -> None:
    found = [
        f"{source.path}: {', '.join(sorted(vague))} says nothing; name the idea"
        for source in sources()
        if (vague := VAGUE_NAMES.intersection(re.split(r"[._]", source.module)))
    ]
    assert not found, "\n".join(found)


def test_no_error_is_caught_without_its_name() -> None:
    found = [
        f"{source.path}:{node.lineno}: bare except; name what is expected"
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not found, "\n".join(found)


def test_comments_leave_no_doubt_behind() -> None:
    found = [
        f"{source.path}:{line}: {fault}"
        for source in sources()
        for line, comment in _comments(source)
        if (fault := _comment_fault(comment))
    ]
    assert not found, "\n".join(found)


def test_no_file_names_a_path_of_one_machine() -> None:
    machine_path = re.compile(r"(?<![\w.])/(?:tmp|work|home|root|Users)/")
    files = [
        file for folder in (*FOLDERS, "docs") for file in (ROOT / folder).rglob("*") if file.suffix in {".py", ".md"}
    ]
    files += [ROOT / "Makefile", ROOT / "README.md", ROOT / "pyproject.toml"]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if machine_path.search(line)
    ]
    assert not found, "\n".join(found)


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its docstring."""
    assert node.end_lineno is not None
    length = node.end_lineno - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


def _sleeps(source: Source) -> Iterator[int]:
    sleeps = {id(node) for node, name in uses(source) if name == "asyncio.sleep"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and id(node.func) in sleeps and ast.unparse(node.args[0]) != "0":
            yield node.lineno


def _comment_fault(comment: str) -> str:
    if re.match(r"#\s*type:\s*ignore", comment) and not re.match(r"#\s*type:\s*ignore\[[\w, -]+\]\s*#\s*\S", comment):
        return "a type: ignore names its code and, in a comment behind it, its reason"
    if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", comment):
        return f"{comment}; do it, or open an issue"
    return ""


def _comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
