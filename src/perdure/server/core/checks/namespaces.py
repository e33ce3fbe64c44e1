"""What may happen in a namespace in the state it is in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from temporalio.api.enums.v1 import NamespaceState
from temporalio.api.errordetails.v1 import NamespaceInvalidStateFailure

from perdure.server.core.errors import FailedPrecondition
from perdure.server.core.records import NamespaceRecord

REGISTERED: Final = NamespaceState.NAMESPACE_STATE_REGISTERED
DEPRECATED: Final = NamespaceState.NAMESPACE_STATE_DEPRECATED
DELETED: Final = NamespaceState.NAMESPACE_STATE_DELETED


def require_namespace_state(record: NamespaceRecord, allowed: Sequence[NamespaceState.ValueType]) -> None:
    """Refuse what is not allowed in the state a namespace is in. Raises FailedPrecondition."""
    if record.state in allowed:
        return
    state = NamespaceState.ValueType(record.state)
    raise FailedPrecondition(
        f"Namespace has invalid state: {_state_name(state)}. Must be {' or '.join(map(_state_name, allowed))}.",
        detail=NamespaceInvalidStateFailure(namespace=record.name, state=state, allowed_states=allowed),
    )


def _state_name(state: NamespaceState.ValueType) -> str:
    return NamespaceState.Name(state).removeprefix("NAMESPACE_STATE_").capitalize()
