"""Tools for operators on a whole database, without the engine: looking at it, checking it, copying it."""
