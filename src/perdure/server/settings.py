"""Every setting of the server, by name, with its default. docs/configuration.md lists them; a test compares.

Data, and the reading of the forms in which people write it. It must never open a file, look at the environment, or know
who uses a setting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec

from perdure.server.core.limits import Limits
from perdure.server.engine.cluster.settings import ClusterSettings
from perdure.server.engine.matching.settings import MatcherSettings
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.settings import COCKROACH_SCHEME, PostgresSettings

__all__ = [
    "SEARCH_ATTRIBUTE_TYPES",
    "ClusterSettings",
    "EngineSettings",
    "Limits",
    "LogFormat",
    "LogLevel",
    "MatcherSettings",
    "PostgresSettings",
    "ServerSettings",
    "SettingsError",
    "is_cockroach",
    "is_postgres",
    "search_attribute_type",
    "shown_db",
    "sqlite_path",
    "store_name",
]

SEARCH_ATTRIBUTE_TYPES: Mapping[str, int] = MappingProxyType(
    {"Text": 1, "Keyword": 2, "Int": 3, "Double": 4, "Bool": 5, "Datetime": 6, "KeywordList": 7}
)
"""The types a search attribute may have: the name people write and the number of `IndexedValueType`."""


_SHORTEST_LEASE_SECONDS = 1.0
"""Below this a renewal that is late could not be told from one that takes its time."""


class SettingsError(ValueError):
    """A setting has a value the server cannot work with. The message says which, and what would do."""


class LogFormat(Enum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(Enum):
    """From which severity on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    NEVER = "never"


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one server process runs. Every field has a default; with all defaults a server runs on a file here."""

    db: str = "sqlite:///perdure.db"
    """Where everything is stored: `sqlite:///relative.db`, `sqlite:////absolute.db`, a path, `memory:`, or
    `postgresql://user:password@host:port/database`, or the same with `cockroachdb://`."""
    sqlite_pragmas: Mapping[str, str] = {}
    """PRAGMA statements for every SQLite connection, by name. They may weaken durability: `synchronous=off` does."""
    lock_wait_seconds: float = 0.0
    """How long to wait at start for another process that works on the same SQLite file; then the start is refused."""
    postgres: PostgresSettings = PostgresSettings()
    """How a PostgreSQL database is used."""
    migrate: bool = True
    """Whether to make the schema, or lead it to this version, at start; else a database that needs it is refused."""
    store_check_seconds: float = 1.0
    """How often the store is asked whether it could write; the health service tells the answer."""
    ip: str = "127.0.0.1"
    """The address the gRPC front end listens on."""
    port: int = 7233
    """The port the gRPC front end listens on; 0 lets the system choose one."""
    advertise: str = ""
    """The host:port at which the other nodes of a cluster reach this one, and its name among them; empty finds it: the
    address it listens on or, where that is all, the one from which it reaches the database."""
    concurrent_calls_max: int = 50_000
    """Calls in progress at once, parked polls included; more are refused."""
    namespaces: Sequence[str] = ()
    """Namespaces to create at start where they do not exist. `default` always does."""
    namespace_retention_seconds: int = 24 * 3600
    """How long namespaces created at start keep closed runs."""
    search_attributes: Mapping[str, int] = {}
    """Custom search attributes to register at start in `default` and `namespaces`: name to `IndexedValueType`."""
    shutdown_grace_seconds: float = 10.0
    """How long calls in progress may still run after the server was told to stop."""
    log_format: LogFormat = LogFormat.TEXT
    """`text` for people, `json` for machines: one object per line."""
    log_level: LogLevel = LogLevel.INFO
    """From which severity on lines are written: `debug`, `info`, `warn`, `error` or `never`."""
    engine: EngineSettings = EngineSettings()
    """How the engine runs, what its task queues hold, and what requests and runs may be at most."""

    def __post_init__(self) -> None:
        """Refuse at once what would fail later. Raises SettingsError."""
        if not is_postgres(self.db):
            sqlite_path(self.db)
        if not 0 <= self.port <= 65535:
            raise SettingsError(f"port must be 0 to 65535, not {self.port}")
        if self.advertise and not _is_host_and_port(self.advertise):
            raise SettingsError(f"advertise must be host:port, an IPv6 address in brackets, not {self.advertise!r}")
        for name in self.namespaces:
            if not name:
                raise SettingsError("a namespace must have a name")
        for field in ("store_check_seconds", "shutdown_grace_seconds", "lock_wait_seconds"):
            # Neither is NaN below a limit, nor does infinity ever end.
            if not math.isfinite(getattr(self, field)):
                raise SettingsError(f"{field} must be a finite number, not {getattr(self, field)}")
        for field in ("concurrent_calls_max", "namespace_retention_seconds", "store_check_seconds"):
            if getattr(self, field) <= 0:
                raise SettingsError(f"{field} must be above 0, not {getattr(self, field)}")
        if self.engine.cluster.lease_seconds < _SHORTEST_LEASE_SECONDS:
            lease_seconds = self.engine.cluster.lease_seconds
            raise SettingsError(f"lease_seconds must be {_SHORTEST_LEASE_SECONDS} or more, not {lease_seconds}")
        for field in ("shutdown_grace_seconds", "lock_wait_seconds"):
            if getattr(self, field) < 0:
                raise SettingsError(f"{field} must not be negative, not {getattr(self, field)}")

    @property
    def address(self) -> str:
        """Where the gRPC front end listens, as host:port."""
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


def _is_host_and_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return False
    try:
        # As the system does it when it looks the name up.
        host.encode("idna")
    except UnicodeError:
        return False
    is_port = port.isascii() and port.isdigit() and 0 < int(port) <= 65535
    return is_port and bool(host) and not any(each.isspace() or each in "/@[]" for each in host)


def is_postgres(db: str) -> bool:
    """Whether a database setting names a PostgreSQL database, or one that speaks its protocol."""
    return db.startswith(("postgresql://", "postgres://")) or is_cockroach(db)


def is_cockroach(db: str) -> bool:
    """Whether a database setting names a CockroachDB database."""
    return db.startswith(f"{COCKROACH_SCHEME}://")


def shown_db(db: str) -> str:
    """Return a database setting as people may see it: the file, `memory`, or a URL without its password."""
    if not is_postgres(db):
        return sqlite_path(db) or "memory"
    parts = urlsplit(db)
    user, separator, address = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{user.partition(':')[0]}{separator}{address}{parts.path}"


def store_name(db: str) -> str:
    """Return which kind of database a setting names, in one word."""
    if not is_postgres(db):
        return "sqlite"
    scheme = urlsplit(db).scheme
    return "postgresql" if scheme == "postgres" else scheme


def sqlite_path(db: str) -> str | None:
    """Return the file a database setting names, or None for a database in memory.

    Raises:
        SettingsError: The setting names no file, or a kind of database this release does not have.
    """
    if db in ("memory:", ":memory:", "sqlite://", "sqlite:///:memory:"):
        return None
    scheme, separator, rest = db.partition("://")
    path = db
    if separator:
        shown = _without_password(db)
        if scheme != "sqlite":
            raise SettingsError(
                f"db {shown!r}: write sqlite:///file.db, a path, postgresql://host/database, or cockroachdb://host/database"
            )
        if not rest.startswith("/"):
            raise SettingsError(f"db {shown!r}: three slashes for a relative path, four for an absolute one")
        path = rest[1:]
    if not path:
        raise SettingsError(f"db {db!r} names no file")
    return path


def _without_password(url: str) -> str:
    """Return what somebody took for a URL of a database without what may be a password, as messages may show it."""
    # To the last @: passwords have any character. Behind a question mark there may be one too.
    return re.sub(r"(://[^:@]*):.*@", r"\1:***@", url).partition("?")[0]


def search_attribute_type(name: str) -> int:
    """Return the `IndexedValueType` of a type's name, in any case. Raises SettingsError for an unknown one."""
    for known, number in SEARCH_ATTRIBUTE_TYPES.items():
        if known.lower() == name.lower():
            return number
    raise SettingsError(f"{name!r} is no search attribute type; one of {', '.join(SEARCH_ATTRIBUTE_TYPES)}")
