"""Databases of each kind, for whoever asks."""

from tests.server.tool_databases import empty_url, new_database

__all__ = ["empty_url", "new_database"]
