"""Who handles what: machines register the events they apply, the commands, inputs and alarms they handle.

A new machine is a new file in `machines/` and no edit elsewhere. Registering twice is a mistake and raises at import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from google.protobuf.message import Message
from temporalio.api.command.v1 import Command

from perdure.server.core import messages
from perdure.server.core.events import Event, event_type_of
from perdure.server.core.inputs import Input
from perdure.server.core.messages import Answer, Body

if TYPE_CHECKING:
    from perdure.server.core.command_batch import CommandBatch
    from perdure.server.core.run import Run
    from perdure.server.core.transition import Transition

M = TypeVar("M", bound=Message)
I = TypeVar("I", bound=Input)  # noqa: E741
B = TypeVar("B", bound=Body)

Applier = Callable[["Run", Event, Message], None]
InputHandler = Callable[["Transition", Input], object]
MessageHandler = Callable[["Transition", messages.Message, Body], Answer]
_Deliverer = Callable[["Transition", messages.Message, B], Answer]
AnswerHandler = Callable[["Transition", Body, Answer], None]


class CommandRule(NamedTuple):
    """How a command is checked before anything changes, and how it is recorded."""

    check: Callable[[CommandBatch, Command], None]
    record: Callable[[Transition, Command], None]
    closes_run: bool


class AlarmRule(NamedTuple):
    """When something of a run is due, and what then happens."""

    due_at: Callable[[Run, int | str], int | None]
    fire: Callable[[Transition, int | str], None]


appliers: dict[int, Applier] = {}
command_rules: dict[int, CommandRule] = {}
input_handlers: dict[type, InputHandler] = {}
alarm_rules: dict[str, AlarmRule] = {}
message_handlers: dict[type, MessageHandler] = {}
answer_handlers: dict[type, AnswerHandler] = {}


def applies(
    attributes_class: type[M],
) -> Callable[[Callable[[Run, Event, M], None]], Callable[[Run, Event, M], None]]:
    """Register the function that evolves a run by one type of event. It may not refuse."""

    def register(applier: Callable[[Run, Event, M], None]) -> Callable[[Run, Event, M], None]:
        _add(appliers, event_type_of(attributes_class), cast(Applier, applier))
        return applier

    return register


def handles(
    input_class: type[I],
) -> Callable[[Callable[[Transition, I], object]], Callable[[Transition, I], object]]:
    """Register the function that answers one type of input on a run."""

    def register(handler: Callable[[Transition, I], object]) -> Callable[[Transition, I], object]:
        _add(input_handlers, input_class, cast(InputHandler, handler))
        return handler

    return register


def delivers(
    body_class: type[B],
) -> Callable[[_Deliverer[B]], _Deliverer[B]]:
    """Register the function that carries out one kind of message on the run it is for; the run may be closed."""

    def register(handler: _Deliverer[B]) -> _Deliverer[B]:
        _add(message_handlers, body_class, cast(MessageHandler, handler))
        return handler

    return register


def hears(
    body_class: type[B],
) -> Callable[[Callable[[Transition, B, Answer], None]], Callable[[Transition, B, Answer], None]]:
    """Register the function that tells an open sender what became of one kind of message."""

    def register(handler: Callable[[Transition, B, Answer], None]) -> Callable[[Transition, B, Answer], None]:
        _add(answer_handlers, body_class, cast(AnswerHandler, handler))
        return handler

    return register


def command(
    command_type: int,
    *,
    check: Callable[[CommandBatch, Command], None],
    record: Callable[[Transition, Command], None],
    closes_run: bool = False,
) -> None:
    """Register one type of workflow command."""
    _add(command_rules, command_type, CommandRule(check, record, closes_run))


def alarm(
    kind: str, *, due_at: Callable[[Run, int | str], int | None], fire: Callable[[Transition, int | str], None]
) -> None:
    """Register one kind of alarm: `due_at` tells the present due time of a key, None where it is not pending."""
    _add(alarm_rules, kind, AlarmRule(due_at, fire))


K = TypeVar("K")
V = TypeVar("V")


def _add(table: dict[K, V], key: K, value: V) -> None:
    if key in table:
        raise ValueError(f"{key!r} has a handler already")
    table[key] = value
