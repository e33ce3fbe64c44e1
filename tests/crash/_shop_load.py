"""The load of the official SDK: clients and workers at several addresses, and a journal of every answer and every run.

Clients behave as good ones do: a call that was not answered is made again, with the same request. What the journal
holds was really acknowledged, and every execution of an activity is in it, by the run, the activity and the attempt.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

from temporalio import activity
from temporalio.api.common.v1 import Payloads, WorkflowExecution, WorkflowType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    RespondActivityTaskCompletedRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.crash._audit import Promises
from tests.crash._plan import payloads
from tests.crash._shop import CLOSE, LEDGER_ID, START_TO_CLOSE_SECONDS, Ledger, Order, OrderPlan, Parcel, StepPlan

NAMESPACE = "default"
_QUEUE = "shop"
_OPEN_AT_MOST = 24
_CALL_TIMEOUT = timedelta(seconds=3)
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_FORGOTTEN_MARGIN_SECONDS = 1.0
"""An activity's timeout is counted on the server's clock; a refusal this close to it proves nothing."""

_REFUSALS = {
    RPCStatusCode.INVALID_ARGUMENT,
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.ALREADY_EXISTS,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.PERMISSION_DENIED,
    RPCStatusCode.UNIMPLEMENTED,
}
"""What no repetition changes."""

Request = TypeVar("Request", contravariant=True)
Reply = TypeVar("Reply", covariant=True)
T = TypeVar("T")


class Rpc(Protocol[Request, Reply]):
    """An RPC as the SDK's clients have it."""

    def __call__(self, req: Request, retry: bool = ..., *, timeout: timedelta | None = ...) -> Awaitable[Reply]:
        """Make the call."""


class Refused(Exception):
    """The server said no; `first_attempt` where no earlier attempt can have been carried out without an answer."""

    def __init__(self, error: RPCError, *, first_attempt: bool) -> None:
        super().__init__(f"{error.status.name}: {error.message}")
        self.status = error.status
        self.first_attempt = first_attempt


class ShopJournal:
    """What was acknowledged, and what happened that must never happen."""

    def __init__(self) -> None:
        self.plans: dict[str, OrderPlan] = {}
        """Of every order that was asked for."""
        self.promises: dict[str, Promises] = defaultdict(Promises)
        self.results: dict[str, list[str]] = {}
        """What every order returned."""
        self.entries_seen = 0
        """What the ledger returned."""
        self.acknowledged: Counter[str] = Counter()
        self.unanswered: Counter[str] = Counter()
        self.executions: Counter[tuple[str, str, int]] = Counter()
        self.faults: list[str] = []

    def executed(self, info: activity.Info) -> None:
        """Note that a worker begins an attempt of an activity."""
        execution = (info.workflow_run_id or "", info.activity_id, info.attempt)
        self.executions[execution] += 1
        if self.executions[execution] > 1:
            self.faults.append(f"attempt {info.attempt} of activity {info.activity_id} of {info.workflow_id} ran again")


