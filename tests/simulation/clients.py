"""Simulated clients: they start, signal, query, read, cancel, terminate and delete, and repeat what broke off.

What they are told goes into the ledger. A client that never learns the fate of its call repeats it under the same
request id until it does.
"""

from __future__ import annotations

import asyncio
import random

from google.protobuf.duration_pb2 import Duration
from temporalio.api.common.v1 import RetryPolicy, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import (
    HistoryEventFilterType,
    QueryRejectCondition,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse,
    QueryWorkflowRequest,
    RequestCancelWorkflowExecutionRequest,
    SignalWithStartWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
)

from perdure.server.core.durations import duration_of
from perdure.server.core.errors import AlreadyExists, NotFound
from perdure.server.core.inputs import Delete, RequestCancel, Signal, SignalWithStart, Start, Terminate
from perdure.server.core.records import WorkflowKey
from perdure.server.core.replies import StartReply
from tests.simulation.ledger import Fate, SentSignal, StartedRun
from tests.simulation.processes import NAMESPACE_ID
from tests.simulation.programs import WORKFLOWS, Program, input_of
from tests.simulation.world import World

_ALLOW = WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
_FAIL = WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_FAIL


def key_of(workflow_id: str) -> WorkflowKey:
    """Return the key of a workflow of the simulation."""
    return WorkflowKey(NAMESPACE_ID, workflow_id)


def seconds(value: float) -> Duration:
    """Return a duration as the protocol has it."""
    return duration_of(int(value * 1e9))


