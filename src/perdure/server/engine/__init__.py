"""The asyncio runtime around the core."""
