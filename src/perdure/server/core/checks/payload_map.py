"""Named payloads, as in memos and search attributes: how an upsert merges into them.

A payload without data and one with an empty JSON list mean that the name is to be removed, whatever their encoding.
"""

from __future__ import annotations

from collections.abc import Mapping

from temporalio.api.common.v1 import Payload

_REMOVALS = (b"", b"[]")


def is_removal(payload: Payload) -> bool:
    """Whether a payload removes its name instead of setting it."""
    return payload.data in _REMOVALS


def merged_fields(present: Mapping[str, Payload], upserted: Mapping[str, Payload]) -> dict[str, Payload]:
    """Return the fields after an upsert. The payloads are shared with the arguments, not copied.

    Args:
        present: The fields so far.
        upserted: Fields to set, and removals.
    """
    merged = dict(present)
    for name, payload in upserted.items():
        if is_removal(payload):
            merged.pop(name, None)
        else:
            merged[name] = payload
    return merged


def without_removals(fields: Mapping[str, Payload]) -> dict[str, Payload]:
    """Return the fields a new run starts with: a removal sets nothing."""
    return merged_fields({}, fields)
