"""The project's Python files, parsed once, for the tests that read code instead of running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "examples", "benchmarks")


class Source(NamedTuple):
    """One file: its path from the root with forward slashes, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return self.path

    @property
    def module(self) -> str:
        """The dotted name under which the file is imported."""
        parts = list(Path(self.path).with_suffix("").parts)
        if parts[0] == "src":
            parts = parts[1:]
        if parts[-1] == "__init__":
            parts = parts[:-1]
        return ".".join(parts)

    @property
    def is_package(self) -> bool:
        """Whether the file is a package's `__init__`."""
        return self.path.endswith("__init__.py")


@cache
def sources() -> tuple[Source, ...]:
    """Return every Python file of the project."""
    found = []
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            found.append(Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text, filename=str(file))))
    return tuple(found)


def sources_under(*folders: str) -> tuple[Source, ...]:
    """Return the files under folders, named from the root."""
    return tuple(source for source in sources() if source.path.startswith(tuple(f"{folder}/" for folder in folders)))


def imports(source: Source) -> Iterator[str]:
    """Yield the dotted name of everything the file imports, wherever in it; of `from a import b` both a and a.b."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.module.split(".")
                parent = package[: len(package) - node.level + source.is_package]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def uses(source: Source) -> Iterator[tuple[ast.expr, str]]:
    """Yield every name the file uses and what it stands for: after `from time import time as t`, `t` is `time.time`."""
    meanings = _meanings(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = _dotted(node).partition(".")
            if first:
                yield node, meanings.get(first, first) + dot + rest


def _meanings(source: Source) -> dict[str, str]:
    """Return what each imported name stands for."""
    meanings: dict[str, str] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                meanings[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                meanings[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return meanings


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            base = _dotted(value)
            return f"{base}.{attribute}" if base else ""
        case _:
            return ""
