"""An order that survives a bug, a dead worker and a dead server; `python -m examples.orders` tells its story."""
