"""Log lines: what a person reads, what a machine parses, and that every field arrives."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from perdure.server.logging import configure
from perdure.server.settings import LogFormat, LogLevel


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def lines() -> io.StringIO:
    return io.StringIO()


def test_text_is_one_line_with_the_fields_at_its_end(lines: io.StringIO) -> None:
    configure(LogFormat.TEXT, LogLevel.INFO, lines)
    logging.getLogger("perdure.engine").warning("task failed", extra={"workflow_id": "order 7", "run_id": "r1"})
    time, rest = lines.getvalue().split(" ", 1)
    assert time.endswith("Z") and len(time) == len("2026-11-21T10:33:00.123Z")
    assert rest == 'warn  perdure.engine: task failed  workflow_id="order 7"  run_id=r1\n'


def test_what_a_caller_sent_cannot_forge_a_line(lines: io.StringIO) -> None:
    configure(LogFormat.TEXT, LogLevel.INFO, lines)
    sent = "a\n2026-01-01T00:00:00.000Z error x: forged"
    logging.getLogger("x").info("started %s", sent, extra={"workflow_id": sent})
    assert lines.getvalue().count("\n") == 1


def test_json_is_one_object_with_the_fields_in_it(lines: io.StringIO) -> None:
    configure(LogFormat.JSON, LogLevel.INFO, lines)
    logging.getLogger("perdure.engine").error(
        "task of %s failed", "order", extra={"namespace": "default", "workflow_id": "order\n7", "run_id": "r1", "at": 3}
    )
    line = json.loads(lines.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "error",
        "logger": "perdure.engine",
        "message": "task of order failed",
        "namespace": "default",
        "workflow_id": "order\n7",
        "run_id": "r1",
        "at": 3,
    }


@pytest.mark.parametrize("log_format", LogFormat)
def test_an_exception_brings_its_traceback(log_format: LogFormat, lines: io.StringIO) -> None:
    configure(log_format, LogLevel.INFO, lines)
    try:
        raise ValueError("too late")
    except ValueError:
        logging.getLogger("x").exception("alarm failed")
    assert "Traceback" in lines.getvalue() and "ValueError: too late" in lines.getvalue()


@pytest.mark.parametrize(
    ("level", "written"),
    [
        (LogLevel.DEBUG, ["debug", "info", "warn", "error"]),
        (LogLevel.INFO, ["info", "warn", "error"]),
        (LogLevel.WARN, ["warn", "error"]),
        (LogLevel.ERROR, ["error"]),
        (LogLevel.NEVER, []),
    ],
)
def test_a_level_lets_through_what_is_at_least_as_severe(
    level: LogLevel, written: list[str], lines: io.StringIO
) -> None:
    configure(LogFormat.JSON, level, lines)
    logger = logging.getLogger("x")
    for severity in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(severity, "message")
    assert [json.loads(line)["level"] for line in lines.getvalue().splitlines()] == written
