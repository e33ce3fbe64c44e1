"""Where the callers of queries wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from temporalio.api.enums.v1 import QueryResultType
from temporalio.api.errordetails.v1 import QueryFailedFailure
from temporalio.api.workflowservice.v1 import QueryWorkflowResponse

from perdure.server.core.effects import QueryAnswered
from perdure.server.core.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    ServerError,
    Unavailable,
)
from perdure.server.engine.matching import Matcher, QueueKey


class QueryBoard:
    """Callers by query id, and in which task queue each query is offered."""

    def __init__(self, matcher: Matcher, limit: int) -> None:
        self._matcher = matcher
        self._limit = limit
        self._callers: dict[str, asyncio.Future[QueryWorkflowResponse]] = {}
        self._queues: dict[str, list[QueueKey]] = {}
        self._query_ids_of_runs: dict[str, set[str]] = {}
        self._answered: set[str] = set()
        """Of those whose callers wait: what the run has done with."""

    def open(self, query_id: str) -> asyncio.Future[QueryWorkflowResponse]:
        """Begin to wait for an answer. Raises ResourceExhausted where too many wait."""
        if len(self._callers) >= self._limit:
            raise ResourceExhausted(f"{self._limit} queries wait for an answer already; try again later")
        future: asyncio.Future[QueryWorkflowResponse] = asyncio.get_running_loop().create_future()
        self._callers[query_id] = future
        return future

    def is_open(self, query_id: str) -> bool:
        """Return whether anybody waits for the answer."""
        return query_id in self._callers

    def admitted(self, query_id: str, run_id: str) -> None:
        """Note which run the query is for."""
        self._query_ids_of_runs.setdefault(run_id, set()).add(query_id)

    def offered(self, query_id: str, queue: QueueKey) -> None:
        """Note in which task queue the query waits."""
        self._queues.setdefault(query_id, []).append(queue)

    def close(self, query_id: str, run_id: str) -> bool:
        """End the wait; return whether the run still holds the query, and it must be withdrawn."""
        del self._callers[query_id]
        for queue in self._queues.pop(query_id, ()):
            self._matcher.withdraw_query(queue, query_id)
        is_answered = query_id in self._answered
        self._answered.discard(query_id)
        ids = self._query_ids_of_runs.get(run_id, set())
        if query_id not in ids:
            return False
        ids.remove(query_id)
        if not ids:
            del self._query_ids_of_runs[run_id]
        return not is_answered

    async def wait(self, future: asyncio.Future[QueryWorkflowResponse], deadline: float) -> QueryWorkflowResponse:
        """Wait for the answer until the deadline (`loop.time()`)."""
        timer = asyncio.get_running_loop().call_at(
            deadline, _raise, future, DeadlineExceeded("no worker has answered the query in time; is one running?")
        )
        try:
            return await future
        finally:
            timer.cancel()

    def answered(self, answer: QueryAnswered) -> None:
        """Give a caller its answer."""
        future = self._callers.get(answer.query_id)
        if future is None:
            return
        self._answered.add(answer.query_id)
        if future.done():
            return
        result = answer.result
        if result is None:
            future.set_exception(InvalidArgument(answer.problem))
        elif result.result_type == QueryResultType.QUERY_RESULT_TYPE_ANSWERED:
            response = QueryWorkflowResponse()
            if result.HasField("answer"):
                response.query_result.CopyFrom(result.answer)
            future.set_result(response)
        else:
            detail = QueryFailedFailure(failure=result.failure if result.HasField("failure") else None)
            future.set_exception(InvalidArgument(result.error_message, detail=detail))

    def refuse(self, query_id: str, reason: str) -> None:
        """Tell a caller that its query could not be offered."""
        future = self._callers.get(query_id)
        if future is not None:
            _raise(future, ResourceExhausted(reason))

    def drop(self, run_ids: Iterable[str]) -> None:
        """Tell the callers of runs that left memory to ask again."""
        self.move(run_ids, Unavailable("the run was read anew while the query waited; ask again"))

    def move(self, run_ids: Iterable[str], reason: ServerError) -> None:
        """End the wait of the callers of runs with this reason."""
        for run_id in run_ids:
            for query_id in self._query_ids_of_runs.pop(run_id, ()):
                future = self._callers.get(query_id)
                if future is not None:
                    _raise(future, reason)

    def stop(self) -> None:
        """Refuse all who wait."""
        for future in self._callers.values():
            _raise(future, Unavailable("the server is stopping"))


def _raise(future: asyncio.Future[QueryWorkflowResponse], error: ServerError) -> None:
    if not future.done():
        future.set_exception(error)
