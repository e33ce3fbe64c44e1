"""What a closing run still says to other workflows: to its children by their policies, to its parent how it ended.

Every close applies the parent close policies, continue-as-new and retries too: the successor knows nothing of the
children. The parent hears only of the last run of a chain. A child that is not known to have started is not started any
more, whatever its policy; its start may be under way all the same, so what follows it ends the child by its policy.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.enums.v1 import ParentClosePolicy

from perdure.server.core.events import Event
from perdure.server.core.machines.child import Child, State
from perdure.server.core.mail import send, withdraw
from perdure.server.core.messages import ChildClosedMessage, ParentClosedMessage
from perdure.server.core.records import WorkflowKey
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition

_ABANDON = ParentClosePolicy.PARENT_CLOSE_POLICY_ABANDON


def children_of(run: Run) -> Sequence[Child]:
    """Return the pending children, before the closing event drops them."""
    return () if run.mail is None else list(run.mail.children.values())


def part(t: Transition, closing_event: Event, children: Sequence[Child]) -> None:
    """Send what is to be said once the closing event is recorded."""
    for child in children:
        _leave(t, child)
    start = t.run.start
    if not start.parent_initiated_event_id or t.run.successor_run_id:
        return
    parent = start.parent_workflow_execution
    body = ChildClosedMessage(
        parent.run_id,
        start.parent_initiated_event_id,
        start.first_execution_run_id,
        closing_event.serialize(),
    )
    send(t, WorkflowKey(start.parent_workflow_namespace_id, parent.workflow_id), body)


def _leave(t: Transition, child: Child) -> None:
    receiver = WorkflowKey(t.run.key.namespace_id, child.workflow_id)
    policy = child.attributes.parent_close_policy
    if child.state is State.STARTED:
        if policy != _ABANDON:
            send(t, receiver, ParentClosedMessage(policy, child.run_id))
    elif withdraw(t, receiver, child.message):
        # To one that is abandoned too: what its start may have left in the inbox goes with this message.
        send(t, receiver, ParentClosedMessage(policy, child.run_id))
