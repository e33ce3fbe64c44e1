"""Checks of UpsertWorkflowSearchAttributes and ModifyWorkflowProperties.

Both return what the run will have after the command, because the limits hold for that, and because a further command
of the same batch must be checked against it.
"""

from __future__ import annotations

from typing import Final

from temporalio.api.command.v1 import (
    ModifyWorkflowPropertiesCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
)
from temporalio.api.common.v1 import Memo, SearchAttributes
from temporalio.api.enums.v1 import WorkflowTaskFailedCause

from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.payload_map import merged_fields
from perdure.server.core.checks.search_attributes import (
    check_names_defined,
    check_search_attributes_size,
    check_values,
    typed_search_attributes,
)
from perdure.server.core.checks.sizes import payload_map_size
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits

_BAD_ATTRIBUTES: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
_BAD_PROPERTIES: Final = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES


def check_upsert_search_attributes(
    attributes: UpsertWorkflowSearchAttributesCommandAttributes, facts: RunFacts, limits: Limits
) -> SearchAttributes:
    """Check an upsert and return the run's search attributes after it, those it sets with their types.

    Raises:
        BadCommand: If a name or a value is wrong; with `terminate` if they are too large.
    """
    if not attributes.HasField("search_attributes"):
        raise BadCommand(_BAD_ATTRIBUTES, "SearchAttributes is not set on UpsertWorkflowSearchAttributesCommand.")
    upserted = attributes.search_attributes
    if not upserted.indexed_fields:
        raise BadCommand(_BAD_ATTRIBUTES, "IndexedFields is not set on UpsertWorkflowSearchAttributesCommand.")
    try:
        check_names_defined(upserted, facts.search_attribute_types, namespace=facts.namespace)
        check_values(upserted, facts.search_attribute_types, limits)
    except InvalidArgument as error:
        raise BadCommand(_BAD_ATTRIBUTES, error.message) from error
    if payload_map_size(upserted.indexed_fields) > limits.blob_size_error:
        raise BadCommand(
            _BAD_ATTRIBUTES, "UpsertWorkflowSearchAttributesCommandAttributes exceeds size limit.", terminate=True
        )
    typed = typed_search_attributes(upserted, facts.search_attribute_types)
    fields = merged_fields(facts.search_attributes.indexed_fields, typed.indexed_fields)
    merged = SearchAttributes(indexed_fields=fields)
    try:
        check_search_attributes_size(merged, limits)
    except InvalidArgument as error:
        raise BadCommand(_BAD_ATTRIBUTES, error.message, terminate=True) from error
    return merged


def check_modify_properties(
    attributes: ModifyWorkflowPropertiesCommandAttributes, facts: RunFacts, limits: Limits
) -> Memo:
    """Check a change of the memo and return the run's memo after it.

    Raises:
        BadCommand: If it changes nothing; with `terminate` if the memo becomes too large.
    """
    if not attributes.HasField("upserted_memo"):
        raise BadCommand(_BAD_PROPERTIES, "UpsertedMemo is not set on ModifyWorkflowPropertiesCommand.")
    fields = attributes.upserted_memo.fields
    if not fields:
        raise BadCommand(_BAD_PROPERTIES, "UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.")
    if payload_map_size(fields) > limits.blob_size_error:
        raise BadCommand(
            _BAD_PROPERTIES, "ModifyWorkflowPropertiesCommandAttributes exceeds size limit.", terminate=True
        )
    merged = Memo(fields=merged_fields(facts.memo.fields, fields))
    if merged.ByteSize() > limits.memo_size_error:
        raise BadCommand(
            _BAD_PROPERTIES, "ModifyWorkflowPropertiesCommandAttributes. Memo exceeds size limit.", terminate=True
        )
    return merged
