"""Reading histories: pages, the wait for new events, the wait for the end. Only durable events are counted and told.

A page token names the run, so that paging goes on there though the workflow id may have moved on to another run. What
it says is a client's word: the run is looked up under the workflow of the request for every page. The events of a
workflow task whose start is only in memory are added for workers, on the last page, and never for people.
"""

from __future__ import annotations

from typing import Final

import msgspec
from temporalio.api.enums.v1 import HistoryEventFilterType, WorkflowExecutionStatus
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
)

from perdure.server.core.errors import InvalidArgument, Unavailable
from perdure.server.core.inputs import Locate
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import HistorySlice, RunPosition
from perdure.server.engine.cache import Cache
from perdure.server.engine.runner import Runner
from perdure.server.engine.settings import EngineSettings
from perdure.server.engine.waiters import Waiters
from perdure.server.engine.wire import append_history
from perdure.server.store.interface import Store, StoreError

_RUNNING: Final = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_RUNNING
_CLOSE_EVENT: Final = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT


class PageToken(msgspec.Struct, array_like=True, tag="h1"):
    """Where a history is read on. With `end_event_id` 0 there is no end yet: the reader waits for new events."""

    run_id: str
    next_event_id: int
    end_event_id: int
    virtual: list[bytes] = []


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PageToken).decode


