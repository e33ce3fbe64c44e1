"""Signals to other workflows: what both sides record, and every way to fail."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import SignalExternalWorkflowExecutionFailedCause
from temporalio.api.history.v1 import (
    ExternalWorkflowExecutionSignaledEventAttributes,
    SignalExternalWorkflowExecutionFailedEventAttributes,
    SignalExternalWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionSignaledEventAttributes,
)

from perdure.server.core.errors import ResourceExhausted
from perdure.server.core.messages import Answer, Outcome
from tests.server.core.commands import complete_workflow, continue_as_new, payloads, signal_external, start_timer
from tests.server.core.story import Story
from tests.server.core.town import Town

_Cause = SignalExternalWorkflowExecutionFailedCause
NOT_FOUND = _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
TOO_MANY = _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_SIGNAL_COUNT_LIMIT_EXCEEDED
NO_NAMESPACE = _Cause.SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND


def two(**limits: int) -> tuple[Town, Story, Story]:
    """A town in which `me` and `other` run."""
    town = Town()
    town["me"].start()
    town["other"].start()
    return town, town["me"], town["other"]


def failed_cause(story: Story) -> int:
    return story.last(SignalExternalWorkflowExecutionFailedEventAttributes).cause


def test_a_signal_is_initiated_delivered_and_heard_of() -> None:
    town, me, other = two()
    me.decide(signal_external())
    assert me.names()[-2:] == ["WorkflowTaskCompleted", "SignalExternalWorkflowExecutionInitiated"]
    town.deliver()
    assert other.names()[-1] == "WorkflowExecutionSignaled"
    assert me.names()[-2:] == ["ExternalWorkflowExecutionSignaled", "WorkflowTaskScheduled"]


def test_its_events_say_what_temporals_say() -> None:
    town, me, other = two()
    me.decide(signal_external())
    town.deliver()
    initiated = me.last(SignalExternalWorkflowExecutionInitiatedEventAttributes)
    assert initiated.workflow_task_completed_event_id == 4
    assert initiated.namespace_id == me.key.namespace_id
    assert (initiated.signal_name, initiated.control) == ("ping", "control")
    assert initiated.input == payloads("ball")
    signaled = me.last(ExternalWorkflowExecutionSignaledEventAttributes)
    assert (signaled.initiated_event_id, signaled.namespace, signaled.control) == (5, "default", "control")
    assert signaled.workflow_execution == WorkflowExecution(workflow_id="other")
    received = other.last(WorkflowExecutionSignaledEventAttributes)
    assert (received.signal_name, received.identity) == ("ping", "history-service")
    assert received.input == payloads("ball")
    assert received.header == initiated.header
    sender = WorkflowExecution(workflow_id="me", run_id=me.run.run_id)
    assert received.external_workflow_execution == sender


def test_signals_of_one_task_arrive_in_their_order() -> None:
    town, me, other = two()
    me.decide(*(signal_external(name=f"s{number}") for number in range(5)))
    town.deliver()
    received = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in other.history()
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert received == [f"s{number}" for number in range(5)]


def test_the_answer_waits_behind_a_started_workflow_task() -> None:
    town, me, _ = two()
    me.decide(signal_external(), start_timer())
    me.signal()
    task = me.poll()
    town.deliver()
    assert "ExternalWorkflowExecutionSignaled" not in me.names()
    me.complete(task)
    assert me.names()[-2:] == ["ExternalWorkflowExecutionSignaled", "WorkflowTaskScheduled"]


def test_to_oneself_it_fails_at_once() -> None:
    town, me, _ = two()
    me.decide(signal_external("me"))
    assert town.outbox == []
    assert failed_cause(me) == NOT_FOUND
    assert me.names()[-1] == "WorkflowTaskScheduled"


def test_to_nobody_it_fails() -> None:
    town, me, _ = two()
    me.decide(signal_external("nobody"))
    assert town.deliver() == [Answer(Outcome.NOT_FOUND)]
    assert failed_cause(me) == NOT_FOUND


def test_to_a_closed_run_it_fails() -> None:
    town, me, other = two()
    other.decide(complete_workflow())
    me.decide(signal_external())
    assert town.deliver() == [Answer(Outcome.CLOSED)]
    assert failed_cause(me) == NOT_FOUND


def test_without_a_run_id_it_finds_the_run_that_follows() -> None:
    town, me, other = two()
    me.decide(signal_external())
    other.decide(continue_as_new())
    town.deliver()
    assert "WorkflowExecutionSignaled" in other.names()


def test_with_the_id_of_a_run_that_was_continued_it_fails() -> None:
    town, me, other = two()
    me.decide(signal_external(run_id=other.run.run_id))
    other.decide(continue_as_new())
    assert town.deliver() == [Answer(Outcome.CLOSED)]


def test_a_run_that_took_as_many_signals_as_it_may_takes_no_more() -> None:
    town, me, other = two()
    other.limits = other.limits.__class__(signals_per_execution=1)
    me.decide(signal_external(name="one"), signal_external(name="two"))
    assert [answer.outcome for answer in town.deliver()] == [Outcome.DONE, Outcome.LIMIT_EXCEEDED]
    assert failed_cause(me) == TOO_MANY


def test_a_namespace_that_is_gone_is_named_as_the_cause() -> None:
    town, me, _ = two()
    me.decide(signal_external())
    town.acknowledge(town.outbox[0], Answer(Outcome.NAMESPACE_NOT_FOUND))
    assert failed_cause(me) == NO_NAMESPACE


def test_meant_for_a_child_only_it_does_not_reach_another() -> None:
    town, me, _ = two()
    me.decide(signal_external(child_only=True))
    assert town.deliver() == [Answer(Outcome.NOT_FOUND)]


def test_a_signal_of_a_run_that_closes_is_delivered_all_the_same() -> None:
    town, me, other = two()
    me.decide(signal_external(), complete_workflow())
    town.deliver()
    assert other.names()[-1] == "WorkflowExecutionSignaled"
    assert me.names()[-1] == "WorkflowExecutionCompleted"


def test_a_pending_signal_survives_a_crash() -> None:
    town, me, _ = two()
    me.decide(signal_external())
    me.crash()
    town.deliver()
    assert me.names()[-2] == "ExternalWorkflowExecutionSignaled"


def test_a_run_that_tries_to_close_takes_no_signal_until_it_is_decided() -> None:
    """Else others could keep it from it for ever. The message is not answered, and comes again."""
    town, me, other = two()
    task = other.poll()
    other.signal("too early for the end")
    assert other.complete(task, complete_workflow()).refusal is not None
    task = other.poll()
    me.decide(signal_external())
    [message] = town.outbox
    with pytest.raises(ResourceExhausted, match="workflow is closing"):
        town.carry(message)
    other.complete(task, complete_workflow())
    assert not other.run.is_open
    assert [answer.outcome for answer in town.deliver()] == [Outcome.CLOSED]
    assert failed_cause(me) == NOT_FOUND
