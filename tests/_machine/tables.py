"""The tables of all machines there are, by the name of their module."""

from __future__ import annotations

import importlib
import pkgutil
from enum import Enum
from typing import Final

from perdure._machine import Table
from perdure.server.core import machines


def _tables() -> dict[str, Table[Enum]]:
    modules = [
        importlib.import_module(f"{machines.__name__}.{module.name}")
        for module in pkgutil.iter_modules(machines.__path__)
    ]
    return {module.__name__.rpartition(".")[2]: module.TABLE for module in modules if hasattr(module, "TABLE")}


TABLES: Final = _tables()