class Client:
    """A client of the server."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.rng: random.Random = world.rng(f"client {name}")
        self._name = name
        self._requests = 0

    def new_request_id(self) -> str:
        """Return an id unlike any other."""
        self._requests += 1
        return f"{self._name} {self._requests}"

    async def pause(self, most: float) -> None:
        """Let up to so many seconds pass."""
        await asyncio.sleep(self.rng.uniform(0, most))

    # --- starting -------------------------------------------------------------------------------------------------

    def start_request(
        self,
        workflow_id: str,
        program: Program,
        *,
        conflict: WorkflowIdConflictPolicy.ValueType = _FAIL,
        reuse: WorkflowIdReusePolicy.ValueType = _ALLOW,
    ) -> StartWorkflowExecutionRequest:
        """Return a start request as a handler would pass it on."""
        return StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name="simulated"),
            task_queue=TaskQueue(name=WORKFLOWS),
            input=input_of(program),
            workflow_task_timeout=seconds(10),
            identity=self._name,
            request_id=self.new_request_id(),
            workflow_id_conflict_policy=conflict,
            workflow_id_reuse_policy=reuse,
        )

    async def start(self, request: StartWorkflowExecutionRequest) -> StartReply | None:
        """Start a workflow; None where the id policies forbid it."""
        key = key_of(request.workflow_id)
        given = Start("", request)
        try:
            reply = await self.world.until_done(lambda engine: engine.submit(key, given))
        except AlreadyExists:
            return None
        assert isinstance(reply, StartReply)
        self.world.ledger.starts.append(StartedRun(key, reply.run_id, request.request_id))
        return reply

    async def start_chain(self, request: StartWorkflowExecutionRequest) -> str:
        """Start a workflow whose runs follow each other; return the id of the first that is known.

        A start that broke off and was repeated only after its first run had ended finds a later one running.
        """
        key = key_of(request.workflow_id)
        given = Start("", request)
        try:
            reply = await self.world.until_done(lambda engine: engine.submit(key, given))
        except AlreadyExists as error:
            assert isinstance(error.detail, WorkflowExecutionAlreadyStartedFailure)
            return error.detail.run_id
        assert isinstance(reply, StartReply)
        self.world.ledger.starts.append(StartedRun(key, reply.run_id, request.request_id))
        return reply.run_id

    async def signal_with_start(self, request: SignalWithStartWorkflowExecutionRequest) -> StartReply:
        """Signal a workflow, and start it where it is not running."""
        key = key_of(request.workflow_id)
        sent = self.world.ledger.signals[request.signal_name] = SentSignal(key, "")
        given = SignalWithStart("", request)
        reply = await self.world.until_done(lambda engine: engine.submit(key, given))
        assert isinstance(reply, StartReply)
        sent.fate = Fate.ACKNOWLEDGED
        return reply

    # --- running --------------------------------------------------------------------------------------------------

    async def signal(self, workflow_id: str, run_id: str) -> bool:
        """Send a signal; return whether there was a run to take it."""
        key = key_of(workflow_id)
        name = self.new_request_id()
        request = SignalWorkflowExecutionRequest(signal_name=name, request_id=name, identity=self._name)
        sent = self.world.ledger.signals[name] = SentSignal(key, run_id)
        given = Signal(run_id, request)
        try:
            await self.world.until_done(lambda engine: engine.submit(key, given))
        except NotFound:
            # The run may have closed between an attempt that was done and the one that was refused.
            return False
        sent.fate = Fate.ACKNOWLEDGED
        return True

    async def request_cancel(self, workflow_id: str, run_id: str) -> None:
        """Ask a run to cancel."""
        key = key_of(workflow_id)
        given = RequestCancel(run_id, RequestCancelWorkflowExecutionRequest(identity=self._name))
        try:
            await self.world.until_done(lambda engine: engine.submit(key, given))
        except NotFound:
            return

    async def terminate(self, workflow_id: str, run_id: str) -> None:
        """Terminate a run; one that has ended meanwhile stays as it ended."""
        key = key_of(workflow_id)
        given = Terminate(run_id, TerminateWorkflowExecutionRequest(reason="simulated", identity=self._name))
        try:
            await self.world.until_done(lambda engine: engine.submit(key, given))
        except NotFound:
            return
        if run_id:
            self.world.ledger.terminated.add(run_id)

    async def delete(self, workflow_id: str, run_id: str) -> None:
        """Delete a run."""
        key = key_of(workflow_id)
        self.world.ledger.deleted.add(run_id)
        try:
            await self.world.until_done(lambda engine: engine.submit(key, Delete(run_id)))
        except NotFound:
            pass
        self.world.ledger.deletes_acknowledged.add(run_id)

    async def query(self, workflow_id: str, run_id: str, deadline_seconds: float) -> int:
        """Ask a run how many signals it has seen.

        Raises:
            ServerError: As the engine says.
        """
        request = QueryWorkflowRequest(
            namespace="default",
            execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            query=WorkflowQuery(query_type="signals"),
            query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NONE,
        )
        deadline = asyncio.get_running_loop().time() + deadline_seconds
        reply = await self.world.call(lambda engine: engine.query(NAMESPACE_ID, request, deadline))
        return int(reply.query_result.payloads[0].data)

    # --- reading --------------------------------------------------------------------------------------------------

    async def read(
        self, request: GetWorkflowExecutionHistoryRequest, wait_seconds: float
    ) -> GetWorkflowExecutionHistoryResponse:
        """Read a page of history, again and again until it is told."""
        key = key_of(request.execution.workflow_id)
        loop = asyncio.get_running_loop()
        reply = await self.world.until_done(
            lambda engine: engine.read_history(key, request, loop.time() + wait_seconds, for_worker=False)
        )
        return GetWorkflowExecutionHistoryResponse.FromString(reply) if isinstance(reply, bytes) else reply

    async def follow(self, workflow_id: str, run_id: str) -> None:
        """Follow a run's history to its end; what was told must stay true."""
        request = _history_request(workflow_id, run_id)
        request.wait_new_event = True
        seen: list[HistoryEvent] = []
        self.world.ledger.seen_histories.append((run_id, seen))
        while True:
            try:
                page = await self.read(request, 15)
            except NotFound:
                assert run_id in self.world.ledger.deleted, f"{run_id} is gone"
                return
            seen.extend(page.history.events)
            if not page.next_page_token:
                return
            request.next_page_token = page.next_page_token

    async def result(self, workflow_id: str, run_id: str) -> HistoryEvent | None:
        """Wait for a run's closing event; None where the run was deleted."""
        request = _history_request(workflow_id, run_id)
        request.wait_new_event = True
        request.history_event_filter_type = HistoryEventFilterType.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT
        while True:
            try:
                page = await self.read(request, 20)
            except NotFound:
                assert run_id in self.world.ledger.deleted, f"{run_id} is gone"
                return None
            if page.history.events:
                return page.history.events[0]
            request.next_page_token = page.next_page_token


def _history_request(workflow_id: str, run_id: str) -> GetWorkflowExecutionHistoryRequest:
    return GetWorkflowExecutionHistoryRequest(
        namespace="default",
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=10,
    )


def workflow_retry_policy(attempts: int) -> RetryPolicy:
    """Return a retry policy for a run, with its defaults filled in."""
    return RetryPolicy(
        initial_interval=seconds(1), maximum_interval=seconds(5), backoff_coefficient=2.0, maximum_attempts=attempts
    )
