"""What an operator could do in another session, for tests."""

from __future__ import annotations

from typing import TypeAlias

import asyncpg

Shell: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def until(condition: str) -> str:
    """Return a statement that takes until something is so."""
    return (
        f"DO $$ BEGIN WHILE NOT ({condition}) LOOP PERFORM pg_sleep(0.005); PERFORM pg_stat_clear_snapshot();"
        " END LOOP; END $$"
    )


async def end_other_sessions(shell: Shell) -> None:
    """End the sessions of all others on this database, and return when they are gone."""
    await shell.execute(f"SELECT pg_terminate_backend(pid) {_OTHERS}")
    await shell.execute(until(f"NOT EXISTS (SELECT {_OTHERS} AND backend_type = 'client backend')"))
