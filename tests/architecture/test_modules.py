"""What every module owes its readers: a docstring, an honest `__all__`, and somebody who uses it."""

from __future__ import annotations

import ast
import importlib
import tomllib

import pytest

from tests.architecture.sources import ROOT, Source, imports, sources, sources_under

SELF_REGISTERING = ("perdure.server.core.machines.",)
"""Packages that import all their modules themselves."""


def test_modules_say_what_they_are() -> None:
    silent = [source.path for source in sources() if source.tree.body and not ast.get_docstring(source.tree)]
    assert not silent, f"no docstring in {', '.join(silent)}"


@pytest.mark.parametrize("source", [each for each in sources_under("src") if "__all__" in each.text], ids=str)
def test_all_is_what_is_there(source: Source) -> None:
    module = importlib.import_module(source.module)
    exported: list[str] = module.__all__
    assert len(exported) == len(set(exported)), "a name is repeated"
    absent = [name for name in exported if not hasattr(module, name)]
    assert not absent, f"{absent} do not exist"
    hidden = _public_names(source) - set(exported)
    assert not hidden, f"{sorted(hidden)} are public and not listed"


def test_every_module_is_used() -> None:
    used = {name for source in sources_under("src") for name in imports(source)}
    used |= set(_entry_points())
    dead = [
        source.path
        for source in sources_under("src")
        if source.module not in used
        and not (source.is_package and any(name.startswith(f"{source.module}.") for name in used))
        and not source.module.startswith(SELF_REGISTERING)
        and source.module.rpartition(".")[2] != "__main__"
    ]
    assert not dead, f"nobody imports {', '.join(dead)}"


def _public_names(source: Source) -> set[str]:
    """Return what a module defines, and in a package also what it takes from our own modules, without an underscore."""
    names: set[str] = set()
    for node in source.tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.ImportFrom(module=str(module), names=aliases) if source.is_package and module.startswith(
                "perdure"
            ):
                names |= {alias.asname or alias.name for alias in aliases}
    return {name for name in names if not name.startswith("_")}


def _entry_points() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [target.partition(":")[0] for target in project["scripts"].values()]
