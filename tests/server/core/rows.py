"""What a store keeps of one workflow id, as plain rows; it checks each write and gives the runs back."""

from __future__ import annotations

from perdure.server.core.invariants import stored_difference
from perdure.server.core.messages import Message, message_of
from perdure.server.core.records import (
    ChildRecord,
    EntityWrite,
    InboxRecord,
    StoredActivity,
    StoredChild,
    StoredMessage,
    StoredRun,
    WorkflowKey,
)
from perdure.server.core.stored import restore
from perdure.server.core.workflow import Workflow
from perdure.server.store.memory.database import Change, Pending, Tables


class Rows:
    """The rows, in the tables of the in-memory store, which refuse what a database would."""

    def __init__(self) -> None:
        self._tables = Tables()

    def apply(self, write: EntityWrite) -> None:
        Change(self._tables, [write]).apply()

    def events(self, run_id: str) -> list[bytes]:
        events = self._tables.events.get(run_id, {})
        return [events[event_id].data for event_id in sorted(events)]

    def outbox(self) -> list[Message]:
        """Return the messages that are not acknowledged, as they are read from the store."""
        return [message_of(record) for _, record in sorted(self._tables.outbox.items())]

    @property
    def inbox(self) -> dict[tuple[str, str, str], InboxRecord]:
        """The rows of the inbox."""
        return self._tables.inbox

    @property
    def children(self) -> list[ChildRecord]:
        """The rows of pending children, of all runs."""
        return [child for pending in self._tables.pending.values() for child in pending.children.values()]

    def runs(self, key: WorkflowKey) -> list[StoredRun]:
        """Return every run of a workflow id as the store gives it back."""
        return [self._stored(run_id) for run_id, run in self._tables.runs.items() if run.workflow_id == key.workflow_id]

    def check_same(self, workflow: Workflow) -> None:
        """Check that every run in memory is what its rows say; right after a cut, they are the same."""
        assert not {run_id for run_id, run in workflow.runs.items() if run.changes.is_dirty}
        for run_id, run in workflow.runs.items():
            difference = stored_difference(run, restore(self._stored(run_id)))
            assert not difference, f"the rows of {run_id} are not the run: {difference}"
            assert run.stored_version == self._tables.runs[run_id].version

    def _stored(self, run_id: str) -> StoredRun:
        run = self._tables.runs[run_id]
        pending = self._tables.pending.get(run_id, Pending())
        events = self._tables.events[run_id]
        return StoredRun(
            run=run,
            started_event=events[1].data,
            activities=[
                StoredActivity(record, events[event_id].data) for event_id, record in sorted(pending.activities.items())
            ],
            timers=[timer for _, timer in sorted(pending.timers.items())],
            buffered=[event for _, event in sorted(pending.buffered.items())],
            request_ids=sorted(pending.request_ids),
            children=[
                StoredChild(record, events[event_id].data) for event_id, record in sorted(pending.children.items())
            ],
            messages=[
                StoredMessage(number, sent.kind, sent.initiated_event_id, events[sent.initiated_event_id].data)
                for (sender_run_id, number), sent in sorted(self._tables.outbox.items())
                if sender_run_id == run_id and sent.initiated_event_id
            ],
        )
