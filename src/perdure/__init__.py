"""Perdure: durable execution for Python.

Workflows are ordinary code that survives crashes, deploys and years of waiting.
"""

__version__ = "0.1.0"
