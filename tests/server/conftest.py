"""Databases of each kind, for whoever asks."""

from tests.server.tool_databases import empty_url, new_database, old_url

__all__ = ["empty_url", "new_database", "old_url"]
