"""The kit that state machines are made of: a table of legal moves, the one function that moves, what reads tables."""

from perdure._machine._coverage import Coverage
from perdure._machine._diagram import diagram, page
from perdure._machine._table import IllegalMove, Machine, MachineState, Table, can, move, observe

__all__ = ["Coverage", "IllegalMove", "Machine", "MachineState", "Table", "can", "diagram", "move", "observe", "page"]
