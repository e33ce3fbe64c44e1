"""The values of a list filter: what is written in a query to what an attribute is compared with.

A value that does not fit raises ValueError with a message in Temporal's manner; who reads the query says which query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from temporalio.api.enums.v1 import WorkflowExecutionStatus

from perdure.server.store.visibility.filter import VALUE_TYPES, Attribute, Value, ValueType

_NANOS_PER_SECOND = 1_000_000_000
_LEAST, _GREATEST = -(2**63), 2**63 - 1
"""Stores hold 64 bits. A time beyond them compares as their end does."""

_STATUS_PREFIX = "WORKFLOW_EXECUTION_STATUS_"
_STATUS_BY_NAME: Mapping[str, int] = {
    spelling: value
    for name, value in WorkflowExecutionStatus.items()
    for spelling in (name, "".join(word.capitalize() for word in name.removeprefix(_STATUS_PREFIX).split("_")))
}

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d)", re.ASCII)
_SPAN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)", re.ASCII)
_NANOS_PER_UNIT: Mapping[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _NANOS_PER_SECOND,
    "m": 60 * _NANOS_PER_SECOND,
    "h": 3_600 * _NANOS_PER_SECOND,
    "d": 86_400 * _NANOS_PER_SECOND,
}


def parse_text(attribute: Attribute, text: str) -> Value:
    """Read a quoted value: a keyword, a status name, an RFC 3339 time or a duration such as 1h30m or 01:30:00."""
    match VALUE_TYPES[attribute]:
        case ValueType.KEYWORD:
            return _checked_keyword(text)
        case ValueType.STATUS:
            if text not in _STATUS_BY_NAME:
                raise ValueError(f"invalid ExecutionStatus value '{text}'")
            return _STATUS_BY_NAME[text]
        case ValueType.DATETIME:
            return _parse_time(text)
        case ValueType.DURATION:
            return _parse_duration(attribute, text)
        case ValueType.INT:
            raise _wrong_type(attribute, repr(text))


def parse_number(attribute: Attribute, text: str) -> Value:
    """Read a bare number: a status, nanoseconds since the epoch, nanoseconds, or a plain integer."""
    value_type = VALUE_TYPES[attribute]
    if value_type is ValueType.KEYWORD or not re.fullmatch(r"-?\d+", text, re.ASCII):
        raise _wrong_type(attribute, text)
    number = int(text)
    if value_type is ValueType.STATUS and number not in _STATUS_BY_NAME.values():
        raise ValueError(f"invalid ExecutionStatus value {number}")
    if not _LEAST <= number <= _GREATEST:
        raise ValueError(f"unable to parse value {text!r}")
    return number


def _wrong_type(attribute: Attribute, written: str) -> ValueError:
    type_name = VALUE_TYPES[attribute].value
    return ValueError(f"invalid value type for search attribute {attribute.value} of type {type_name}: {written}")


def _checked_keyword(text: str) -> str:
    if not text.isprintable() and ("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)):
        raise ValueError(f"unable to parse value {text!r}")
    return text


def _parse_time(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        whole, fraction, zone = found.groups()
        moment = datetime.fromisoformat(whole + zone)
    except ValueError:
        raise ValueError(f"unable to parse datetime '{text}'") from None
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since_epoch.days * 86_400 + since_epoch.seconds
    nanoseconds = int((fraction or "")[:9].ljust(9, "0"))
    return min(max(seconds * _NANOS_PER_SECOND + nanoseconds, _LEAST), _GREATEST)


def _parse_duration(attribute: Attribute, text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    unsigned = text[1:] if text[:1] in ("-", "+") else text
    if unsigned.isascii() and unsigned.isdecimal():
        nanoseconds = int(unsigned[:20])
    elif clock := _CLOCK.fullmatch(unsigned):
        hours, minutes, seconds = (int(part[:12]) for part in clock.groups())
        nanoseconds = ((hours * 60 + minutes) * 60 + seconds) * _NANOS_PER_SECOND
    else:
        spans = _SPAN.findall(unsigned)
        if not spans or "".join(amount + unit for amount, unit in spans) != unsigned:
            raise ValueError(f"invalid duration value for search attribute {attribute.value}: {text}")
        nanoseconds = sum(round(float(amount) * _NANOS_PER_UNIT[unit]) for amount, unit in spans)
    return min(max(sign * nanoseconds, _LEAST), _GREATEST)