class Histories:
    """Reads histories from memory where they are there, else from the store."""

    def __init__(self, runner: Runner, cache: Cache, store: Store, waiters: Waiters, settings: EngineSettings) -> None:
        self._runner = runner
        self._cache = cache
        self._store = store
        self._waiters = waiters
        self._page_bytes = settings.history_page_bytes
        self._task_events = settings.task_history_events
        self._stopped = False

    def stop(self) -> None:
        """End all waits for new events, and every later one at once."""
        self._stopped = True
        self._waiters.wake_all()

    async def for_task(self, key: WorkflowKey, wanted: HistorySlice) -> tuple[list[bytes], bytes]:
        """Return the first page of a task's history and the token for the rest, empty where there is none."""
        events = await self._events(
            key, wanted.run_id, wanted.first_event_id, wanted.end_event_id, self._task_events, self._page_bytes
        )
        reached = wanted.first_event_id + len(events)
        if reached >= wanted.end_event_id:
            return events + wanted.virtual, b""
        return events, _encode(PageToken(wanted.run_id, reached, wanted.end_event_id, wanted.virtual))

    async def read(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryRequest, deadline: float, *, for_worker: bool
    ) -> GetWorkflowExecutionHistoryResponse | bytes:
        """Answer GetWorkflowExecutionHistory.

        Args:
            key: The workflow.
            request: Validated.
            deadline: Until when to wait for new events, as `loop.time()`.
            for_worker: Whether the caller may be a worker, which needs the events of its undurable task too.
        """
        token = _read_token(request.next_page_token, request.execution.run_id)
        if request.history_event_filter_type == _CLOSE_EVENT:
            return await self._read_close_event(key, request, token, deadline)
        if token is not None and token.end_event_id:
            position = await self._locate(key, token.run_id)
            token.end_event_id = min(token.end_event_id, position.next_event_id)
            return await self._page(key, token, request.maximum_page_size)
        if request.wait_new_event:
            return await self._read_and_wait(key, request, token, deadline)
        position = await self._locate(key, request.execution.run_id)
        start = PageToken(position.run_id, 1, position.next_event_id, position.virtual if for_worker else [])
        return await self._page(key, start, request.maximum_page_size)

    async def read_reverse(
        self, key: WorkflowKey, request: GetWorkflowExecutionHistoryReverseRequest
    ) -> GetWorkflowExecutionHistoryReverseResponse | bytes:
        """Answer GetWorkflowExecutionHistoryReverse."""
        token = _read_token(request.next_page_token, request.execution.run_id)
        position = await self._locate(key, token.run_id if token is not None else request.execution.run_id)
        last = position.next_event_id - 1
        if token is not None:
            last = min(token.next_event_id, last)
        try:
            stored = await self._store.read_events_reverse(
                position.run_id, last, request.maximum_page_size, self._page_bytes
            )
        except StoreError as error:
            raise Unavailable(f"the history cannot be read, try again: {error}") from error
        response = GetWorkflowExecutionHistoryReverseResponse()
        if stored and stored[-1].event_id > 1:
            response.next_page_token = _encode(PageToken(position.run_id, stored[-1].event_id - 1, 0))
        return append_history(response, "history", [event.data for event in stored])

    async def _page(self, key: WorkflowKey, token: PageToken, size: int) -> bytes:
        events = await self._events(key, token.run_id, token.next_event_id, token.end_event_id, size, self._page_bytes)
        response = GetWorkflowExecutionHistoryResponse()
        reached = token.next_event_id + len(events)
        if reached < token.end_event_id:
            response.next_page_token = _encode(PageToken(token.run_id, reached, token.end_event_id, token.virtual))
        else:
            events = events + token.virtual
        return append_history(response, "history", events)

    async def _read_and_wait(
        self,
        key: WorkflowKey,
        request: GetWorkflowExecutionHistoryRequest,
        token: PageToken | None,
        deadline: float,
    ) -> bytes:
        position, first = await self._wait_beyond(key, request, token, deadline)
        events = await self._events(
            key, position.run_id, first, position.next_event_id, request.maximum_page_size, self._page_bytes
        )
        response = GetWorkflowExecutionHistoryResponse()
        reached = first + len(events)
        if position.status == _RUNNING or reached < position.next_event_id:
            response.next_page_token = _encode(PageToken(position.run_id, reached, 0))
        return append_history(response, "history", events)

    async def _wait_beyond(
        self,
        key: WorkflowKey,
        request: GetWorkflowExecutionHistoryRequest,
        token: PageToken | None,
        deadline: float,
    ) -> tuple[RunPosition, int]:
        """Wait until there is an event that the reader does not have, the run is closed, or time is up."""
        position = await self._locate(key, token.run_id if token is not None else request.execution.run_id)
        first = token.next_event_id if token is not None else 1
        while position.next_event_id <= first and position.status == _RUNNING:
            position, in_time = await self._wait_for_advance(key, position, deadline)
            if not in_time:
                break
        return position, first

    async def _read_close_event(
        self,
        key: WorkflowKey,
        request: GetWorkflowExecutionHistoryRequest,
        token: PageToken | None,
        deadline: float,
    ) -> bytes:
        position = await self._locate(key, token.run_id if token is not None else request.execution.run_id)
        in_time = request.wait_new_event
        while position.status == _RUNNING and in_time:
            position, in_time = await self._wait_for_advance(key, position, deadline)
        response = GetWorkflowExecutionHistoryResponse()
        if position.status == _RUNNING:
            if request.wait_new_event:
                response.next_page_token = _encode(PageToken(position.run_id, position.next_event_id, 0))
            return append_history(response, "history", [])
        last = position.next_event_id - 1
        events = await self._events(key, position.run_id, last, last + 1, 1, self._page_bytes)
        return append_history(response, "history", events)

    async def _wait_for_advance(
        self, key: WorkflowKey, position: RunPosition, deadline: float
    ) -> tuple[RunPosition, bool]:
        """Wait for the run to go on; return where it stands and whether it did so before the deadline."""
        future = self._waiters.expect(position.run_id)
        try:
            latest = await self._locate(key, position.run_id)
            if latest.next_event_id > position.next_event_id or latest.status != position.status:
                return latest, True
            if self._stopped:
                return latest, False
            in_time = await self._waiters.wait(position.run_id, future, deadline)
            return await self._locate(key, position.run_id), in_time and not self._stopped
        finally:
            self._waiters.forget(position.run_id, future)

    async def _locate(self, key: WorkflowKey, run_id: str) -> RunPosition:
        position = await self._runner.submit(key, Locate(run_id))
        assert isinstance(position, RunPosition)
        return position

    async def _events(
        self, key: WorkflowKey, run_id: str, first: int, end: int, max_events: int, max_bytes: int
    ) -> list[bytes]:
        """Return durable events from `first` up to, not including, `end`, as many as fit a page."""
        if first >= end:
            return []
        entity = self._cache.peek(key)
        run = entity.runs.get(run_id) if entity is not None else None
        if run is not None and run.tail_first_event_id <= first:
            start = first - run.tail_first_event_id
            return _fitting(run.tail[start : start + min(end - first, max_events)], max_bytes)
        try:
            stored = await self._store.read_events(run_id, first, end, max_events, max_bytes)
        except StoreError as error:
            raise Unavailable(f"the history cannot be read, try again: {error}") from error
        return [event.data for event in stored]


def _fitting(events: list[bytes], max_bytes: int) -> list[bytes]:
    size = 0
    for index, event in enumerate(events):
        size += len(event)
        if size > max_bytes and index:
            return events[:index]
    return events


def _read_token(data: bytes, run_id: str) -> PageToken | None:
    if not data:
        return None
    try:
        token = _decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Invalid NextPageToken.") from error
    if token.next_event_id < 1:
        raise InvalidArgument("Invalid NextPageToken.")
    if run_id and token.run_id != run_id:
        raise InvalidArgument("RunId in the request does not match the NextPageToken.")
    return token
