"""The rules of the engine. Pure: no asyncio, clock, randomness or I/O; time and ids are passed in."""
