"""Deleting runs in the background: in small groups, at the pace the node has for it.

Each run goes through the loop like everything else that happens to it, so the rules decide, and a run that is gone
already is no error. A group is small so that what live workflows ask for meanwhile waits for little, and yet its runs
are loaded with one read and deleted in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from perdure.server.core.errors import DataLoss, NotFound, ServerError
from perdure.server.core.inputs import Input
from perdure.server.core.records import WorkflowKey
from perdure.server.engine.pace import Pace
from perdure.server.store.interface import StoreError

_logger = logging.getLogger(__name__)
_GROUPS_PER_SECOND: Final = 20

Submit = Callable[[WorkflowKey, Input], Awaitable[object]]


class Deletions:
    """Takes inputs that delete runs through the loop.

    Args:
        submit: The loop.
        runs_per_second: How many runs this node deletes in the background, for whatever reason.
    """

    def __init__(self, submit: Submit, runs_per_second: int) -> None:
        self._submit = submit
        self._pace = Pace(runs_per_second)
        self._group = max(1, runs_per_second // _GROUPS_PER_SECOND)

    async def delete(self, inputs: Sequence[tuple[WorkflowKey, Input]]) -> int:
        """Submit inputs, each of which may delete a run, and return how many are worth trying again soon."""
        failures: list[Exception] = []
        for first in range(0, len(inputs), self._group):
            group = inputs[first : first + self._group]
            await self._pace.turn(len(group))
            answers = await asyncio.gather(*(self._delete_one(key, given) for key, given in group))
            failures += filter(None, answers)
        if failures:
            _logger.warning("%d runs could not be deleted, trying again: %s", len(failures), failures[-1])
        return len(failures)

    async def _delete_one(self, key: WorkflowKey, given: Input) -> Exception | None:
        """Return why the run may still be there and will not be for ever."""
        try:
            await self._submit(key, given)
        except (NotFound, DataLoss):
            # It is gone, or operators were told of it when it could not be read, and have to act.
            return None
        except (ServerError, StoreError) as error:
            return error
        return None
