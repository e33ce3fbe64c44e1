"""What the outside world was told, to be held against what the database says in the end.

Whoever was told that something is done can rely on it: it is there, and once. Whoever was refused can rely on that too.
Only of calls that failed or broke off nothing is known but that they were not done twice.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec
from temporalio.api.history.v1 import HistoryEvent

from perdure.server.core.records import WorkflowKey


class Fate(Enum):
    """What a caller knows of its call."""

    UNKNOWN = auto()
    ACKNOWLEDGED = auto()
    REFUSED = auto()


class Answer(msgspec.Struct):
    """A worker's answer; its identity is unlike any other, and the event it leads to carries it."""

    run_id: str
    event_field: str
    fate: Fate = Fate.UNKNOWN
    history: list[HistoryEvent] = []
    """For a workflow task: the events the worker decided on."""


class SentSignal(msgspec.Struct):
    """A signal and whether it was acknowledged; its name is unlike any other."""

    key: WorkflowKey
    run_id: str
    """Empty where it was for the current run."""
    fate: Fate = Fate.UNKNOWN


class StartedRun(msgspec.Struct):
    """A start that was acknowledged."""

    key: WorkflowKey
    run_id: str
    request_id: str


class Ledger:
    """Everything the outside world knows."""

    def __init__(self) -> None:
        self.starts: list[StartedRun] = []
        self.answers: dict[str, Answer] = {}
        self.signals: dict[str, SentSignal] = {}
        self.deleted: set[str] = set()
        """Runs whose deletion was asked for: no more is expected of them."""
        self.deletes_acknowledged: set[str] = set()
        self.terminated: set[str] = set()
        """Runs whose termination was acknowledged."""
        self.seen_histories: list[tuple[str, list[HistoryEvent]]] = []
        """Run id and the events a client was told, from the first on."""
        self._given_activities: dict[tuple[str, int, int], str] = {}

    def give_activity(self, run_id: str, scheduled_event_id: int, attempt: int, worker: str) -> None:
        """Note that a worker received an attempt of an activity; nobody else may have."""
        key = (run_id, scheduled_event_id, attempt)
        other = self._given_activities.get(key)
        assert other is None, f"attempt {attempt} of activity {scheduled_event_id} of {run_id}: {other} and {worker}"
        self._given_activities[key] = worker

    @property
    def given_activities(self) -> dict[tuple[str, int, int], str]:
        """Who received which attempt: (run id, scheduled event id, attempt) to worker."""
        return self._given_activities
