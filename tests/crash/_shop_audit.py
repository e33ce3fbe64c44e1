"""What must be true of the shop in the end: every promise kept, every message taken in once, by the clients' own looks.

The two ends of each message are compared: what its sender's history says was delivered is in its receiver's once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from tests.crash._audit import Promises, audit, audit_form
from tests.crash._plan import value_of
from tests.crash._shop import CLOSE, LEDGER_ID, OrderPlan, parcel_id
from tests.crash._shop_load import ShopJournal

_COMPLETED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
_CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW

Events = Sequence[HistoryEvent]


async def audit_shop(client: Client, journal: ShopJournal) -> list[str]:
    """Return every way in which the shop breaks what it was promised. All orders have completed, and the ledger."""
    faults: list[str] = []
    entries: set[str] = set()
    for order_id, plan in journal.plans.items():
        order = await _events(client, order_id, journal.promises[order_id].run_id)
        names = [parcel_id(order_id, number) for number in range(plan.parcels)]
        parcels = {name: await _events(client, name) for name in names}
        faults += audit_order(order_id, plan, order, parcels, journal.promises[order_id])
        faults += _audit_result(order_id, plan, journal.results.get(order_id))
        entries |= {order_id, *names}
    faults += audit_ledger(await _ledger(client, journal.promises[LEDGER_ID].run_id), entries)
    if journal.entries_seen != len(entries):
        faults.append(f"the ledger has seen {journal.entries_seen} entries, not {len(entries)}")
    faults += [fault async for fault in _second_runs(client)]
    return faults


def audit_order(
    order_id: str, plan: OrderPlan, order: Events, parcels: Mapping[str, Events], promises: Promises
) -> list[str]:
    """Audit the histories of an order and of its parcels, and of what they said to each other."""
    faults: list[str] = []
    delivered = _delivered(order)
    for name, events in parcels.items():
        promised = Promises(signals_sent={name}, signals_acknowledged={name} & delivered)
        faults += audit(name, events, promised)
        promises.signals_sent.add(name)
        promises.signals_acknowledged |= {name} & _delivered_to(order_id, events)
    return faults + audit(order_id, order, promises)


def audit_ledger(runs: Sequence[Events], entries: set[str]) -> list[str]:
    """Audit the chain of the ledger's runs: every entry is in it once."""
    faults: list[str] = []
    for number, events in enumerate(runs):
        closing = _COMPLETED if number == len(runs) - 1 else _CONTINUED
        faults += [f"run {number} of the ledger: {fault}" for fault in audit_form(events, closing)]
    taken = Counter(token for events in runs for token in _signals(events))
    faults += [
        f"the entry {token} is in the ledger {taken[token]} times" for token in sorted(entries) if taken[token] != 1
    ]
    faults += [f"the entry {token} was never made" for token in sorted(taken.keys() - entries - {CLOSE})]
    return faults


def _audit_result(order_id: str, plan: OrderPlan, result: Sequence[str] | None) -> Iterator[str]:
    """What the workflow itself has seen, each signal once."""
    expected = [f"{order_id}/approval-{number}" for number in range(plan.signals)]
    expected += [parcel_id(order_id, number) for number in range(plan.parcels)]
    if sorted(result or ()) != sorted(expected):
        yield f"{order_id}: it has seen the signals {result}, not {expected}"


def _delivered(events: Events) -> set[str]:
    """Return the tokens of all signals that a history says were delivered."""
    return {token for token, _ in _sent(events)}


def _delivered_to(workflow_id: str, events: Events) -> set[str]:
    return {token for token, receiver in _sent(events) if receiver == workflow_id}


def _sent(events: Events) -> Iterator[tuple[str, str]]:
    by_id = {event.event_id: event for event in events}
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED:
            signaled = event.external_workflow_execution_signaled_event_attributes
            initiated = by_id[signaled.initiated_event_id]
            attributes = initiated.signal_external_workflow_execution_initiated_event_attributes
            yield value_of(attributes.input), attributes.workflow_execution.workflow_id


def _signals(events: Events) -> list[str]:
    return [
        value_of(event.workflow_execution_signaled_event_attributes.input)
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]


async def _events(client: Client, workflow_id: str, run_id: str | None = None) -> list[HistoryEvent]:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    return [event async for event in handle.fetch_history_events()]


async def _ledger(client: Client, run_id: str) -> list[list[HistoryEvent]]:
    """Return the histories of all runs of the ledger."""
    runs: list[list[HistoryEvent]] = []
    while run_id:
        runs.append(await _events(client, LEDGER_ID, run_id))
        run_id = runs[-1][-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return runs


async def _second_runs(client: Client) -> AsyncIterator[str]:
    runs = Counter([run.id async for run in client.list_workflows("WorkflowType = 'Order' OR WorkflowType = 'Parcel'")])
    for workflow_id, count in runs.items():
        if count > 1:
            yield f"{workflow_id}: it was started {count} times"
