"""Where state is kept: a port (`interface.py`) and its implementations."""
