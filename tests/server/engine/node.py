"""One engine in virtual time on the store in memory, whose commits and reads a test holds up, fails or loses.

A test says what a client or a worker would; the core's inputs are made here with the defaults that handlers fill in.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar
from zlib import crc32

from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import ActivityType, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import CommandType, QueryResultType, TaskQueueKind
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest,
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    RespondActivityTaskCompletedRequest,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)

from perdure.server.core.durations import duration_of
from perdure.server.core.inputs import (
    CompleteActivity,
    HeartbeatActivity,
    Input,
    Locate,
    ReturnActivity,
    ReturnWorkflowTask,
    Signal,
    Start,
    Terminate,
)
from perdure.server.core.records import NamespaceRecord, StoredRun, WorkflowKey
from perdure.server.core.replies import RunPosition, StartReply
from perdure.server.core.tokens import decode_activity, decode_workflow_task
from perdure.server.engine.clock import uuid7
from perdure.server.engine.engine import Engine
from perdure.server.engine.settings import EngineSettings
from perdure.server.store.interface import (
    Batch,
    BatchRejected,
    Claim,
    DueAlarm,
    StoredEvent,
    StoreUnavailable,
)
from perdure.server.store.memory import MemoryDatabase, MemoryStore
from tests.virtual_time import VirtualClock, settle

T = TypeVar("T")

NAMESPACE_ID = "0190d0f0-0000-7000-8000-000000000001"
QUEUE = "queue"


class CountingClock(VirtualClock):
    """Virtual time, and ids that count up."""

    def __init__(self, name: str = "nonce") -> None:
        super().__init__()
        self._name = name
        self._count = 0

    def new_run_id(self) -> str:
        self._count += 1
        return uuid7(self.now() // 1_000_000, crc32(self._name.encode()) << 32 | self._count)

    def new_nonce(self) -> str:
        self._count += 1
        return f"{self._name} {self._count}"


class Gate:
    """A place where calls wait while it is shut, and then fail with what a test has put there."""

    def __init__(self) -> None:
        self._is_open = True
        self._waiters: list[asyncio.Future[None]] = []
        self.errors: list[Exception | None] = []
        """What the next calls fail with, one each; None lets one pass."""

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiters)

    def shut(self) -> None:
        """Let everything wait that comes."""
        self._is_open = False

    def open(self) -> None:
        """Let go what waits."""
        self._is_open = True
        for waiter in self._waiters:
            waiter.set_result(None)

    def let_one_pass(self) -> None:
        """Let go what has waited longest."""
        self._waiters[0].set_result(None)

    async def passed(self) -> None:
        """Wait while it is shut, then raise the next error, if there is one."""
        if not self._is_open:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


class NamespaceIds:
    """The namespaces there are, by id."""

    def __init__(self, *ids: str) -> None:
        self.ids = set(ids)
        self.reading = Gate()

    async def is_there(self, namespace_id: str) -> bool:
        await self.reading.passed()
        return namespace_id in self.ids


class Faults:
    """The gates around the moment at which a batch becomes durable, and what was written."""

    def __init__(self) -> None:
        self.before_commit = Gate()
        self.after_commit = Gate()
        self.rejected: dict[WorkflowKey, Exception] = {}
        self.batches: list[list[WorkflowKey]] = []
        """The keys of every batch that was tried, in order."""

    async def before(self, batch: Batch) -> None:
        self.batches.append([write.key for write in batch.writes])
        await self.before_commit.passed()
        for write in batch.writes:
            if write.key in self.rejected:
                raise self.rejected[write.key]

    async def after(self, batch: Batch) -> None:
        await self.after_commit.passed()


class Store(MemoryStore):
    """The store in memory, with gates before its reads."""

    def __init__(self, database: MemoryDatabase, faults: Faults) -> None:
        super().__init__(database, faults=faults)
        self.faults = faults
        self.loading = Gate()
        self.reading_events = Gate()
        self.reading_alarms = Gate()
        self.resolving = Gate()
        self.loads: list[list[WorkflowKey]] = []
        """The keys of every read of entities."""

    async def load_current_runs(self, keys: Sequence[WorkflowKey]) -> list[StoredRun | None]:
        self.loads.append(list(keys))
        await self.loading.passed()
        return await super().load_current_runs(keys)

    async def load_run(self, key: WorkflowKey, run_id: str) -> StoredRun | None:
        await self.loading.passed()
        return await super().load_run(key, run_id)

    async def read_events(
        self, run_id: str, first_event_id: int, end_event_id: int, max_events: int, max_bytes: int
    ) -> list[StoredEvent]:
        await self.reading_events.passed()
        return await super().read_events(run_id, first_event_id, end_event_id, max_events, max_bytes)

    async def due_alarms(self, before: int, limit: int) -> list[DueAlarm]:
        rows = await super().due_alarms(before, limit)
        await self.reading_alarms.passed()
        return rows

    async def resolve(self) -> Claim:
        await self.resolving.passed()
        return await super().resolve()


class Node:
    """A running engine with those who call it.

    Args:
        database: What it works on; None makes a new one.
        settings: Of the engine.
    """

    def __init__(self, database: MemoryDatabase | None = None, settings: EngineSettings | None = None) -> None:
        self.database = database or new_database()
        self.faults = Faults()
        self.store = Store(self.database, self.faults)
        self.clock = CountingClock()
        self.engine = Engine(self.store, self.clock, settings)

    async def start(self) -> None:
        await self.store.open()
        await self.engine.start()

    def reject(self, workflow_id: str) -> None:
        """Have the database refuse whatever is written for a workflow."""
        self.faults.rejected[key_of(workflow_id)] = BatchRejected("a bad row")

    async def crash(self) -> Node:
        """Leave this engine behind with all it holds, and start another one on the same database."""
        self.faults.before_commit.shut()
        successor = Node(self.database)
        await successor.start()
        return successor

    # --- clients --------------------------------------------------------------------------------------------------

    async def submit(self, workflow_id: str, given: Input) -> object:
        return await self.engine.submit(key_of(workflow_id), given)

    async def start_workflow(
        self,
        workflow_id: str = "w",
        *,
        request_id: str = "",
        task_seconds: int = 10,
        delay_seconds: int = 0,
        eager: bool = False,
    ) -> StartReply:
        request = StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="type"),
            task_queue=TaskQueue(name=QUEUE),
            workflow_task_timeout=seconds(task_seconds),
            request_id=request_id or f"start {workflow_id}",
            workflow_start_delay=seconds(delay_seconds),
            request_eager_execution=eager,
            workflow_id_reuse_policy=1,  # type: ignore[arg-type]  # ALLOW_DUPLICATE
            workflow_id_conflict_policy=1,  # type: ignore[arg-type]  # FAIL
        )
        reply = await self.submit(workflow_id, Start("", request))
        assert isinstance(reply, StartReply)
        return reply

    async def signal(self, workflow_id: str = "w", name: str = "signal", run_id: str = "") -> None:
        await self.submit(workflow_id, Signal(run_id, SignalWorkflowExecutionRequest(signal_name=name)))

    async def terminate(self, workflow_id: str = "w") -> None:
        await self.submit(workflow_id, Terminate("", TerminateWorkflowExecutionRequest(reason="enough")))

    async def locate(self, workflow_id: str = "w", run_id: str = "") -> RunPosition:
        position = await self.submit(workflow_id, Locate(run_id))
        assert isinstance(position, RunPosition)
        return position

    async def query(
        self, workflow_id: str = "w", *, wait_seconds: float = 10, reject_condition: int = 1
    ) -> QueryWorkflowResponse:
        request = QueryWorkflowRequest(
            execution=WorkflowExecution(workflow_id=workflow_id),
            query=WorkflowQuery(query_type="query"),
            query_reject_condition=reject_condition,  # type: ignore[arg-type]  # a plain number
        )
        return await self.engine.query(NAMESPACE_ID, request, deadline_in(wait_seconds))

    async def history(
        self,
        workflow_id: str = "w",
        *,
        run_id: str = "",
        wait_seconds: float = 0.0,
        token: bytes = b"",
        page_size: int = 256,
        close_event_only: bool = False,
        for_worker: bool = False,
    ) -> GetWorkflowExecutionHistoryResponse:
        request = GetWorkflowExecutionHistoryRequest(
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            maximum_page_size=page_size,
            next_page_token=token,
            wait_new_event=wait_seconds > 0,
            history_event_filter_type=2 if close_event_only else 1,  # type: ignore[arg-type]  # plain numbers
        )
        reply = await self.engine.read_history(
            key_of(workflow_id), request, deadline_in(wait_seconds), for_worker=for_worker
        )
        return GetWorkflowExecutionHistoryResponse.FromString(reply) if isinstance(reply, bytes) else reply

    # --- workers --------------------------------------------------------------------------------------------------

    async def poll(self, *, sticky: str = "", wait_seconds: float = 60) -> PollWorkflowTaskQueueResponse:
        queue = TaskQueue(name=sticky or QUEUE)
        if sticky:
            queue.kind = TaskQueueKind.TASK_QUEUE_KIND_STICKY
        request = PollWorkflowTaskQueueRequest(task_queue=queue, identity="worker")
        reply = await self.engine.poll_workflow_task(NAMESPACE_ID, request, deadline_in(wait_seconds))
        return PollWorkflowTaskQueueResponse.FromString(reply) if isinstance(reply, bytes) else reply

    async def poll_activity(self, *, wait_seconds: float = 60) -> PollActivityTaskQueueResponse:
        request = PollActivityTaskQueueRequest(task_queue=TaskQueue(name=QUEUE), identity="worker")
        reply = await self.engine.poll_activity_task(NAMESPACE_ID, request, deadline_in(wait_seconds))
        return PollActivityTaskQueueResponse.FromString(reply) if isinstance(reply, bytes) else reply

    async def complete(
        self,
        task: PollWorkflowTaskQueueResponse,
        *commands: Command,
        sticky: str = "",
        return_next: bool = False,
        answers: Mapping[str, bytes] | None = None,
    ) -> RespondWorkflowTaskCompletedResponse:
        request = RespondWorkflowTaskCompletedRequest(
            identity="worker", commands=commands, return_new_workflow_task=return_next
        )
        for query_id, data in (answers or {}).items():
            result = request.query_results[query_id]
            result.result_type = QueryResultType.QUERY_RESULT_TYPE_ANSWERED
            result.answer.payloads.add(data=data)
        if sticky:
            request.sticky_attributes.worker_task_queue.name = sticky
            request.sticky_attributes.schedule_to_start_timeout.CopyFrom(seconds(5))
        reply = await self.engine.complete_workflow_task(decode_workflow_task(task.task_token), request)
        return RespondWorkflowTaskCompletedResponse.FromString(reply)

    async def complete_activity(self, task: PollActivityTaskQueueResponse) -> None:
        token = decode_activity(task.task_token)
        given = CompleteActivity(token.run_id, token, RespondActivityTaskCompletedRequest(identity="worker"))
        await self.submit(token.workflow_id, given)

    async def heartbeat(self, task: PollActivityTaskQueueResponse) -> None:
        token = decode_activity(task.task_token)
        await self.submit(token.workflow_id, HeartbeatActivity(token.run_id, token, b"", "worker"))

    async def return_activity(self, task: PollActivityTaskQueueResponse) -> None:
        """Say that a worker went away before it had an activity."""
        token = decode_activity(task.task_token)
        await self.submit(token.workflow_id, ReturnActivity(token.run_id, token))

    async def return_workflow_task(self, task: PollWorkflowTaskQueueResponse) -> None:
        """Say that a worker went away before it had a workflow task."""
        token = decode_workflow_task(task.task_token)
        await self.submit(token.workflow_id, ReturnWorkflowTask(token.run_id, token))

    # --- what is durable ------------------------------------------------------------------------------------------

    def stored_events(self, run_id: str) -> list[str]:
        """Return the names of a run's durable events."""
        stored = self.database.tables.events.get(run_id, {})
        return [event_name(HistoryEvent.FromString(event.data)) for _, event in sorted(stored.items())]


