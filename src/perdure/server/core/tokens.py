"""Task tokens: what a worker hands back to prove which task it answers.

A token names the run and the task and carries the random nonce of its start, so a stale or a forged one is known. Its
form is private to this server. An activity token made from ids (the ById calls) has no nonce: it means the activity's
present attempt, whoever runs it.
"""

from __future__ import annotations

import msgspec

from perdure.server.core.errors import InvalidArgument

_FORM_WORKFLOW_TASK = "w1"
_FORM_ACTIVITY = "a1"
_FORM_QUERY = "q1"


class WorkflowTaskToken(msgspec.Struct, gc=False, frozen=True, array_like=True, tag=_FORM_WORKFLOW_TASK):
    """Names one start of one workflow task."""

    namespace_id: str
    workflow_id: str
    run_id: str
    scheduled_event_id: int
    started_event_id: int
    attempt: int
    nonce: str


class ActivityToken(msgspec.Struct, gc=False, frozen=True, array_like=True, tag=_FORM_ACTIVITY):
    """Names one attempt of one activity; with `nonce` empty its present attempt (the ById calls)."""

    namespace_id: str
    workflow_id: str
    run_id: str
    scheduled_event_id: int
    """0 where `activity_id` names it."""
    activity_id: str
    attempt: int
    nonce: str


class QueryToken(msgspec.Struct, gc=False, frozen=True, array_like=True, tag=_FORM_QUERY):
    """Names one direct query."""

    namespace_id: str
    workflow_id: str
    run_id: str
    query_id: str


_encoder = msgspec.msgpack.Encoder()
_workflow_task_decoder = msgspec.msgpack.Decoder(WorkflowTaskToken)
_activity_decoder = msgspec.msgpack.Decoder(ActivityToken)
_query_decoder = msgspec.msgpack.Decoder(QueryToken)
_any_decoder: msgspec.msgpack.Decoder[WorkflowTaskToken | ActivityToken | QueryToken] = msgspec.msgpack.Decoder(
    WorkflowTaskToken | ActivityToken | QueryToken
)


def encode(token: WorkflowTaskToken | ActivityToken | QueryToken) -> bytes:
    """Return the bytes a worker is given."""
    return _encoder.encode(token)


def decode_workflow_task(data: bytes) -> WorkflowTaskToken:
    """Read a workflow task token. Raises InvalidArgument for anything this server did not make."""
    try:
        return _workflow_task_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Error deserializing task token.") from error


def decode_activity(data: bytes) -> ActivityToken:
    """Read an activity task token. Raises InvalidArgument for anything this server did not make."""
    try:
        return _activity_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Error deserializing task token.") from error


def decode_query(data: bytes) -> QueryToken:
    """Read a query task token. Raises InvalidArgument for anything this server did not make."""
    try:
        return _query_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Error deserializing task token.") from error


def decode_any(data: bytes) -> WorkflowTaskToken | ActivityToken | QueryToken:
    """Read a token of any kind. Raises InvalidArgument for anything this server did not make."""
    try:
        return _any_decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument("Error deserializing task token.") from error
