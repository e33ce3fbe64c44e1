"""What CockroachDB does in another way than PostgreSQL. Everything else is the same code.

- It is serialisable, and says 40001 where PostgreSQL would wait: the whole batch is begun anew, from the fence on.
- A statement changes a table once, so more batches are transactions of several statements.
- Text compares by its bytes, which is by code point. A collation would be another type of text.
- A change of the schema is a job of its own, so each is made alone, and can be made again where it ended half way.
- Rows lie in the order of their keys, spread over servers by ranges. A key that rises with time would keep one range
  busy and the others idle: run ids are random there, and indexes in the order of time are split up by a hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import urlsplit

from asyncpg.connect_utils import SessionAttribute

from perdure.server.store.definitions import create_index, create_view
from perdure.server.store.interface import StoreMismatch
from perdure.server.store.postgres.cockroach_tools import COCKROACH_TOOLS
from perdure.server.store.postgres.dialect import PostgresDialect
from perdure.server.store.postgres.tool_queries import ToolQueries
from perdure.server.store.schema import Index, Table
from perdure.server.store.settings import COCKROACH_SCHEME
from perdure.server.store.views import View

if TYPE_CHECKING:
    from perdure.server.store.postgres.connections import Connection

OLDEST_COCKROACH: Final = (23, 2)
"""The first in which a session can be told its isolation: in later ones the default may be a weaker one."""

_PORT: Final = 26257


class CockroachDialect(PostgresDialect):
    """CockroachDB 23.2 or newer."""

    scheme: ClassVar[str] = COCKROACH_SCHEME
    which_server: ClassVar[SessionAttribute] = SessionAttribute.any
    changes_schema_at_once: ClassVar[bool] = False
    changes_tables_once: ClassVar[bool] = True
    splits_indexes: ClassVar[bool] = True
    writing: ClassVar[Mapping[str, str]] = {"default_transaction_isolation": "serializable"}
    by_index: ClassVar[Mapping[str, str]] = {}
    listing: ClassVar[Mapping[str, str]] = {}
    table_names: ClassVar[str] = (
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
    )
    prove_room: ClassVar[str | None] = None
    tools: ClassVar[ToolQueries] = COCKROACH_TOOLS

    def dsn(self, url: str) -> str:
        """Return the URL in PostgreSQL's scheme, each server with its port, which is another one by default."""
        parts = urlsplit(url)
        if parts.scheme != COCKROACH_SCHEME:
            return url
        user, separator, servers = parts.netloc.rpartition("@")
        servers = ",".join(map(_with_port, servers.split(",")))
        query = f"?{parts.query}" if parts.query else ""
        return f"postgresql://{user}{separator}{servers}{parts.path}{query}"

    async def check_server(self, connection: Connection) -> None:
        """Do nothing, if this is a server we can work with. Raises StoreMismatch."""
        version = getattr(connection.get_settings(), "crdb_version", None)
        if version is None:
            raise StoreMismatch(f"This is not CockroachDB: write postgresql:// instead of {COCKROACH_SCHEME}://.")
        if version_of(version) < OLDEST_COCKROACH:
            oldest = ".".join(map(str, OLDEST_COCKROACH))
            raise StoreMismatch(f"CockroachDB {oldest} or newer is needed; this is {version}.")

    def create_table(self, table: Table) -> str:
        """Return the statement that makes a table where there is none."""
        return super().create_table(table).replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)

    def create_index(self, table: Table, index: Index) -> str:
        """Return the statement that makes an index where there is none."""
        text = create_index(table, index).replace(f"INDEX {index.name}", f"INDEX IF NOT EXISTS {index.name}", 1)
        columns = f"({', '.join(index.columns)})"
        return text.replace(columns, f"{columns} USING HASH", 1) if index.rises else text

    def create_view(self, view: View) -> str:
        """Return the statement that makes a view, be there one or not."""
        return create_view(view).replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)

    def utc(self, column: str) -> str:
        """Return an expression for UTC text with milliseconds; the division of integers is no integer there."""
        return (
            f"to_char(timestamp '1970-01-01' + div({column}, 1000000) * interval '1 millisecond',"
            """ 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
        )

    def by_code_point(self) -> str:
        """Return nothing: text compares by code point unless it has a collation."""
        return ""


COCKROACH = CockroachDialect()


def version_of(text: str) -> tuple[int, int]:
    """Return the release of a server that says `CockroachDB CCL v23.1.11 (x86_64, ...)`; (0, 0) where it says none."""
    _, _, numbers = text.partition(" v")
    major, _, rest = numbers.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _with_port(server: str) -> str:
    """Add CockroachDB's port to a server that names none; an address of version 6 stands in brackets."""
    has_port = ":" in server.rpartition("]")[2]
    return server if has_port or not server else f"{server}:{_PORT}"
