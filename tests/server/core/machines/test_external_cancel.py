"""Cancel requests to other workflows: what both sides record, and every way to fail."""

from __future__ import annotations

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import CancelExternalWorkflowExecutionFailedCause
from temporalio.api.history.v1 import (
    ExternalWorkflowExecutionCancelRequestedEventAttributes,
    RequestCancelExternalWorkflowExecutionFailedEventAttributes,
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionCancelRequestedEventAttributes,
)

from perdure.server.core.errors import InvalidArgument
from perdure.server.core.messages import Answer, Outcome
from tests.server.core.commands import cancel_external, complete_workflow, continue_as_new, start_child
from tests.server.core.machines.test_external_signal import two
from tests.server.core.story import Story

_Cause = CancelExternalWorkflowExecutionFailedCause
NOT_FOUND = _Cause.CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
NO_NAMESPACE = _Cause.CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND


def failed_cause(story: Story) -> int:
    return story.last(RequestCancelExternalWorkflowExecutionFailedEventAttributes).cause


def test_a_request_is_initiated_delivered_and_heard_of() -> None:
    town, me, other = two()
    me.decide(cancel_external())
    assert me.names()[-1] == "RequestCancelExternalWorkflowExecutionInitiated"
    town.deliver()
    assert other.names()[-1] == "WorkflowExecutionCancelRequested"
    assert me.names()[-2:] == ["ExternalWorkflowExecutionCancelRequested", "WorkflowTaskScheduled"]


def test_its_events_say_what_temporals_say() -> None:
    town, me, other = two()
    me.decide(cancel_external())
    town.deliver()
    initiated = me.last(RequestCancelExternalWorkflowExecutionInitiatedEventAttributes)
    assert (initiated.workflow_task_completed_event_id, initiated.control) == (4, "control")
    assert initiated.reason == "not needed any more"
    requested = me.last(ExternalWorkflowExecutionCancelRequestedEventAttributes)
    assert (requested.initiated_event_id, requested.namespace) == (5, "default")
    assert requested.workflow_execution == WorkflowExecution(workflow_id="other")
    received = other.last(WorkflowExecutionCancelRequestedEventAttributes)
    assert (received.cause, received.identity) == ("not needed any more", "history-service")
    assert received.external_initiated_event_id == 5
    assert received.external_workflow_execution == WorkflowExecution(workflow_id="me", run_id=me.run.run_id)


def test_to_oneself_it_fails_at_once() -> None:
    town, me, _ = two()
    me.decide(cancel_external("me"))
    assert town.outbox == []
    assert failed_cause(me) == NOT_FOUND


def test_to_nobody_it_fails() -> None:
    town, me, _ = two()
    me.decide(cancel_external("nobody"))
    assert town.deliver() == [Answer(Outcome.NOT_FOUND)]
    assert failed_cause(me) == NOT_FOUND


def test_a_namespace_that_is_gone_is_named_as_the_cause() -> None:
    town, me, _ = two()
    me.decide(cancel_external())
    town.acknowledge(town.outbox[0], Answer(Outcome.NAMESPACE_NOT_FOUND))
    assert failed_cause(me) == NO_NAMESPACE


def test_to_ask_for_the_end_of_a_closed_run_is_a_success() -> None:
    town, me, other = two()
    other.decide(complete_workflow())
    me.decide(cancel_external(child_only=True))
    town.deliver()
    assert me.names()[-2] == "ExternalWorkflowExecutionCancelRequested"
    assert other.names()[-1] == "WorkflowExecutionCompleted"


def test_to_ask_twice_is_a_success_and_changes_nothing() -> None:
    town, me, other = two()
    other.cancel()
    me.decide(cancel_external())
    town.deliver()
    assert me.names()[-2] == "ExternalWorkflowExecutionCancelRequested"
    assert other.names().count("WorkflowExecutionCancelRequested") == 1


def test_without_a_run_id_it_finds_the_run_that_follows() -> None:
    town, me, other = two()
    me.decide(cancel_external())
    other.decide(continue_as_new())
    town.deliver()
    assert "WorkflowExecutionCancelRequested" in other.names()


def test_meant_for_a_child_only_it_does_not_reach_another() -> None:
    town, me, other = two()
    me.decide(cancel_external(child_only=True))
    town.deliver()
    assert failed_cause(me) == NOT_FOUND
    assert "WorkflowExecutionCancelRequested" not in other.names()


def test_a_child_cannot_be_cancelled_in_the_task_that_starts_it() -> None:
    town, me, _ = two()
    reply = me.decide(start_child("shipment"), cancel_external("shipment", child_only=True))
    assert isinstance(reply.refusal, InvalidArgument)
    assert "not allowed in same workflow task" in reply.refusal.message
    assert town.outbox == []


@pytest.mark.parametrize("closes", [False, True])
def test_a_pending_request_survives_a_crash(closes: bool) -> None:
    town, me, other = two()
    me.decide(cancel_external(), *([complete_workflow()] if closes else []))
    me.crash()
    town.deliver()
    assert other.names()[-1] == "WorkflowExecutionCancelRequested"
    assert ("ExternalWorkflowExecutionCancelRequested" in me.names()) is not closes
