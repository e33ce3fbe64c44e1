"""State machines as a page for people: a Mermaid diagram of each table, and what its silent facts mean.

The page is made from the tables, so it cannot say anything else than they do.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from enum import Enum
from types import ModuleType

from perdure._machine._table import S, Table

_EVENT_SUFFIX = "EventAttributes"


def fact_name(fact: type) -> str:
    """Return a fact's short name: of event attributes, the event's."""
    return fact.__name__.removesuffix(_EVENT_SUFFIX)


def diagram(table: Table[S]) -> str:
    """Return a table as a Mermaid state diagram. The first state named is where a machine begins."""
    first = next(iter(table))[0]
    ends = [state for state in type(first) if not any(before is state for before, _ in table)]
    lines = ["stateDiagram-v2", f"    [*] --> {first.name}"]
    lines += [f"    {before.name} --> {after.name}: {fact_name(fact)}" for (before, fact), after in table.items()]
    lines += [f"    {end.name} --> [*]" for end in ends]
    return "\n".join(lines)


def page(package_name: str) -> str:
    """Return a page about every machine of a package: each module of it that has a `TABLE`."""
    package = importlib.import_module(package_name)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = [importlib.import_module(f"{package_name}.{name}") for name in names]
    sections = [_section(module) for module in modules if hasattr(module, "TABLE")]
    return "\n\n".join([_opening(package_name), *sections]) + "\n"


def _opening(package_name: str) -> str:
    return f"""# State machines

Each machine is a table of legal moves, and only the table moves it. These diagrams are drawn from the tables of
`{package_name}`; a test compares this page with them. Write it anew with:

```
python -m perdure._machine {package_name} > docs/state-machines.md
```

An arrow is named for the fact that causes the move: a history event where there is one. The other facts leave no event;
what they mean is said below each diagram."""


def _section(module: ModuleType) -> str:
    table: Table[Enum] = module.TABLE
    title = module.__name__.rpartition(".")[2].replace("_", " ").capitalize()
    parts = [f"## {title}", inspect.getdoc(module) or "", f"```mermaid\n{diagram(table)}\n```"]
    silent = {fact for _, fact in table if not fact.__name__.endswith(_EVENT_SUFFIX)}
    if silent:
        rows = [
            f"| {fact.__name__} | {inspect.getdoc(fact)} |" for fact in sorted(silent, key=lambda fact: fact.__name__)
        ]
        parts.append("\n".join(["| Fact without an event | What it means |", "|---|---|", *rows]))
    return "\n\n".join(parts)
