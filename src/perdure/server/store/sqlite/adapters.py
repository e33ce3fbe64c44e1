"""Keeps `sqlite3` from searching, for every NULL, blob and boolean it binds, how to adapt it.

It adapts each value that is not exactly an int, float, str or bytearray: it looks for a registered adapter and then,
by failing attribute look-ups, for `__adapt__` and `__conform__`. That cost the engine a sixteenth of its time. With an
adapter that returns the value as it is, the first look ends the search. The registry belongs to the whole process, so
nothing that is there is replaced, and nothing is registered that would change a value.
"""

from __future__ import annotations

import sqlite3

_NOTHING: dict[None, None] = {}


def register_adapters() -> None:
    """Register what is not registered yet."""
    # Functions written in C, as they are called for every value: `bytes` returns bytes as they are, `int` makes of a
    # boolean what SQLite stores, and an empty dict has None for None.
    if not _is_registered(bytes):
        sqlite3.register_adapter(bytes, bytes)
    if not _is_registered(bool):
        sqlite3.register_adapter(bool, int)
    if not _is_registered(type(None)):
        sqlite3.register_adapter(type(None), _NOTHING.get)


def _is_registered(kind: type) -> bool:
    return (kind, sqlite3.PrepareProtocol) in sqlite3.adapters
