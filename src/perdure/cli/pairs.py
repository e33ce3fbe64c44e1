"""Options of the form NAME=VALUE: read, checked, and refused with the option's name in the message."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

import click
import msgspec

from perdure.server.settings import (
    ClusterSettings,
    EngineSettings,
    Limits,
    MatcherSettings,
    PostgresSettings,
    SettingsError,
    search_attribute_type,
)

S = TypeVar("S", bound=msgspec.Struct)

_DYNAMIC_LIMITS: Mapping[str, str] = {
    "limit.blobSize.error": "blob_size_error",
    "limit.blobSize.warn": "blob_size_warn",
    "limit.historyCount.error": "history_count_error",
    "limit.historyCount.suggestContinueAsNew": "history_count_suggest_continue_as_new",
    "limit.historyCount.warn": "history_count_warn",
    "limit.historySize.error": "history_size_error",
    "limit.historySize.suggestContinueAsNew": "history_size_suggest_continue_as_new",
    "limit.historySize.warn": "history_size_warn",
    "limit.maxIDLength": "id_length",
    "limit.memoSize.error": "memo_size_error",
    "limit.numPendingActivities.error": "pending_activities",
}
"""Keys of Temporal's dynamic configuration that name one of our limits."""


def key_values(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Split NAME=VALUE pairs; the last one of a name wins. Raises click.BadParameter for one without `=`."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint=option)
        found[name] = value
    return found


def search_attributes(option: str, pairs: Iterable[str]) -> dict[str, int]:
    """Read NAME=TYPE pairs into the numbers of `IndexedValueType`. Raises click.BadParameter for an unknown type."""
    try:
        return {name: search_attribute_type(value) for name, value in key_values(option, pairs).items()}
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def engine_settings(engine_pairs: Iterable[str], limit_pairs: Iterable[str]) -> EngineSettings:
    """Return the settings of the engine with those changed that NAME=NUMBER pairs of `--engine` and `--limit` name.

    A name of `--engine` that begins with `matcher.` is one of the task queues' settings, one with `cluster.` of the
    cluster's.

    Raises:
        click.BadParameter: A name is unknown, or its value is no number.
    """
    engine: dict[str, str] = {}
    groups: dict[str, dict[str, str]] = {"matcher": {}, "cluster": {}}
    for name, value in key_values("--engine", engine_pairs).items():
        group, dot, rest = name.partition(".")
        if dot and group in groups:
            groups[group][rest] = value
        else:
            engine[name] = value
    settings = _changed(EngineSettings(), "--engine", engine)
    return msgspec.structs.replace(
        settings,
        limits=_changed(settings.limits, "--limit", key_values("--limit", limit_pairs)),
        matcher=_changed(MatcherSettings(), "--engine", groups["matcher"]),
        cluster=_changed(ClusterSettings(), "--engine", groups["cluster"]),
    )


def postgres_settings(pairs: Iterable[str]) -> PostgresSettings:
    """Return the settings of PostgreSQL with those changed that NAME=NUMBER pairs of `--postgres` name.

    Raises:
        click.BadParameter: A name is unknown, or its value is no number.
    """
    return _changed(PostgresSettings(), "--postgres", key_values("--postgres", pairs))


def dynamic_config(option: str, pairs: Iterable[str]) -> tuple[Limits, list[str]]:
    """Read KEY=JSON pairs of Temporal's dynamic configuration.

    Returns:
        The limits with those changed that a key names, and the keys that name nothing here.

    Raises:
        click.BadParameter: A value is not JSON, or not a number where it sets a limit.
    """
    changes: dict[str, int] = {}
    unused: list[str] = []
    for key, value in key_values(option, pairs).items():
        try:
            msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"the value of {key} is not JSON: {error}", param_hint=option) from None
        if key in _DYNAMIC_LIMITS:
            changes[_DYNAMIC_LIMITS[key]] = _positive(option, key, value)
        else:
            unused.append(key)
    return msgspec.structs.replace(Limits(), **changes), unused


def _changed(settings: S, option: str, changes: Mapping[str, str]) -> S:
    """Return settings with some of their numbers changed."""
    defaults = msgspec.structs.asdict(settings)
    numbers: dict[str, int | float] = {}
    for name, value in changes.items():
        default = defaults.get(name)
        if not isinstance(default, int | float):
            raise click.BadParameter(f"there is no {name!r}; docs/configuration.md lists them", param_hint=option)
        numbers[name] = _positive(option, name, value) if isinstance(default, int) else _seconds(option, name, value)
    return msgspec.structs.replace(settings, **numbers)


def _seconds(option: str, name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise click.BadParameter(f"{name} must be a number above 0, not {value!r}", param_hint=option)
    return seconds


def _positive(option: str, name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) == 0:
        raise click.BadParameter(f"{name} must be a whole number above 0, not {value!r}", param_hint=option)
    return int(value)
