"""The mark of a copy that is not complete: a row of `meta` in the database that is copied into.

As long as it is there, no row of `migration` is: a server of any release refuses a database that does not say which
schema it has. The mark says what would finish the copy.
"""

from __future__ import annotations

from typing import Final

import msgspec

MARK: Final = "copy"
"""The name of the row in `meta`."""


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Which copy is being made."""

    source: str
    """The database it is a copy of, as people may see it."""
    cluster_id: str
    schema_version: int
    fences: str
    """Who had written what to the source when the copy began; it must not have changed when it ends."""
    session: str
    """Which call of the tool goes on with it."""

    def refusal(self) -> str:
        """Say why the database cannot be used, and what to do."""
        return (
            f"A copy of {self.source} into this database is not complete. Call `perdure db copy` again, from there to"
            " here: it goes on where it ended. Or begin with an empty database."
        )


def marker_text(marker: Marker) -> str:
    """Return the value of the row."""
    return msgspec.json.encode(marker).decode()


def marker_of(text: str) -> Marker:
    """Read the value of the row."""
    return msgspec.json.decode(text, type=Marker)
