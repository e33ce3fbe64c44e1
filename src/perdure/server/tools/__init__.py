"""What `perdure db` does: each command as a function of database settings.

It stands beside the composition root: it knows the concrete databases, and it runs no engine.
"""

from perdure.server.store.tools.copying import Progress
from perdure.server.store.tools.interface import ToolError

__all__ = ["Progress", "ToolError"]
