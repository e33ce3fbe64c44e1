"""Why the server says no: one tree of errors, split by who has to act.

    ServerError
    +-- Refusal                     the caller asked for what the rules do not allow; nothing was changed
    |   +-- InvalidArgument         the request itself is wrong: correct it
    |   +-- NotFound                what it names does not exist (any more)
    |   +-- AlreadyExists           what it would make exists
    |   +-- FailedPrecondition      right request, wrong state
    |   +-- PermissionDenied        not allowed here
    |   +-- ResourceExhausted       a limit is reached; SDKs retry this for ten seconds
    |   +-- Unimplemented           this server does not have that RPC or option
    +-- Retryable                   the server could not, this time
    |   +-- Unavailable             try again: a batch failed, the server is stopping, the store is away
    |   +-- Aborted                 a concurrent change got in between: try again
    |   +-- DeadlineExceeded        the caller's time ran out
    +-- DataLoss                    what is stored cannot be read back: only an operator can mend that
    InvariantBroken                 a bug of ours; the entity is dropped from memory and reloaded

An error carries `detail`, a message of `temporal.api.errordetails.v1`, where the protocol names one. This module must
never know gRPC: the border (`frontends/`) maps the types to status codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message


class ServerError(Exception):
    """The root of everything the server answers instead of a result.

    Args:
        message: What happened, to which id, and what to do next.
        detail: The protocol's error detail message, if it names one for this case.
    """

    def __init__(self, message: str, *, detail: Message | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class Refusal(ServerError):
    """The rules do not allow the request; nothing was changed."""


class InvalidArgument(Refusal):
    """The request itself is wrong."""


class NotFound(Refusal):
    """What the request names does not exist, or not any more."""


class AlreadyExists(Refusal):
    """What the request would make exists."""


class FailedPrecondition(Refusal):
    """The request is right, the state is wrong."""


class PermissionDenied(Refusal):
    """The request is not allowed here."""


class ResourceExhausted(Refusal):
    """A limit is reached."""


class Unimplemented(Refusal):
    """This server does not have that RPC or option."""


class Retryable(ServerError):
    """The server could not do it this time; the same request may succeed later."""


class Unavailable(Retryable):
    """The server is stopping, or what the answer depended on was not stored."""


class Aborted(Retryable):
    """A concurrent change got in between."""


class DeadlineExceeded(Retryable):
    """The caller's time ran out before there was an answer."""


class DataLoss(ServerError):
    """What is stored cannot be read back. Trying again does not help; an operator has to act."""


class InvariantBroken(Exception):
    """What must hold does not: a bug in Perdure. Please report it with the history of the run."""
