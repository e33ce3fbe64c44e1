"""Those who wait for a run's history to go on, or for its end."""

from __future__ import annotations

import asyncio


class Waiters:
    """Futures by run id. A waiter is woken when its run has new durable events; it looks for itself what they are."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Future[bool], None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def wake(self, run_id: str) -> None:
        """Wake all who wait for a run."""
        for future in self._waiting.pop(run_id, ()):
            _end(future, True)

    def wake_all(self) -> None:
        """Wake everybody, as when the server stops."""
        for run_id in list(self._waiting):
            self.wake(run_id)

    def expect(self, run_id: str) -> asyncio.Future[bool]:
        """Return a future that is done at the next advance of the run. Take it before looking, or miss one."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, {})[future] = None
        return future

    async def wait(self, run_id: str, future: asyncio.Future[bool], deadline: float) -> bool:
        """Wait for an advance; return False where the deadline (`loop.time()`) passes first."""
        timer = asyncio.get_running_loop().call_at(deadline, _end, future, False)
        try:
            return await future
        finally:
            timer.cancel()
            self.forget(run_id, future)

    def forget(self, run_id: str, future: asyncio.Future[bool]) -> None:
        """Drop a future that nobody waits for."""
        waiting = self._waiting.get(run_id)
        if waiting is not None:
            waiting.pop(future, None)
            if not waiting:
                del self._waiting[run_id]


def _end(future: asyncio.Future[bool], advanced: bool) -> None:
    if not future.done():
        future.set_result(advanced)
