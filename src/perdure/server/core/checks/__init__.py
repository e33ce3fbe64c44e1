"""What commands and requests may say: checks that raise, and copies with defaults filled in. Pure.

`check_*` raises and changes nothing; `normalize_*` checks as well and returns a copy with its defaults filled in. A
wrong command raises `BadCommand`, a wrong request `InvalidArgument`.
"""

from perdure.server.core.checks.activity import (
    activity_id_taken,
    check_request_cancel_activity,
    no_cancellable_activity,
    normalize_schedule_activity,
)
from perdure.server.core.checks.bad_command import BadCommand
from perdure.server.core.checks.child import normalize_start_child, too_many_children
from perdure.server.core.checks.closing import (
    check_cancel_workflow,
    check_complete_workflow,
    check_fail_workflow,
    normalize_continue_as_new,
    run_timeout_within,
    task_timeout_within,
)
from perdure.server.core.checks.commands import check_attributes_set, check_command_sequence
from perdure.server.core.checks.external import (
    cancel_of_new_child,
    check_cancel_external,
    check_same_namespace,
    check_signal_external,
    too_many_external_cancels,
    too_many_external_signals,
)
from perdure.server.core.checks.facts import RunFacts
from perdure.server.core.checks.marker import check_record_marker
from perdure.server.core.checks.names import check_priority, normalize_task_queue
from perdure.server.core.checks.payload_map import merged_fields, without_removals
from perdure.server.core.checks.properties import check_modify_properties, check_upsert_search_attributes
from perdure.server.core.checks.search_attributes import (
    PREDEFINED_TYPES,
    SYSTEM_TYPES,
    check_search_attributes,
    normalize_search_attributes,
    typed_search_attributes,
)
from perdure.server.core.checks.timer import (
    check_cancel_timer,
    no_running_timer,
    normalize_start_timer,
    timer_id_taken,
)

__all__ = [
    "PREDEFINED_TYPES",
    "SYSTEM_TYPES",
    "BadCommand",
    "RunFacts",
    "activity_id_taken",
    "cancel_of_new_child",
    "check_attributes_set",
    "check_cancel_external",
    "check_cancel_timer",
    "check_cancel_workflow",
    "check_command_sequence",
    "check_complete_workflow",
    "check_fail_workflow",
    "check_modify_properties",
    "check_priority",
    "check_record_marker",
    "check_request_cancel_activity",
    "check_same_namespace",
    "check_search_attributes",
    "check_signal_external",
    "check_upsert_search_attributes",
    "merged_fields",
    "no_cancellable_activity",
    "no_running_timer",
    "normalize_continue_as_new",
    "normalize_schedule_activity",
    "normalize_search_attributes",
    "normalize_start_child",
    "normalize_start_timer",
    "normalize_task_queue",
    "run_timeout_within",
    "task_timeout_within",
    "timer_id_taken",
    "too_many_children",
    "too_many_external_cancels",
    "too_many_external_signals",
    "typed_search_attributes",
    "without_removals",
]
