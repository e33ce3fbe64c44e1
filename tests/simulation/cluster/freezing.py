"""A loop in virtual time on which single processes stand still, as under SIGSTOP or in a virtual machine that is moved.

Time goes on for a frozen process: what would wake its tasks is kept, its timers that are due among it, and happens all
at once when it goes on. So a node wakes with replies, deadlines and pieces of the network that are as old as its pause.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TypeVarTuple, Unpack

from tests.simulation.processes import Process, process_of
from tests.virtual_time import VirtualTimeLoop

Ts = TypeVarTuple("Ts")


class FreezingLoop(VirtualTimeLoop):
    """The loop; see the module."""

    def __init__(self, *, limit_seconds: float) -> None:
        super().__init__(limit_seconds=limit_seconds)
        self._kept: dict[Process, list[asyncio.Handle]] = {}

    def freeze(self, process: Process) -> None:
        """Let nothing of a process run from now on."""
        process.is_frozen = True
        self._kept[process] = []

    def thaw(self, process: Process) -> None:
        """Let it go on."""
        process.is_frozen = False
        self._ready.extend(self._kept.pop(process))  # type: ignore[attr-defined]  # BaseEventLoop's own

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        process = process_of(context) if self._kept else None
        if process is None or not process.is_frozen:
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        self._kept[process].append(handle)
        return handle

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        process = process_of(context)
        if process is None:
            return super().call_at(when, callback, *args, context=context)
        own = contextvars.copy_context() if context is None else context
        timer: asyncio.TimerHandle

        def due() -> None:
            if not process.is_frozen:
                callback(*args)
            elif not process.is_dead:
                # Whoever cancels the timer meanwhile cancels what is kept of it.
                self._kept[process].append(asyncio.Handle(lambda: timer.cancelled() or callback(*args), (), self, own))

        timer = super().call_at(when, due, context=own)
        return timer
