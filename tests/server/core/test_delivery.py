"""Messages are lost by nobody, done once, and leave nothing behind: whatever comes twice, late, or after its sender."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import ParentClosePolicy

from perdure.server.core.effects import MessageSent, MessageWithdrawn
from perdure.server.core.inputs import Delete
from perdure.server.core.messages import Answer, Outcome, kind_of, message_of, outbox_record
from perdure.server.core.records import MailWrite
from tests.server.core.commands import (
    cancel_external,
    complete_workflow,
    continue_as_new,
    signal_external,
    start_child,
    start_timer,
)
from tests.server.core.machines.test_child import family, parent_in_town
from tests.server.core.machines.test_external_signal import two
from tests.server.core.story import Story
from tests.server.core.town import Town


def signals(story: Story) -> int:
    return story.names().count("WorkflowExecutionSignaled")


def last_mail(story: Story) -> MailWrite:
    mail = story.writes[-1].mail
    assert mail is not None
    return mail


def test_a_run_that_sends_nothing_has_no_mail() -> None:
    story = Story()
    story.start()
    story.decide(start_timer())
    assert story.run.mail is None
    assert all(write.mail is None for write in story.writes)


def test_a_message_is_stored_with_the_step_that_sends_it() -> None:
    _, me, _ = two()
    me.decide(signal_external(), cancel_external(), start_child())
    write = last_mail(me)
    assert [(record.number, record.kind) for record in write.outbox] == [
        (1, "signal"),
        (2, "request cancel"),
        (3, "start child"),
    ]
    assert [effect.message for effect in me.effects_of(MessageSent)] == [message_of(each) for each in write.outbox]


def test_a_message_survives_its_row() -> None:
    town, me, _ = two()
    me.decide(signal_external())
    [message] = [effect.message for effect in me.effects_of(MessageSent)]
    assert message_of(outbox_record(message)) == message
    assert kind_of(message.body) == "signal"
    assert town.outbox == [message]


def test_the_numbers_of_a_run_go_on_rising_after_a_crash() -> None:
    town, me, _ = two()
    me.decide(signal_external())
    town.deliver()
    me.crash()
    me.decide(signal_external(), signal_external())
    assert [message.number for message in town.outbox] == [2, 3]


def test_an_effect_and_the_inbox_row_are_one_write() -> None:
    town, me, other = two()
    me.decide(signal_external())
    town.carry(town.outbox[0])
    [row] = last_mail(other).inbox
    assert (row.sender_run_id, row.workflow_id, row.number) == (me.run.run_id, "other", 1)
    assert row.run_id == other.run.run_id


def test_a_message_that_comes_again_is_answered_from_the_inbox() -> None:
    town, me, other = two()
    me.decide(signal_external())
    first = town.carry(town.outbox[0])
    assert town.carry(town.outbox[0]) == first == Answer(Outcome.DONE, other.run.run_id)
    assert signals(other) == 1


def test_it_is_known_also_after_the_receiver_was_continued_as_new() -> None:
    town, me, other = two()
    me.decide(signal_external())
    first = town.carry(town.outbox[0])
    other.decide(continue_as_new())
    assert town.carry(town.outbox[0]) == first
    assert signals(other) == 0


def test_it_is_known_also_after_the_receiver_was_deleted() -> None:
    town, _ = parent_in_town(start_child())
    message = town.outbox[0]
    first = town.carry(message)
    town["child"].do(Delete(""))
    assert town.carry(message) == first
    assert town["child"].workflow.current is None


def test_an_effect_that_did_not_become_durable_is_made_again() -> None:
    town, me, other = two()
    me.decide(signal_external())
    other.cuts = False
    town.carry(town.outbox[0])
    other.crash()
    other.cuts = True
    town.carry(town.outbox[0])
    assert signals(other) == 1


def test_a_refusal_leaves_no_row_and_is_decided_anew() -> None:
    town, me, _ = two()
    me.decide(signal_external("nobody"))
    assert town.carry(town.outbox[0]) == Answer(Outcome.NOT_FOUND)
    assert town.rows.inbox == {}
    town["nobody"].start()
    assert town.carry(town.outbox[0]).outcome is Outcome.DONE


def test_an_acknowledgement_ends_the_message_on_both_sides_in_one_write() -> None:
    town, me, _ = two()
    me.decide(signal_external())
    town.acknowledge(town.outbox[0], town.carry(town.outbox[0]))
    assert [event.event_id for event in me.writes[-1].events] == [6, 7]
    write = last_mail(me)
    assert write.outbox_removed == [(me.run.run_id, 1)]
    assert write.inbox_removed == [(me.run.run_id, me.key.namespace_id, "other", 1)]
    assert town.outbox == []
    assert town.rows.inbox == {}


def test_an_acknowledgement_that_did_not_become_durable_comes_again() -> None:
    town, me, other = two()
    me.decide(signal_external())
    message = town.outbox[0]
    me.cuts = False
    town.acknowledge(message, town.carry(message))
    me.crash()
    me.cuts = True
    town.deliver()
    assert me.names()[-2:] == ["ExternalWorkflowExecutionSignaled", "WorkflowTaskScheduled"]
    assert signals(other) == 1


def test_a_late_end_of_a_message_takes_no_later_one_with_it() -> None:
    town, me, other = two()
    me.decide(signal_external(name="one"), signal_external(name="two"))
    one, second = town.outbox
    town.acknowledge(one, town.carry(one))
    town.carry(second)
    town.acknowledge(one)
    assert [row.number for row in town.rows.inbox.values()] == [2]
    town.deliver()
    assert signals(other) == 2


def test_a_closed_sender_just_drops_the_row() -> None:
    town, me, _ = two()
    me.decide(signal_external(), complete_workflow())
    message = town.outbox[0]
    transitions = me.run.transition_count
    town.acknowledge(message, town.carry(message))
    assert town.outbox == []
    assert me.run.transition_count == transitions


def test_a_message_outlives_its_deleted_sender() -> None:
    town, me, other = two()
    me.decide(signal_external())
    me.do(Delete(""))
    town.deliver()
    assert signals(other) == 1
    assert town.outbox == []


def test_a_withdrawn_message_is_taken_from_store_and_window() -> None:
    town, parent = parent_in_town(start_child())
    message = town.outbox[0]
    parent.terminate()
    [withdrawn] = parent.effects_of(MessageWithdrawn)
    assert (withdrawn.sender_run_id, withdrawn.receiver, withdrawn.number) == (
        message.sender_run_id,
        message.receiver,
        message.number,
    )
    assert message not in town.outbox


def test_an_answer_to_a_withdrawn_message_changes_nothing() -> None:
    town, parent = parent_in_town(start_child())
    message = town.outbox[0]
    answer = town.carry(message)
    parent.terminate()
    before = parent.names()
    town.acknowledge(message, answer)
    assert parent.names() == before
    assert town.rows.inbox == {}


@pytest.mark.parametrize("policy", ParentClosePolicy.values()[1:])
def test_a_withdrawn_message_whose_answer_is_lost_leaves_no_row(policy: ParentClosePolicy.ValueType) -> None:
    town, parent = parent_in_town(start_child("child", parent_close_policy=policy))
    town.carry(town.outbox[0])
    parent.terminate()
    assert [kind_of(message.body) for message in town.outbox] == ["parent closed"]
    town.deliver()
    assert town.rows.inbox == {}


def test_a_parent_that_was_continued_hears_nothing_of_its_former_runs_children() -> None:
    town, parent, child = family()
    parent.decide(continue_as_new())
    child.decide(complete_workflow())
    message = next(message for message in town.outbox if message.receiver == parent.key)
    assert town.carry(message) == Answer(Outcome.CLOSED)


def test_two_workflows_may_write_to_each_other_at_the_same_time() -> None:
    town = Town()
    for name, other in (("ping", "pong"), ("pong", "ping")):
        town[name].start()
        town[name].decide(*(signal_external(other) for _ in range(3)))
    town.deliver()
    assert signals(town["ping"]) == signals(town["pong"]) == 3
