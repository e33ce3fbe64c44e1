"""What a workflow says about itself: search attributes and memo, merged into what the run has."""

from __future__ import annotations

from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import (
    UpsertWorkflowSearchAttributesEventAttributes,
    WorkflowPropertiesModifiedEventAttributes,
    WorkflowTaskFailedEventAttributes,
)

from tests.server.core.commands import modify_memo, payload, upsert_search_attributes
from tests.server.core.stories import DECIDED
from tests.server.core.story import Story


def described_story() -> Story:
    story = Story()
    story.start(
        memo=Memo(fields={"note": payload("urgent"), "customer": payload("ann")}),
        search_attributes=SearchAttributes(indexed_fields={"Colour": payload("red")}),
    )
    return story


def test_search_attributes_are_replaced_by_name() -> None:
    story = described_story()
    story.decide(upsert_search_attributes(Colour="blue"))
    assert story.names() == [*DECIDED, "UpsertWorkflowSearchAttributes"]
    upserted = story.last(UpsertWorkflowSearchAttributesEventAttributes)
    assert upserted.workflow_task_completed_event_id == 4
    [typed] = story.run.search_attributes.indexed_fields.values()
    assert typed.data == b'"blue"'
    assert typed.metadata["type"] == b"Keyword"
    story.crash()
    assert story.describe().workflow_execution_info.search_attributes.indexed_fields["Colour"] == typed


def test_a_search_attribute_of_nothing_is_removed() -> None:
    story = described_story()
    story.decide(upsert_search_attributes(Colour=None))
    assert not story.run.search_attributes.indexed_fields


def test_an_unknown_search_attribute_fails_the_task() -> None:
    story = described_story()
    story.decide(upsert_search_attributes(Shape="round"))
    cause = story.last(WorkflowTaskFailedEventAttributes).cause
    assert cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES


def test_memo_fields_are_replaced_by_name_and_removed_where_nothing_is_given() -> None:
    story = described_story()
    story.decide(modify_memo(note="later", customer=None, colour="red"))
    assert story.names() == [*DECIDED, "WorkflowPropertiesModified"]
    assert story.last(WorkflowPropertiesModifiedEventAttributes).workflow_task_completed_event_id == 4
    assert dict(story.run.memo.fields) == {"note": payload("later"), "colour": payload("red")}
    story.crash()
    assert dict(story.run.memo.fields) == {"note": payload("later"), "colour": payload("red")}


def test_changes_of_one_task_build_on_each_other() -> None:
    story = described_story()
    story.decide(modify_memo(note="second"), modify_memo(note="third"))
    assert story.run.memo.fields["note"] == payload("third")
