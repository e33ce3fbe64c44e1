"""A child from its parent's command to its end: what both sides record, and what may come in between."""

from __future__ import annotations

import msgspec
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Memo, Priority, SearchAttributes, WorkflowExecution
from temporalio.api.enums.v1 import (
    NamespaceState,
    ParentClosePolicy,
    StartChildWorkflowExecutionFailedCause,
    WorkflowIdReusePolicy,
)
from temporalio.api.history.v1 import (
    ChildWorkflowExecutionCanceledEventAttributes,
    ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes,
    ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTimedOutEventAttributes,
    StartChildWorkflowExecutionFailedEventAttributes,
    StartChildWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionStartedEventAttributes,
)
from temporalio.api.sdk.v1 import UserMetadata

from perdure.server.core.durations import duration_of
from perdure.server.core.messages import Answer, ChildClosedMessage, Outcome
from perdure.server.core.records import Relatives, RunRecord, WorkflowKey
from perdure.server.core.stored import listed_relatives, stored_run
from tests.server.core.commands import (
    SECOND,
    application_failure,
    cancel_external,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    payload,
    payloads,
    retry_policy,
    signal_external,
    start_child,
)
from tests.server.core.story import QUEUE, Story
from tests.server.core.town import Town

_Reuse = WorkflowIdReusePolicy
_Cause = StartChildWorkflowExecutionFailedCause
EXISTS = _Cause.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
NO_NAMESPACE = _Cause.START_CHILD_WORKFLOW_EXECUTION_FAILED_CAUSE_NAMESPACE_NOT_FOUND


def parent_in_town(*commands: Command) -> tuple[Town, Story]:
    """A parent that has decided these commands, nothing of which is delivered yet."""
    town = Town()
    town["parent"].start()
    town["parent"].decide(*commands)
    return town, town["parent"]


def family(**fields: object) -> tuple[Town, Story, Story]:
    """A parent and its child, started and known to be."""
    town, parent = parent_in_town(start_child("child", **fields))
    town.deliver()
    return town, parent, town["child"]


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_child_is_initiated_started_and_heard_of() -> None:
    _, parent, child = family()
    assert parent.names()[4:] == [
        "StartChildWorkflowExecutionInitiated",
        "ChildWorkflowExecutionStarted",
        "WorkflowTaskScheduled",
    ]
    assert child.names() == ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]


def test_the_first_events_have_the_defaults_filled_in() -> None:
    _, parent, child = family()
    initiated = parent.last(StartChildWorkflowExecutionInitiatedEventAttributes)
    assert (initiated.namespace, initiated.namespace_id) == ("default", parent.key.namespace_id)
    assert initiated.task_queue.name == QUEUE
    assert initiated.parent_close_policy == ParentClosePolicy.PARENT_CLOSE_POLICY_TERMINATE
    assert initiated.workflow_id_reuse_policy == _Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
    assert initiated.workflow_task_timeout == duration_of(10 * SECOND)
    assert initiated.workflow_task_completed_event_id == 4
    assert not initiated.HasField("workflow_execution_timeout")
    started = child.last(WorkflowExecutionStartedEventAttributes)
    assert not started.HasField("workflow_execution_timeout")
    assert started.HasField("priority")


def test_the_started_event_names_the_first_run() -> None:
    _, parent, child = family()
    started = parent.last(ChildWorkflowExecutionStartedEventAttributes)
    assert started.initiated_event_id == 5
    assert started.workflow_execution == WorkflowExecution(workflow_id="child", run_id=child.run.run_id)
    assert started.workflow_type.name == "Shipment"
    assert started.header.fields["trace"] == payload("7")


def test_the_child_knows_its_parent_and_its_root() -> None:
    town, parent, child = family()
    started = child.last(WorkflowExecutionStartedEventAttributes)
    me = WorkflowExecution(workflow_id="parent", run_id=parent.run.run_id)
    assert started.parent_workflow_execution == me
    assert started.root_workflow_execution == me
    assert (started.parent_workflow_namespace, started.parent_initiated_event_id) == ("default", 5)
    assert started.parent_workflow_namespace_id == parent.key.namespace_id
    assert started.header.fields["trace"] == payload("7")
    child.decide(start_child("grandchild"))
    town.deliver()
    grandchild = town["grandchild"].last(WorkflowExecutionStartedEventAttributes)
    assert grandchild.root_workflow_execution == me
    assert grandchild.parent_workflow_execution.workflow_id == "child"


def test_a_listed_row_names_the_parent_and_the_root() -> None:
    town, parent, child = family()
    child.decide(start_child("grandchild"))
    town.deliver()
    grandchild = town["grandchild"]
    assert listed_relatives(row_of(grandchild)) == Relatives(
        parent.key.namespace_id, "child", child.run.run_id, "parent", parent.run.run_id
    )
    assert listed_relatives(row_of(parent)) is None
    broken = row_of(grandchild)
    broken.state = b"broken"
    assert listed_relatives(broken) is None


def row_of(story: Story) -> RunRecord:
    return stored_run(story.run, story.history()).run


