"""The options the `temporal` command line takes at any level, so that its argument lists are valid here.

Two of them matter to a server: the log's level and format. The others configure a client or what it prints; they are
accepted and reported as unused. The deepest level at which an option is given wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
import msgspec
from click.core import ParameterSource
from click.decorators import FC

from perdure.server.settings import LogFormat, LogLevel

T = TypeVar("T")

_LOG_LEVELS = {level.value: level for level in LogLevel} | {"warning": LogLevel.WARN, "fatal": LogLevel.ERROR}
_LOG_FORMATS = {form.value: form for form in LogFormat} | {"pretty": LogFormat.TEXT}

_UNUSED_VALUES = (
    "--client-connect-timeout",
    "--color",
    "--command-timeout",
    "--config-file",
    "--env",
    "--env-file",
    "--profile",
    "--time-format",
)
_UNUSED_SWITCHES = ("--disable-config-env", "--disable-config-file", "--no-json-shorthand-payloads")


class GlobalOptions(msgspec.Struct):
    """What was given of them, at any level."""

    log_level: LogLevel | None = None
    log_format: LogFormat | None = None
    unused: list[str] = []


def given_options(context: click.Context) -> GlobalOptions:
    """Return what was given so far of the options that every level takes."""
    return context.ensure_object(GlobalOptions)


def global_options(command: FC) -> FC:
    """Let a command take the options that every level takes."""
    decorators = [
        _option("--log-level", _set_log_level, "From which severity on to log: debug, info, warn, error or never."),
        _option("--log-format", _set_log_format, "How log lines look: text or json."),
        _option("--output", _note_unused, None, "-o"),
        *(_option(name, _note_unused, None) for name in _UNUSED_VALUES),
        *(switch(name, expose_value=False, callback=_note_unused, hidden=True) for name in _UNUSED_SWITCHES),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def switch(
    name: str,
    *,
    expose_value: bool = True,
    callback: Callable[[click.Context, click.Parameter, object], object] | None = None,
    hidden: bool = False,
    help: str | None = None,
) -> Callable[[FC], FC]:
    """Return the decorator for a switch that may also be written `--name=true` or `--name=false`."""
    return click.option(
        name,
        is_flag=False,
        flag_value=True,
        type=bool,
        default=False,
        expose_value=expose_value,
        callback=callback,
        hidden=hidden,
        help=help,
        metavar="",
    )


def _option(
    name: str, callback: Callable[[click.Context, click.Parameter, str | None], None], help: str | None, *more: str
) -> Callable[[FC], FC]:
    return click.option(name, *more, expose_value=False, callback=callback, hidden=help is None, help=help)


def _set_log_level(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        given_options(context).log_level = _one_of(_LOG_LEVELS, value)


def _set_log_format(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        given_options(context).log_format = _one_of(_LOG_FORMATS, value)


def _note_unused(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        given_options(context).unused.append(parameter.opts[0])


def _one_of(choices: dict[str, T], value: str) -> T:
    try:
        return choices[value.lower()]
    except KeyError:
        raise click.BadParameter(f"{value!r} is not one of {', '.join(choices)}") from None
