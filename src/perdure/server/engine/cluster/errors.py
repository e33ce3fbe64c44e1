"""How errors travel between nodes: by the name of their type, so that the caller is told what the owner said."""

from __future__ import annotations

from typing import Final

from google.protobuf import symbol_database
from google.protobuf.message import DecodeError, Message

from perdure.server.core import errors
from perdure.server.core.errors import ServerError, Unavailable
from perdure.server.engine.cluster.frames import Failed
from perdure.server.store.interface import StoreError

_TYPES: Final = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ServerError)
}


class LinkDown(Unavailable):
    """Another node could not be reached; it has seen nothing of the call."""


class AddressInUse(StoreError):
    """Another process is the node that this one was to be."""


class LinkLost(Unavailable):
    """The connection to another node broke while a call was in progress there: it may have been carried out."""


def failed_frame(number: int, error: ServerError) -> Failed:
    """Return an error as the frame that tells it."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _TYPES)
    if error.detail is None:
        return Failed(number, name, error.message)
    detail = error.detail
    return Failed(number, name, error.message, detail.DESCRIPTOR.full_name, detail.SerializeToString())


def error_of(frame: Failed) -> ServerError:
    """Return the error that a frame tells. One of a type that this release does not know is UNAVAILABLE."""
    kind = _TYPES.get(frame.error, Unavailable)
    return kind(frame.message, detail=_detail(frame))


def _detail(frame: Failed) -> Message | None:
    if not frame.detail_type:
        return None
    try:
        kind = symbol_database.Default().GetSymbol(frame.detail_type)
        message = kind.FromString(frame.detail)
    except (KeyError, DecodeError):
        return None
    assert isinstance(message, Message)
    return message
