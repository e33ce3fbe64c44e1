"""What a workflow says about itself while it runs: its search attributes and its memo."""

from __future__ import annotations

from temporalio.api.command.v1 import Command
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import CommandType
from temporalio.api.history.v1 import (
    UpsertWorkflowSearchAttributesEventAttributes,
    WorkflowPropertiesModifiedEventAttributes,
)

from perdure.server.core import registry
from perdure.server.core.checks import (
    check_modify_properties,
    check_upsert_search_attributes,
    merged_fields,
    typed_search_attributes,
)
from perdure.server.core.command_batch import CommandBatch, metadata_of
from perdure.server.core.events import Event
from perdure.server.core.run import Run
from perdure.server.core.transition import Transition


def _check_upsert(batch: CommandBatch, command: Command) -> None:
    attributes = command.upsert_workflow_search_attributes_command_attributes
    batch.facts.search_attributes = check_upsert_search_attributes(attributes, batch.facts, batch.limits)
    typed = typed_search_attributes(attributes.search_attributes, batch.facts.search_attribute_types)
    attributes.search_attributes.CopyFrom(typed)


def _record_upsert(t: Transition, command: Command) -> None:
    attributes = command.upsert_workflow_search_attributes_command_attributes
    upserted = UpsertWorkflowSearchAttributesEventAttributes(
        workflow_task_completed_event_id=t.run.last_task_completed_event_id,
        search_attributes=attributes.search_attributes,
    )
    t.record(upserted, user_metadata=metadata_of(command))


@registry.applies(UpsertWorkflowSearchAttributesEventAttributes)
def _apply_upsert(run: Run, event: Event, attributes: UpsertWorkflowSearchAttributesEventAttributes) -> None:
    merged = merged_fields(run.search_attributes.indexed_fields, attributes.search_attributes.indexed_fields)
    run.search_attributes = SearchAttributes(indexed_fields=merged)
    run.changes.outline = True


def _check_modify(batch: CommandBatch, command: Command) -> None:
    attributes = command.modify_workflow_properties_command_attributes
    batch.facts.memo = check_modify_properties(attributes, batch.facts, batch.limits)


def _record_modify(t: Transition, command: Command) -> None:
    attributes = command.modify_workflow_properties_command_attributes
    modified = WorkflowPropertiesModifiedEventAttributes(
        workflow_task_completed_event_id=t.run.last_task_completed_event_id, upserted_memo=attributes.upserted_memo
    )
    t.record(modified, user_metadata=metadata_of(command))


@registry.applies(WorkflowPropertiesModifiedEventAttributes)
def _apply_modify(run: Run, event: Event, attributes: WorkflowPropertiesModifiedEventAttributes) -> None:
    run.memo = Memo(fields=merged_fields(run.memo.fields, attributes.upserted_memo.fields))
    run.changes.outline = True


registry.command(CommandType.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES, check=_check_upsert, record=_record_upsert)
registry.command(CommandType.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES, check=_check_modify, record=_record_modify)
