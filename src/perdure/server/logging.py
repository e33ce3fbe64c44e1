"""Log lines with fields, as text for people or JSON for machines, on the standard `logging` package.

Whoever logs names fields in `extra`: `logger.warning("...", extra={"workflow_id": ..., "run_id": ...})`. Every field
that is not the record's own is written, so a field needs no registration. This module must never be imported by the
core, and nothing but the composition root may call `configure`.
"""

from __future__ import annotations

import datetime
import logging
import sys
from typing import TextIO

import msgspec

from perdure.server.settings import LogFormat, LogLevel

_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
    LogLevel.NEVER: logging.CRITICAL + 1,
}
_NAMES = {logging.WARNING: "warn", logging.CRITICAL: "error"}

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every record has; whatever else one has is a field."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Send the log lines of the whole process to a stream (default: standard error), replacing what was set before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(_LEVELS[level])


class TextLines(logging.Formatter):
    """`2026-11-21T10:33:00.123Z warn  perdure.server.app: what happened  workflow_id=... run_id=...`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f"  {name}={_one_word(value)}" for name, value in _fields(record).items())
        message = record.getMessage().replace("\n", "\\n")
        line = f"{_time(record)} {_level(record):5} {record.name}: {message}{fields}"
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonLines(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, the fields, and `error` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": _level(record),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _fields(record).items():
            line.setdefault(name, value)
        trace = _trace(self, record)
        if trace:
            line["error"] = trace
        return _encode(line).decode()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _one_word(value: object) -> str:
    """Return a value as text, quoted where it would read as more than one word or break the line."""
    text = str(value)
    plain = text.isprintable() and text and not any(character in text for character in ' "=')
    return text if plain else _encode(text).decode()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
