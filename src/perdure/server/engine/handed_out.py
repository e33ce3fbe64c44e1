"""What a reply hands out: the tokens of the tasks in it, to be taken back when its caller has gone. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from temporalio.api.workflowservice.v1 import (
    PollActivityTaskQueueResponse,
    PollWorkflowTaskQueueResponse,
    RespondWorkflowTaskCompletedResponse,
    StartWorkflowExecutionResponse,
)

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[bytes]).decode


def of_workflow_poll(reply: bytes) -> list[bytes]:
    """Return the token in the reply to a poll for workflow tasks."""
    return _given(PollWorkflowTaskQueueResponse.FromString(reply).task_token)


def of_activity_poll(reply: bytes) -> list[bytes]:
    """Return the token in the reply to a poll for activity tasks."""
    return _given(PollActivityTaskQueueResponse.FromString(reply).task_token)


def of_start(reply: bytes) -> list[bytes]:
    """Return the token of the eager task in the reply to StartWorkflowExecution."""
    return _given(StartWorkflowExecutionResponse.FromString(reply).eager_workflow_task.task_token)


def of_completion(reply: bytes) -> list[bytes]:
    """Return the tokens of the next task and the eager activities in the reply to RespondWorkflowTaskCompleted."""
    response = RespondWorkflowTaskCompletedResponse.FromString(reply)
    handed_out = [response.workflow_task.task_token, *(task.task_token for task in response.activity_tasks)]
    return [token for token in handed_out if token]


def encode_tokens(task_tokens: list[bytes]) -> bytes:
    """Return tokens as they are sent to the node that is to take them back."""
    return _encode(task_tokens)


def decode_tokens(data: bytes) -> list[bytes]:
    """Read them there."""
    return _decode(data)


def _given(task_token: bytes) -> list[bytes]:
    return [task_token] if task_token else []
