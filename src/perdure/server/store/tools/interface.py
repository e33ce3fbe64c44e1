"""The port between the tools and a database: a session, and what one kind of database must say about itself.

A tool has a database for a while, in one session. Most of what it asks is the same SQL everywhere, with `?` for each
parameter; what differs between databases has a method here. Rows come and go as tuples in the order of a table's
columns, with the same Python values whatever the database: text, integers, booleans, bytes, None.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from perdure.server.store.schema import ColumnType, Index, Table

T = TypeVar("T")

Value: TypeAlias = str | int | bytes | None
"""What a column may hold; a boolean is an integer to Python."""
Row: TypeAlias = tuple[Value, ...]


class PageLimits(NamedTuple):
    """How much is read or written at once."""

    rows: int = 1_000
    size_bytes: int = 4_000_000
    """About, of text and blobs; a single row may be larger."""


DEFAULT_LIMITS = PageLimits()


class ToolError(Exception):
    """What was asked for cannot be done. The message says why, and what would do."""


class Unreachable(ToolError):
    """The database cannot be reached, or does not let us in."""


class Access(Enum):
    """What a tool wants to do with a database."""

    READ = "read"
    """Read, from one moment's state, beside running servers. Makes nothing."""
    MIGRATE = "migrate"
    """Make or change the schema, beside running servers. Makes an SQLite file that is missing."""
    COPY_FROM = "copy from"
    """Read all there is, from one moment's state, while no server runs."""
    COPY_INTO = "copy into"
    """Write all there is, while no server runs. Makes an SQLite file that is missing."""


class CatalogColumn(NamedTuple):
    """A column as the database has it; the type in the database's words."""

    type: str
    nullable: bool
    has_default: bool


class CatalogIndex(NamedTuple):
    """An index as the database has it."""

    columns: tuple[str, ...]
    unique: bool
    where: str | None
    is_valid: bool = True
    """Whether it may be used: making one beside a running server can fail half-way."""
    is_split: bool = False
    """Whether a hash comes before its columns, which spreads what would all lie at its end."""


class CatalogTable(NamedTuple):
    """A table as the database has it."""

    columns: Mapping[str, CatalogColumn]
    primary_key: tuple[str, ...]
    indexes: Mapping[str, CatalogIndex]
    triggers: tuple[str, ...] = ()


class TableSize(NamedTuple):
    """How large a table is."""

    rows: int
    is_estimate: bool
    """Whether the rows were not counted."""
    size_bytes: int | None
    """With its indexes; None where the database does not say."""


class Database(Protocol):
    """What a tool needs of a database."""

    @property
    def shown(self) -> str:
        """What people may see of its address: no password."""

    @property
    def column_types(self) -> Mapping[ColumnType, str]:
        """How the catalog names each type."""

    @property
    def makes_schema_at_once(self) -> bool:
        """Whether a schema is there whole, or not at all."""

    async def open(self, access: Access) -> None:
        """Connect. Raises Unreachable, and ToolError where others use the database and may not."""

    async def close(self) -> None:
        """Disconnect, undoing what was not committed; closing twice does nothing."""

    async def refresh(self) -> None:
        """From now on read what is committed by now; for an access that reads."""

    async def fetch(self, query: str, *parameters: Value) -> Sequence[Row]:
        """Return the rows of a query, as the database gives them."""

    async def execute(self, statement: str, *parameters: Value) -> int:
        """Execute a statement and return how many rows it changed."""

    async def transact(self, work: Callable[[], Awaitable[T]]) -> T:
        """Commit durably what the work does, or nothing of it; begin anew where the database gives it up."""

    async def read_page(self, table: Table, after: Row | None) -> list[Row]:
        """Return the rows that follow a key (None: the first ones), in key order; none where there are none.

        Keys are ordered the same in every database: text by code points.
        """

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows."""

    # --- what it says of itself -----------------------------------------------------------------------------------

    async def product(self) -> str:
        """Return the name and version of the database's software."""

    async def migrate(self) -> None:
        """Make the schema, or lead it to this release's version. Raises StoreMismatch."""

    async def tables(self) -> Mapping[str, CatalogTable]:
        """Return the tables there are, but those of the database itself."""

    def create_index(self, table: Table, index: Index) -> str:
        """Return the statement that makes an index."""

    def catalog_index(self, index: Index) -> CatalogIndex:
        """Return how the catalog describes an index that is as it should be."""

    async def wrong_views(self) -> Mapping[str, str]:
        """Return what is wrong with this release's views, by name. Only for a database with the right tables."""

    async def table_size(self, table: Table) -> TableSize:
        """Say how large a table is, without reading much of it."""

    async def total_bytes(self) -> int | None:
        """Return how much room everything takes; None where the database does not say."""

    async def servers(self) -> list[str]:
        """Say who has the database open and may be a server, one line each. To be asked while this is not open."""

    async def damage(self) -> list[str]:
        """Return what the database itself finds wrong with its files, where it can be asked that."""
