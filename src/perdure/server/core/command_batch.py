"""The commands of one completed workflow task, checked as a whole before anything changes.

Commands of one task build on each other (start a timer, cancel it), so the checks keep a small sketch of what the state
will be. A bad command fails the task; since nothing was changed by then, there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.enums.v1 import CommandType, WorkflowTaskFailedCause
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.checks import BadCommand, RunFacts, check_attributes_set, check_command_sequence
from perdure.server.core.limits import Limits
from perdure.server.core.registry import command_rules
from perdure.server.core.run import Run


class Outgoing(msgspec.Struct, gc=False):
    """How many messages to other workflows will be pending, and which children this task starts."""

    children: int = 0
    external_signals: int = 0
    external_cancels: int = 0
    new_children: set[str] = set()


class IdsInUse(msgspec.Struct, gc=False):
    """The ids of what is pending: those the run holds, and what the commands before have changed about them.

    Nothing is copied: a run may hold thousands, and most tasks touch few.
    """

    held: Container[str]
    changed: dict[str, bool] = {}

    def __contains__(self, name: str) -> bool:
        """Return whether the id is in use."""
        changed = self.changed.get(name)
        return name in self.held if changed is None else changed

    def add(self, name: str) -> None:
        """Note that an id comes into use."""
        self.changed[name] = True

    def remove(self, name: str) -> None:
        """Note that an id is free."""
        self.changed[name] = False


class CommandBatch(msgspec.Struct, gc=False):
    """What the checks of one task's commands know and keep."""

    run: Run
    facts: RunFacts
    limits: Limits
    now: int
    timer_ids: IdsInUse
    activity_ids: IdsInUse
    new_activities: dict[int, str]
    """Activities scheduled by this task: future event id to activity id."""
    canceled_activities: set[int]
    next_command_event_id: int
    buffered_left: int
    retracted_timers: set[str] = set()
    """Timers that fired into the buffer and are cancelled by this task."""
    _outgoing: Outgoing | None = None

    @property
    def outgoing(self) -> Outgoing:
        """What the run has to do with other workflows; counted for the first command that asks."""
        if self._outgoing is None:
            mail = self.run.mail
            self._outgoing = Outgoing()
            if mail is not None:
                self._outgoing.children = len(mail.children)
                self._outgoing.external_signals = len(mail.external_signals)
                self._outgoing.external_cancels = len(mail.external_cancels)
        return self._outgoing


def metadata_of(command: Command) -> UserMetadata | None:
    """Return the summary and details that came with a command."""
    return command.user_metadata if command.HasField("user_metadata") else None


def check_commands(
    run: Run, commands: Sequence[Command], facts: RunFacts, limits: Limits, now: int, first_event_id: int
) -> CommandBatch:
    """Check all commands of a completed task, in order.

    Args:
        run: The run, unchanged by this.
        commands: As the worker sent them.
        facts: What the checks need to know of the run and its namespace.
        limits: The namespace's limits.
        now: The time of the step.
        first_event_id: The id the first event of these commands will get.

    Returns:
        What the checks found.

    Raises:
        BadCommand: With the cause the workflow task fails for.
        InvalidArgument: The worker speaks another protocol; the task stays started.
    """
    batch = CommandBatch(
        run=run,
        facts=facts,
        limits=limits,
        now=now,
        timer_ids=IdsInUse(run.timers),
        activity_ids=IdsInUse(run.activity_ids),
        new_activities={},
        canceled_activities=set(),
        next_command_event_id=first_event_id,
        buffered_left=len(run.buffered),
    )
    check_command_sequence(commands)
    for command in commands:
        check_attributes_set(command)
        rule = command_rules.get(command.command_type)
        if rule is None:
            name = CommandType.Name(command.command_type)
            raise BadCommand(
                WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FEATURE_DISABLED,
                f"this server does not know the command {name}; see docs/compatibility.md",
            )
        if rule.closes_run and batch.buffered_left:
            raise BadCommand(WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND)
        rule.check(batch, command)
        batch.next_command_event_id += 1
    return batch
