"""How large named payloads are, counted as the limits on commands count them."""

from __future__ import annotations

from collections.abc import Mapping

from temporalio.api.common.v1 import Payload, Payloads

from perdure.server.core.checks.names import byte_length


def payload_map_size(fields: Mapping[str, Payload]) -> int:
    """Return the size of named payloads in bytes: names and data, without metadata."""
    return sum(byte_length(name) + len(payload.data) for name, payload in fields.items())


def payloads_map_size(fields: Mapping[str, Payloads]) -> int:
    """Return the size of named lists of payloads in bytes: names and whole messages."""
    return sum(byte_length(name) + payloads.ByteSize() for name, payloads in fields.items())