def new_database(now: Callable[[], int] = time.time_ns) -> MemoryDatabase:
    """Return a database with one namespace whose id is always the same."""
    database = MemoryDatabase(now=now)
    database.tables.namespaces[NAMESPACE_ID] = NamespaceRecord(
        NAMESPACE_ID, "default", 1, "", "", {}, retention_seconds=86_400, created_at=0
    )
    return database


@contextlib.asynccontextmanager
async def running(
    settings: EngineSettings | None = None, database: MemoryDatabase | None = None
) -> AsyncIterator[Node]:
    """A node that has started and is left as it is in the end; the loop ends its tasks."""
    node = Node(database, settings)
    await node.start()
    yield node


def key_of(workflow_id: str) -> WorkflowKey:
    return WorkflowKey(NAMESPACE_ID, workflow_id)


def seconds(value: float) -> Duration:
    return duration_of(int(value * 1e9))


def deadline_in(wait_seconds: float) -> float:
    return asyncio.get_running_loop().time() + wait_seconds


def event_name(event: HistoryEvent) -> str:
    return (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")


def event_names(events: Sequence[HistoryEvent]) -> list[str]:
    return [event_name(event) for event in events]


def schedule_activity(
    name: str = "a", *, attempts: int = 1, eager: bool = False, start_to_close: float = 60
) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK)
    attributes = command.schedule_activity_task_command_attributes
    attributes.activity_id = name
    attributes.activity_type.CopyFrom(ActivityType(name="activity"))
    attributes.task_queue.CopyFrom(TaskQueue(name=QUEUE))
    attributes.start_to_close_timeout.CopyFrom(seconds(start_to_close))
    attributes.retry_policy.CopyFrom(RetryPolicy(maximum_attempts=attempts))
    attributes.request_eager_execution = eager
    return command


def start_timer(name: str, wait_seconds: float) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_START_TIMER)
    command.start_timer_command_attributes.timer_id = name
    command.start_timer_command_attributes.start_to_fire_timeout.CopyFrom(seconds(wait_seconds))
    return command


def signal_other(workflow_id: str) -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION)
    attributes = command.signal_external_workflow_execution_command_attributes
    attributes.execution.workflow_id = workflow_id
    attributes.signal_name = "signal"
    return command


def complete_workflow() -> Command:
    command = Command(command_type=CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION)
    result = Payloads(payloads=[Payload(data=b"1")])
    command.complete_workflow_execution_command_attributes.result.CopyFrom(result)
    return command


async def started(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Start something and let it get as far as it can without time passing."""
    task = asyncio.create_task(work)
    await settle()
    return task


def unavailable() -> StoreUnavailable:
    return StoreUnavailable("the database is away")
