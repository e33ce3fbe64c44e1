"""The store in memory: the fake that passes the real one's conformance suite."""

from perdure.server.store.memory.database import MemoryDatabase
from perdure.server.store.memory.store import CommitFaults, MemoryStore

__all__ = ["CommitFaults", "MemoryDatabase", "MemoryStore"]
