"""The story, act by act: what is told is done while it is told, and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from examples.orders import history, sql
from examples.orders.model import Order, OrderLine, Receipt
from examples.orders.processes import Process
from examples.orders.stage import Stage, check, say, say_lines
from examples.orders.workers import WORKFLOWS
from examples.orders.workflows import GreetingWorkflow, OrderWorkflow

GREETING_ID = "greeting-1"
ORDER_ID = "order-1001"
ORDER = Order(
    order_id="1001",
    customer="Ada",
    lines=[OrderLine("notebook", 3, 450), OrderLine("fountain pen", 1, 2900)],
)
RECEIPT = Receipt("1001", 3 * 450 + 2900, "reservation-1001", "payment-1001", "parcel-1001")

# How long a worker may take to answer a workflow task before another gets it; the default is 10 seconds. A worker whose
# code fails twice in a row stays silent, so the fixed release waits this long for the task of the one with the bug.
TASK_TIMEOUT = timedelta(seconds=2)

QUERY_TIMEOUT = timedelta(seconds=3)

OrderHandle = WorkflowHandle[OrderWorkflow, Receipt]


async def tell(stage: Stage) -> None:
    """Tell the whole story. Raises NotAsTold as soon as something is not as told."""
    heading("A server on an SQLite file")
    server = stage.start_server()
    client = await stage.connect()
    say(f"  database {stage.database}")
    await one_activity(stage, client)
    order = await nobody_is_there(stage, client)
    buggy = await the_bug(stage, order)
    worker = await the_fix(stage, order, buggy)
    await the_worker_dies(stage, order, worker)
    await the_server_dies(stage, order, server)
    await the_end(stage, order)


async def one_activity(stage: Stage, client: Client) -> None:
    """Run a workflow with one activity and explain its history."""
    heading("A workflow with one activity: 11 events, 7 state transitions")
    workflows = stage.start_worker("workflows")
    stage.start_worker("activities")
    handle = await client.start_workflow(GreetingWorkflow.run, "Ada", id=GREETING_ID, task_queue=WORKFLOWS)
    check("the greeting", expected="Hello, Ada!", seen=await handle.result())
    events = [event async for event in handle.fetch_history_events()]
    say_lines(history.tell(events))
    check("events of a one-activity run", expected=11, seen=len(events))
    counted = transition_count(await handle.describe())
    check("state transitions the server counted", expected=7, seen=counted)
    check("state transitions the history shows", expected=counted, seen=len(history.transitions(events)))
    say("")
    say("Seven changes, each stored as a whole. A result and the task it makes are one change: there is no moment")
    say("in which the result is known and nobody is told. The fourth wrote no event: that an activity was started is")
    say("kept in the run's state, with its attempts, and goes into the history together with the outcome.")
    stage.stop(workflows)


async def nobody_is_there(stage: Stage, client: Client) -> OrderHandle:
    """Start the order while no worker runs workflow code."""
    heading("An order arrives, and no worker is there to take it")
    handle = await client.start_workflow(
        OrderWorkflow.run, ORDER, id=ORDER_ID, task_queue=WORKFLOWS, task_timeout=TASK_TIMEOUT
    )
    say("The start is acknowledged, so it is stored. The first task waits on the server:")
    rows = stage.show(sql.WAITING_TASKS)
    check("the tasks that wait", expected=[(ORDER_ID, WORKFLOWS)], seen=cells(rows, "workflow_id", "ready_in_queue"))
    return handle


async def the_bug(stage: Stage, order: OrderHandle) -> Process:
    """Let the release with the bug have the order."""
    heading("A worker takes it, and its release has a bug")
    buggy = stage.start_worker("buggy-workflows")

    async def failure() -> str | None:
        async for event in order.fetch_history_events():
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                return event.workflow_task_failed_event_attributes.failure.message
        return None

    message = await stage.until("the workflow task fails", failure)
    check("the failure of the workflow task", expected="list index out of range", seen=message)
    say(f"The goods are reserved, then the workflow's code fails: {message}.")
    say("The task failed, the order did not: it waits for a worker that can do better. What does it wait for, and why?")
    rows = stage.show(sql.WAITING)
    check("what waits", expected=[(ORDER_ID, "workflow task")], seen=cells(rows, "workflow_id", "waits_for"))
    return buggy


async def the_fix(stage: Stage, order: OrderHandle, buggy: Process) -> Process:
    """Replace the worker by the fixed release, which carries on with the same run."""
    heading("The fixed release takes over the same run")
    stage.stop(buggy)
    fixed = stage.start_worker("workflows")
    await status(stage, order, "waiting for approval")
    say("It ran the code again from the first line; the reservation came from the history, not from the activity.")
    say("A query asks it where the order is: waiting for approval.")
    return fixed


async def the_worker_dies(stage: Stage, order: OrderHandle, worker: Process) -> None:
    """Kill the worker, signal the order while nobody is there, and start another worker."""
    heading("The worker is killed, the approval comes, another worker goes on")
    stage.kill(worker)
    say("  kill -9 of the workflow worker")
    await order.signal(OrderWorkflow.approve, "Grace")
    say("The signal is acknowledged, so it is stored, although no worker can see it yet.")
    stage.start_worker("workflows")

    async def second_attempt() -> bool | None:
        pending = (await order.describe()).raw_description.pending_activities
        return True if any(activity.attempt > 1 and activity.HasField("last_failure") for activity in pending) else None

    await stage.until("charging the card fails and is retried", second_attempt)
    say("The new worker knows of the approval and charges the card. That fails, and the server will try again:")
    rows = stage.show(sql.PENDING_ACTIVITIES)
    failed = [("charge_card", "the bank does not answer")]
    check("the pending activities", expected=failed, seen=cells(rows, "activity_type", "last_failure"))


async def the_server_dies(stage: Stage, order: OrderHandle, server: Process) -> None:
    """Kill the server while a timer of the order runs, and start it again on the same file."""
    heading("The server is killed while the order waits for a timer")
    await status(stage, order, "packing")
    stage.kill(server)
    say("  kill -9 of the server. The file is what is left, and it can still be asked:")
    rows = stage.show(sql.TIMERS)
    check("the timers that run", expected=[(ORDER_ID,)], seen=cells(rows, "workflow_id"))
    stage.start_server()
    await stage.connect()


async def the_end(stage: Stage, order: OrderHandle) -> None:
    """See the order complete and print its history."""
    heading("The order completes")

    async def receipt() -> Receipt | None:
        described = await order.describe()
        return await order.result() if described.status == WorkflowExecutionStatus.COMPLETED else None

    seen = await stage.until("the order completes", receipt)
    check("the receipt", expected=RECEIPT, seen=seen)
    say(f"  {seen}")
    say("")
    events = [event async for event in order.fetch_history_events()]
    say_lines(history.tell(events))
    say("")
    shown = len(history.transitions(events))
    counted = transition_count(await order.describe())
    say(f"The server counted {counted} state transitions, of which the history shows {shown}. The others changed the")
    say("state only: attempts of the card and of the failed workflow task that were started, failed or timed out.")
    say("")
    say("The same in SQL:")
    rows = stage.show(sql.WORKFLOWS)
    expected = [(GREETING_ID, "Completed", "11", "7"), (ORDER_ID, "Completed", str(len(events)), str(counted))]
    columns = ("workflow_id", "status", "history_length", "state_transition_count")
    check("the workflows in the database", expected=expected, seen=cells(rows, *columns))
    stage.show(sql.HISTORY)
    once = ["reserve_goods", "charge_card", "ship_parcel"]
    check("each activity completed once", expected=once, seen=activities_completed(events))


async def status(stage: Stage, order: OrderHandle, expected: str) -> None:
    """Query the order until it is where it should be."""

    async def look() -> str | None:
        try:
            seen = await order.query(OrderWorkflow.status, rpc_timeout=QUERY_TIMEOUT)
        except RPCError:
            return None
        return seen if seen == expected else None

    await stage.until(f"the order says that it is {expected}", look)


def transition_count(run: WorkflowExecutionDescription) -> int:
    """Return how many state transitions the server counted for a run."""
    return run.raw_description.workflow_execution_info.state_transition_count


def activities_completed(events: Sequence[HistoryEvent]) -> list[str]:
    """Return the types of the activities that a history shows as completed, in that order."""
    names = {
        event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    }
    return [
        names[event.activity_task_completed_event_attributes.scheduled_event_id]
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    ]


def cells(rows: Sequence[Mapping[str, str]], *columns: str) -> list[tuple[str, ...]]:
    """Return some columns of the rows of an answer."""
    return [tuple(row[column] for column in columns) for row in rows]


def heading(text: str) -> None:
    """Begin an act."""
    say("")
    say(text)
    say("=" * len(text))
