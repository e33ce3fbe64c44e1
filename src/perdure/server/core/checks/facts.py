"""What the checks need to know of a run. Data only."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from temporalio.api.common.v1 import Memo, SearchAttributes


class RunFacts(msgspec.Struct, gc=False, kw_only=True):
    """A run as its commands find it. Who checks a batch of commands keeps it current from one command to the next.

    Durations are nanoseconds, 0 for none.
    """

    namespace: str
    workflow_type: str
    task_queue: str
    execution_timeout: int = 0
    run_timeout: int = 0
    task_timeout: int = 0
    search_attribute_types: Mapping[str, int] = {}
    """The namespace's custom search attributes: name to `IndexedValueType`."""
    search_attributes: SearchAttributes = msgspec.field(default_factory=SearchAttributes)
    memo: Memo = msgspec.field(default_factory=Memo)
    pending_activities: int = 0