def test_the_child_gets_what_the_command_says() -> None:
    command = start_child(
        memo=Memo(fields={"note": payload("fragile")}),
        search_attributes=SearchAttributes(indexed_fields={"Colour": payload("red")}),
        cron_schedule="@every 5s",
        retry_policy=retry_policy(attempts=3),
        priority=Priority(fairness_key="mine"),
    )
    command.user_metadata.CopyFrom(UserMetadata(summary=payload("a shipment")))
    town = Town()
    town["parent"].start(priority=Priority(priority_key=2, fairness_key="parent's"))
    town["parent"].decide(command)
    town.deliver()
    child = town["child"]
    started = child.last(WorkflowExecutionStartedEventAttributes)
    assert started.input == payloads("parcel")
    assert started.memo.fields["note"] == payload("fragile")
    assert started.search_attributes.indexed_fields["Colour"].data == b'"red"'
    assert (started.cron_schedule, started.retry_policy.maximum_attempts) == ("@every 5s", 3)
    assert started.priority == Priority(priority_key=2, fairness_key="mine")
    assert child.run.user_metadata.summary == payload("a shipment")


def test_the_parent_describes_its_pending_children_and_the_child_its_parent() -> None:
    _, parent, child = family()
    [pending] = parent.describe().pending_children
    assert (pending.workflow_id, pending.run_id) == ("child", child.run.run_id)
    assert (pending.workflow_type_name, pending.initiated_id) == ("Shipment", 5)
    assert pending.parent_close_policy == ParentClosePolicy.PARENT_CLOSE_POLICY_TERMINATE
    info = child.describe().workflow_execution_info
    assert info.parent_execution == WorkflowExecution(workflow_id="parent", run_id=parent.run.run_id)
    assert info.parent_namespace_id == parent.key.namespace_id
    assert info.root_execution == info.parent_execution


def test_a_taken_id_fails_the_start() -> None:
    town = Town()
    town["child"].start()
    town["parent"].start()
    town["parent"].decide(start_child())
    assert town.deliver() == [Answer(Outcome.ID_TAKEN)]
    failed = town["parent"].last(StartChildWorkflowExecutionFailedEventAttributes)
    assert (failed.cause, failed.initiated_event_id, failed.workflow_id) == (EXISTS, 5, "child")
    assert failed.workflow_type.name == "Shipment"
    assert town["parent"].names()[-1] == "WorkflowTaskScheduled"


def test_the_parents_own_id_is_taken() -> None:
    town, parent = parent_in_town(start_child("parent"))
    assert town.outbox == []
    assert parent.last(StartChildWorkflowExecutionFailedEventAttributes).cause == EXISTS


def test_a_namespace_that_is_gone_is_named_as_the_cause() -> None:
    town, parent = parent_in_town(start_child())
    town.acknowledge(town.outbox[0], Answer(Outcome.NAMESPACE_NOT_FOUND))
    assert parent.last(StartChildWorkflowExecutionFailedEventAttributes).cause == NO_NAMESPACE


def test_no_child_starts_in_a_namespace_that_is_deleted() -> None:
    town, _ = parent_in_town(start_child())
    town["child"].namespace.state = NamespaceState.NAMESPACE_STATE_DELETED
    assert town.deliver() == [Answer(Outcome.NAMESPACE_NOT_FOUND)]
    assert town["child"].workflow.current is None


def test_reuse_policies_hold_for_children() -> None:
    town, parent, child = family()
    child.decide(complete_workflow())
    town.deliver()
    parent.decide(start_child(workflow_id_reuse_policy=_Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE))
    assert town.deliver() == [Answer(Outcome.ID_TAKEN)]
    parent.decide(start_child(workflow_id_reuse_policy=_Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE))
    assert town.deliver()[0].outcome is Outcome.DONE


def test_a_child_may_take_the_place_of_a_running_workflow() -> None:
    town = Town()
    before = town["child"].start()
    town["parent"].start()
    policy = _Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
    town["parent"].decide(start_child(workflow_id_reuse_policy=policy))
    town.deliver()
    assert town["child"].names(before.run_id)[-1] == "WorkflowExecutionTerminated"
    assert town["parent"].names()[-2] == "ChildWorkflowExecutionStarted"


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_result_reaches_the_parent() -> None:
    town, parent, child = family()
    child.decide(complete_workflow("shipped"))
    town.deliver()
    completed = parent.last(ChildWorkflowExecutionCompletedEventAttributes)
    assert completed.result == payloads("shipped")
    assert (completed.initiated_event_id, completed.started_event_id) == (5, 6)
    assert completed.workflow_execution == WorkflowExecution(workflow_id="child", run_id=child.run.run_id)
    assert completed.workflow_type.name == "Shipment"
    assert parent.describe().pending_children == []
    assert town.rows.children == []


def test_a_failure_reaches_the_parent() -> None:
    town, parent, child = family()
    child.decide(fail_workflow(application_failure("lost at sea")))
    town.deliver()
    failed = parent.last(ChildWorkflowExecutionFailedEventAttributes)
    assert failed.failure.message == "lost at sea"
    assert failed.retry_state


