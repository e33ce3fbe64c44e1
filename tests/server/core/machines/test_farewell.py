"""What a closing run still says: to its children by their parent close policies, to its parent only at the very end."""

from __future__ import annotations

import pytest
from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import ParentClosePolicy
from temporalio.api.history.v1 import (
    WorkflowExecutionCancelRequestedEventAttributes,
    WorkflowExecutionTerminatedEventAttributes,
)

from perdure.server.core.inputs import Delete
from perdure.server.core.messages import Answer, Outcome
from tests.server.core.commands import complete_workflow, continue_as_new, fail_workflow, retry_policy, start_child
from tests.server.core.machines.test_child import family, parent_in_town
from tests.server.core.story import Story
from tests.server.core.town import Town

_Policy = ParentClosePolicy
TERMINATE = _Policy.PARENT_CLOSE_POLICY_TERMINATE
ABANDON = _Policy.PARENT_CLOSE_POLICY_ABANDON
REQUEST_CANCEL = _Policy.PARENT_CLOSE_POLICY_REQUEST_CANCEL


def test_a_child_is_terminated_with_its_parent() -> None:
    town, parent, child = family()
    parent.decide(complete_workflow())
    town.deliver()
    terminated = child.last(WorkflowExecutionTerminatedEventAttributes)
    assert (terminated.reason, terminated.identity) == ("by parent close policy", "history-service")


def test_a_child_may_be_asked_to_cancel() -> None:
    town, parent, child = family(parent_close_policy=REQUEST_CANCEL)
    parent_run_id = parent.run.run_id
    parent.decide(complete_workflow())
    town.deliver()
    requested = child.last(WorkflowExecutionCancelRequestedEventAttributes)
    assert requested.external_workflow_execution == WorkflowExecution(workflow_id="parent", run_id=parent_run_id)
    assert (requested.identity, requested.external_initiated_event_id) == ("history-service", 0)


def test_an_abandoned_child_goes_on() -> None:
    town, parent, child = family(parent_close_policy=ABANDON)
    parent.decide(complete_workflow())
    assert town.outbox == []
    child.decide(complete_workflow())
    assert town.deliver() == [Answer(Outcome.CLOSED)]


@pytest.mark.parametrize("command", [continue_as_new(), fail_workflow()], ids=["continue-as-new", "retry"])
def test_the_policy_holds_also_where_a_run_follows(command: Command) -> None:
    town = Town()
    parent = town["parent"]
    parent.start(retry_policy=retry_policy(attempts=2))
    parent.decide(start_child())
    town.deliver()
    parent.decide(command)
    town.deliver()
    assert town["child"].names()[-1] == "WorkflowExecutionTerminated"


def test_the_policy_reaches_the_child_across_its_runs() -> None:
    town, parent, child = family()
    child.decide(continue_as_new())
    parent.terminate()
    town.deliver()
    assert child.names()[-1] == "WorkflowExecutionTerminated"


def test_another_run_under_the_childs_id_is_left_alone() -> None:
    town, parent, child = family()
    child.do(Delete(""))
    child.start()
    parent.terminate()
    town.deliver()
    assert child.names()[-1] == "WorkflowTaskScheduled"


def test_the_child_of_another_parent_is_left_alone() -> None:
    town, parent, child = family()
    child.terminate()
    town["second"].start()
    town["second"].decide(start_child())
    start = next(message for message in town.outbox if message.sender.workflow_id == "second")
    town.acknowledge(start, town.carry(start))
    parent.terminate()
    town.deliver()
    assert child.names()[-1] == "WorkflowTaskScheduled"


@pytest.mark.parametrize("policy", [TERMINATE, ABANDON, REQUEST_CANCEL])
def test_a_child_whose_start_is_not_delivered_is_not_started(policy: ParentClosePolicy.ValueType) -> None:
    town, parent = parent_in_town(start_child(parent_close_policy=policy))
    parent.terminate()
    town.deliver()
    assert town["child"].workflow.current is None


def test_a_child_of_the_closing_task_leaves_no_trace() -> None:
    town, _ = parent_in_town(start_child(), complete_workflow())
    assert town.outbox == []
    assert town.rows.children == []


def test_a_start_that_is_withdrawn_before_it_is_stored_leaves_no_trace() -> None:
    story = Story(cuts=False)
    story.start()
    story.decide(start_child())
    story.terminate()
    mail = story.cut().mail
    assert mail is not None
    assert (mail.outbox, mail.outbox_removed, mail.children) == ([], [], [])


@pytest.mark.parametrize(
    ("policy", "last"),
    [
        (TERMINATE, "WorkflowExecutionTerminated"),
        (REQUEST_CANCEL, "WorkflowExecutionCancelRequested"),
        (ABANDON, "WorkflowTaskScheduled"),
    ],
)
def test_a_child_whose_start_was_under_way_ends_by_its_policy(policy: ParentClosePolicy.ValueType, last: str) -> None:
    town, parent = parent_in_town(start_child(parent_close_policy=policy))
    start = town.outbox[0]
    answer = town.carry(start)
    parent.terminate()
    town.acknowledge(start, answer)
    town.deliver()
    assert town["child"].names()[-1] == last


def test_a_child_of_a_deleted_parent_is_told_all_the_same() -> None:
    town, parent, child = family()
    parent.do(Delete(""))
    town.deliver()
    assert child.names()[-1] == "WorkflowExecutionTerminated"


def test_a_child_that_is_deleted_tells_its_parent() -> None:
    town, parent, child = family()
    child.do(Delete(""))
    town.deliver()
    assert parent.names()[-1] == "ChildWorkflowExecutionTerminated"