class ShopLoad:
    """Clients and workers, one of each at every address.

    Args:
        clients: Each at an address of its own.
        dice: Where everything random comes from.
    """

    def __init__(self, clients: Sequence[Client], dice: random.Random) -> None:
        self._clients = clients
        self._dice = dice
        self._numbers = iter(range(10**9))
        self._later: set[asyncio.Task[None]] = set()
        self._open = 0
        self.journal = ShopJournal()
        self.stopping = False

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Let a worker run at each client's address for as long as the block lasts."""
        async with AsyncExitStack() as workers:
            for client in self._clients:
                worker = Worker(
                    client,
                    task_queue=_QUEUE,
                    workflows=[Order, Parcel, Ledger],
                    activities=[self.step],
                    workflow_runner=UnsandboxedWorkflowRunner(),
                    sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
                    graceful_shutdown_timeout=timedelta(seconds=1),
                )
                await workers.enter_async_context(worker)
            yield
        for later in self._later:
            later.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)

    # --- clients --------------------------------------------------------------------------------------------------

    async def finished(self) -> None:
        """Wait until every order has completed and everything that runs beside has ended."""
        while self._later:
            await asyncio.wait(self._later)

    async def open_ledger(self) -> None:
        """Start the ledger."""
        run_id = await self._start(self._clients[0], LEDGER_ID, "Ledger", payloads(0))
        self.journal.promises[LEDGER_ID].run_id = run_id

    async def close_ledger(self) -> None:
        """Tell the ledger that no entry comes any more, and wait until it has completed."""
        await self.signal(self._clients[0], LEDGER_ID, "enter", CLOSE)
        handle = self._clients[0].get_workflow_handle_for(Ledger.run, LEDGER_ID)
        self.journal.entries_seen = await until_answered(self.journal.unanswered, handle.result)

    async def call(self, place: int) -> None:
        """Start orders and signal them at one address, one after the other, until the load is stopping."""
        client = self._clients[place]
        while not self.stopping:
            if self._open >= _OPEN_AT_MOST:
                await asyncio.sleep(0.02)
                continue
            self._open += 1
            await self._order(client, f"order-{next(self._numbers)}-{uuid.uuid4()}")

    async def _order(self, client: Client, order_id: str) -> None:
        plan = self.journal.plans[order_id] = _random_plan(self._dice)
        [encoded] = await client.data_converter.encode([plan])
        promises = self.journal.promises[order_id]
        promises.run_id = await self._start(client, order_id, "Order", Payloads(payloads=[encoded]))
        self.journal.acknowledged["start"] += 1
        self._run_beside(self._watch(client, order_id))
        for number in range(plan.signals):
            await asyncio.sleep(self._dice.uniform(0, 0.1))
            await self.signal(client, order_id, "approve", f"{order_id}/approval-{number}")

    async def _watch(self, client: Client, order_id: str) -> None:
        """Let another order be started when this one has completed."""
        handle = client.get_workflow_handle_for(Order.run, order_id)
        self.journal.results[order_id] = await until_answered(self.journal.unanswered, handle.result)
        self._open -= 1
        self.journal.acknowledged["result"] += 1

    async def _start(self, client: Client, workflow_id: str, workflow_type: str, given: Payloads) -> str:
        request = StartWorkflowExecutionRequest(
            namespace=NAMESPACE,
            workflow_id=workflow_id,
            workflow_type=WorkflowType(name=workflow_type),
            task_queue=TaskQueue(name=_QUEUE),
            input=given,
            request_id=str(uuid.uuid4()),
        )
        request.workflow_task_timeout.FromSeconds(2)
        return (await self._call(client.workflow_service.start_workflow_execution, request)).run_id

    async def signal(self, client: Client, workflow_id: str, name: str, token: str) -> None:
        """Signal a workflow until that is acknowledged."""
        promises = self.journal.promises[workflow_id]
        promises.signals_sent.add(token)
        request = SignalWorkflowExecutionRequest(
            namespace=NAMESPACE,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            signal_name=name,
            input=payloads(token),
            request_id=str(uuid.uuid4()),
        )
        try:
            await self._call(client.workflow_service.signal_workflow_execution, request)
        except Refused as refusal:
            # The run has completed on an earlier attempt of this very signal, whose answer was lost.
            if refusal.first_attempt or refusal.status != RPCStatusCode.NOT_FOUND:
                self.journal.faults.append(f"signal {token} was refused: {refusal}")
            return
        promises.signals_acknowledged.add(token)
        self.journal.acknowledged["signal"] += 1

    async def _call(self, rpc: Rpc[Request, Reply], request: Request) -> Reply:
        # Not repeated by the SDK itself: a refusal says more where it is known to be of the first attempt.
        return await until_answered(self.journal.unanswered, lambda: rpc(request, timeout=_CALL_TIMEOUT))

    # --- activities -----------------------------------------------------------------------------------------------

    @activity.defn
    async def step(self, plan: StepPlan) -> str:
        """Do what an activity of an order does."""
        info = activity.info()
        self.journal.executed(info)
        await asyncio.sleep(self._dice.choice([0, 0, 0.01, 0.05]))
        if plan.fails_first and info.attempt == 1:
            raise ApplicationError("fails first", category=ApplicationErrorCategory.BENIGN)
        if plan.completes_later:
            self._run_beside(self._complete(info, time.monotonic()))
            activity.raise_complete_async()
        return str(uuid.uuid4())

    async def _complete(self, info: activity.Info, began: float) -> None:
        """Complete an activity by its token, from any client."""
        result = str(uuid.uuid4())
        request = RespondActivityTaskCompletedRequest(
            namespace=NAMESPACE, task_token=info.task_token, result=payloads(result), identity="later"
        )
        client = self._dice.choice(self._clients)
        try:
            await self._call(client.workflow_service.respond_activity_task_completed, request)
        except Refused as refusal:
            limit = START_TO_CLOSE_SECONDS - _FORGOTTEN_MARGIN_SECONDS
            if refusal.first_attempt and time.monotonic() - began < limit:
                what = f"attempt {info.attempt} of activity {info.activity_id} of {info.workflow_id}"
                self.journal.faults.append(f"{what} was forgotten: {refusal}")
            return
        assert info.workflow_id is not None
        self.journal.promises[info.workflow_id].activity_results[info.activity_id] = result
        self.journal.acknowledged["activity completion"] += 1

    def _run_beside(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.journal.faults.append(f"a client ended with {error!r}")


async def until_answered(unanswered: Counter[str], call: Callable[[], Awaitable[T]]) -> T:
    """Make a call until a server answers. Raises Refused, and after a minute what the last attempt met."""
    first_attempt = True
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except RPCError as error:
            if error.status in _REFUSALS:
                raise Refused(error, first_attempt=first_attempt) from error
            unanswered[error.status.name] += 1
            if time.monotonic() > deadline:
                raise
        first_attempt = False
        await asyncio.sleep(_PAUSE_SECONDS)


def _random_plan(dice: random.Random) -> OrderPlan:
    return OrderPlan(
        steps=[_random_step(dice) for _ in range(dice.randint(1, 3))],
        parcels=dice.choice([0, 1, 2]),
        signals=dice.randint(0, 2),
        sleep_milliseconds=dice.choice([0, 0, 50, 400]),
    )


def _random_step(dice: random.Random) -> StepPlan:
    once = dice.random() < 0.5
    return StepPlan(once=once, fails_first=not once and dice.random() < 0.3, completes_later=dice.random() < 0.4)