def test_a_cancellation_reaches_the_parent() -> None:
    town, parent, child = family()
    parent.decide(cancel_external("child", child_only=True))
    town.deliver()
    child.decide(cancel_workflow("as you wish"))
    town.deliver()
    assert parent.last(ChildWorkflowExecutionCanceledEventAttributes).details == payloads("as you wish")


def test_a_termination_reaches_the_parent() -> None:
    town, parent, child = family()
    child.terminate()
    town.deliver()
    assert parent.names()[-1] == "ChildWorkflowExecutionTerminated"


def test_a_timeout_reaches_the_parent() -> None:
    town, parent, child = family(workflow_run_timeout=duration_of(5 * SECOND))
    child.wait(6)
    town.deliver()
    assert parent.last(ChildWorkflowExecutionTimedOutEventAttributes).retry_state


def test_only_the_last_run_of_a_chain_speaks() -> None:
    town, parent, child = family()
    first_run_id = child.run.run_id
    child.decide(continue_as_new())
    assert town.outbox == []
    child.wait(2)
    child.decide(complete_workflow("after all"))
    town.deliver()
    completed = parent.last(ChildWorkflowExecutionCompletedEventAttributes)
    assert completed.workflow_execution.run_id == child.run.run_id != first_run_id


def test_a_retried_child_keeps_its_parent() -> None:
    town, parent, child = family(retry_policy=retry_policy(attempts=2))
    child.decide(fail_workflow())
    assert town.outbox == []
    child.wait(2)
    child.decide(fail_workflow())
    town.deliver()
    assert parent.names()[-1] == "ChildWorkflowExecutionFailed"


def test_a_cron_child_goes_on_until_it_is_terminated() -> None:
    town, parent, child = family(cron_schedule="@every 5s")
    for _ in range(2):
        child.wait(6)
        child.decide(complete_workflow())
    assert town.outbox == []
    child.terminate()
    town.deliver()
    assert parent.names()[-1] == "ChildWorkflowExecutionTerminated"


def test_a_child_may_end_before_its_parent_hears_that_it_started() -> None:
    town, parent = parent_in_town(start_child())
    start = town.outbox[0]
    answer = town.carry(start)
    town["child"].decide(complete_workflow())
    closed = next(message for message in town.outbox if message.receiver == parent.key)
    town.acknowledge(closed, town.carry(closed))
    assert parent.names()[-3:] == [
        "ChildWorkflowExecutionStarted",
        "ChildWorkflowExecutionCompleted",
        "WorkflowTaskScheduled",
    ]
    before = parent.names()
    town.acknowledge(start, answer)
    assert parent.names() == before
    assert town.outbox == []


def test_events_of_a_child_wait_behind_a_started_task_and_keep_their_order() -> None:
    town, parent = parent_in_town(start_child())
    parent.signal()
    task = parent.poll()
    start = town.outbox[0]
    town.acknowledge(start, town.carry(start))
    parent.crash()
    town["child"].decide(complete_workflow())
    town.deliver()
    parent.complete(task)
    assert parent.names()[-3:-1] == ["ChildWorkflowExecutionStarted", "ChildWorkflowExecutionCompleted"]
    completed = parent.last(ChildWorkflowExecutionCompletedEventAttributes)
    assert completed.started_event_id == parent.history()[-3].event_id


def test_a_started_event_that_was_buffered_is_known_by_its_id() -> None:
    town, parent = parent_in_town(start_child())
    parent.signal()
    task = parent.poll()
    town.deliver()
    parent.complete(task)
    parent.crash()
    town["child"].decide(complete_workflow())
    town.deliver()
    started_event_id = parent.names().index("ChildWorkflowExecutionStarted") + 1
    assert parent.last(ChildWorkflowExecutionCompletedEventAttributes).started_event_id == started_event_id


def test_another_run_under_the_childs_id_is_not_the_child() -> None:
    """The child is deleted without a word to its parent, and somebody else takes its id."""
    town, _, child = family()
    child.decide(complete_workflow())
    message = town.outbox[0]
    assert isinstance(message.body, ChildClosedMessage)
    message.body = msgspec.structs.replace(message.body, first_run_id="another first run")
    assert town.carry(message) == Answer(Outcome.NOT_FOUND)
    message = town.outbox[0]
    message.sender = WorkflowKey(child.key.namespace_id, "somebody else")
    assert town.carry(message) == Answer(Outcome.NOT_FOUND)


def test_a_parent_may_signal_its_child_only() -> None:
    town, parent, child = family()
    parent.decide(signal_external("child", child_only=True))
    town.deliver()
    assert "WorkflowExecutionSignaled" in child.names()


def test_a_pending_child_survives_a_crash() -> None:
    town, parent = parent_in_town(start_child())
    parent.crash()
    town.deliver()
    parent.crash()
    town["child"].decide(complete_workflow())
    town.deliver()
    assert parent.names()[5:] == [
        "ChildWorkflowExecutionStarted",
        "WorkflowTaskScheduled",
        "ChildWorkflowExecutionCompleted",
    ]
