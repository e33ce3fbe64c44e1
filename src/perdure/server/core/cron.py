"""Cron schedules of workflows: what may be written, and how long until the next run.

A schedule has five fields (minute, hour, day of month, month, day of week), or is one of the names below, or
`@every <duration>`. It may begin with `TZ=<zone> ` or `CRON_TZ=<zone> `; without one it is in UTC. A day must match
both day fields where one of them is a star, else either of them. The next time is the first minute after the given
time whose local clock reading matches: a reading that a change of the clock skips does not happen that day, one that
it repeats happens twice.

Nobody catches up: a run that is late is followed by the first time that is not in the past. Must never read a clock;
the only thing it looks up is the time zone database, which it treats as a constant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

from perdure.server.core.errors import InvalidArgument

_SECOND: Final = 1_000_000_000
_YEARS_AHEAD: Final = 5
"""A schedule that has no time in the year it is asked for and this many more has none at all."""
_DURATION_MAX: Final = 2**63 - 1


class Calendar(NamedTuple):
    """A schedule of clock readings. Minutes and hours are sorted, days of the week count from Sunday as 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days_of_month: frozenset[int]
    months: frozenset[int]
    days_of_week: frozenset[int]
    has_star_day: bool
    zone: tzinfo


class Every(NamedTuple):
    """A schedule with a constant delay, in whole seconds but held in nanoseconds."""

    delay: int


class _Field(NamedTuple):
    low: int
    high: int
    names: dict[str, int]


_MONTH_NAMES: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_NAMES: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MINUTE: Final = _Field(0, 59, {})
_HOUR: Final = _Field(0, 23, {})
_DAY_OF_MONTH: Final = _Field(1, 31, {})
_MONTH: Final = _Field(1, 12, {name: number for number, name in enumerate(_MONTH_NAMES, 1)})
_DAY_OF_WEEK: Final = _Field(0, 6, {name: number for number, name in enumerate(_DAY_NAMES)})

_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_EVERY: Final = "@every "
_INTEGER: Final = re.compile(r"\+?[0-9]+")
_DURATION: Final = re.compile(r"[-+]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_DURATION_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": _SECOND,
    "m": 60 * _SECOND,
    "h": 3600 * _SECOND,
}


def validate_cron(schedule: str, now: int) -> None:
    """Refuse a cron schedule that cannot be read, or that never comes.

    Args:
        schedule: The schedule as sent; an empty one is right, it means none.
        now: The time in nanoseconds.

    Raises:
        InvalidArgument: If it is wrong.
    """
    if schedule and next_time(parse_cron(schedule), now) is None:
        raise InvalidArgument("invalid CronSchedule, no time can be found to satisfy the schedule")


def next_cron_delay(schedule: str, started_at: int, closed_at: int) -> int | None:
    """Return how long the next run of a cron workflow waits, in nanoseconds and whole seconds, rounded up.

    Args:
        schedule: The schedule.
        started_at: When the closing run began to execute (its start plus its first backoff), in nanoseconds; for the
            first run of all, its start.
        closed_at: When it closed; for the first run, its start.

    Returns:
        The delay from `closed_at`. None if there is no next run: the schedule is empty, cannot be read (nothing checks
        one that a worker sends when it continues as new) or never comes again.
    """
    try:
        times = parse_cron(schedule)
    except InvalidArgument:
        return None
    due = started_at if closed_at < started_at else _first_not_past(times, started_at, closed_at)
    return None if due is None else -((closed_at - due) // _SECOND) * _SECOND


def next_time(schedule: Calendar | Every, after: int) -> int | None:
    """Return the first time of a schedule after a given one, in nanoseconds; None if there is none in five years."""
    if isinstance(schedule, Every):
        return after + schedule.delay - after % _SECOND
    return _next_reading(schedule, after // _SECOND + 1)


def _first_not_past(schedule: Calendar | Every, after: int, now: int) -> int | None:
    """Return the first time of the schedule that is after `after` and not before `now`."""
    if isinstance(schedule, Every):
        first = after + schedule.delay - after % _SECOND
        return first if first >= now else first - (first - now) // schedule.delay * schedule.delay
    return next_time(schedule, max(after, now - 1))


# --- reading a schedule -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def parse_cron(schedule: str) -> Calendar | Every:
    """Read a cron schedule. Raises InvalidArgument if it cannot be read."""
    try:
        return _parse(schedule)
    except ValueError as error:
        raise InvalidArgument("invalid CronSchedule.") from error


def _parse(schedule: str) -> Calendar | Every:
    zone: tzinfo = UTC
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        prefix, space, schedule = schedule.partition(" ")
        if not space:
            raise ValueError("nothing follows the time zone")
        zone = _zone(prefix.partition("=")[2])
        schedule = schedule.strip()
    if schedule.startswith(_EVERY):
        delay = max(_parse_duration(schedule.removeprefix(_EVERY)), _SECOND)
        return Every(delay - delay % _SECOND)
    fields = _NAMED.get(schedule, schedule).split()
    if len(fields) != 5:
        raise ValueError(f"expected 5 fields, found {len(fields)}")
    minutes, _ = _parse_field(fields[0], _MINUTE)
    hours, _ = _parse_field(fields[1], _HOUR)
    days_of_month, star_month = _parse_field(fields[2], _DAY_OF_MONTH)
    months, _ = _parse_field(fields[3], _MONTH)
    days_of_week, star_week = _parse_field(fields[4], _DAY_OF_WEEK)
    return Calendar(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days_of_month=frozenset(days_of_month),
        months=frozenset(months),
        days_of_week=frozenset(days_of_week),
        has_star_day=star_month or star_week,
        zone=zone,
    )


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC", "Local"):
        # The server's own zone is none of a schedule's business: for it, local is UTC.
        return UTC
    # Few schedules name a zone, and start-up would pay for it.
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"unknown time zone {name!r}") from error


def _parse_field(text: str, field: _Field) -> tuple[set[int], bool]:
    """Return the values of a comma-separated field, and whether it has a star without a step."""
    values: set[int] = set()
    has_star = False
    for part in filter(None, text.split(",")):
        numbers, is_star = _parse_range(part, field)
        values.update(numbers)
        has_star = has_star or is_star
    return values, has_star


def _parse_range(text: str, field: _Field) -> tuple[range, bool]:
    bounds, slash, step_text = text.partition("/")
    low_text, *high_texts = bounds.split("-")
    is_star = low_text in ("*", "?")
    if is_star:
        low, high = field.low, field.high
    elif len(high_texts) > 1:
        raise ValueError(f"too many hyphens: {text}")
    else:
        low = _number(low_text, field)
        high = _number(high_texts[0], field) if high_texts else low
    step = 1
    if slash:
        step = _integer(step_text)
        if not high_texts:
            # A single number with a step means from there to the end.
            high = field.high
    if step == 0 or not field.low <= low <= high <= field.high:
        raise ValueError(f"not within {field.low} to {field.high}: {text}")
    return range(low, high + 1, step), is_star and step == 1


def _number(text: str, field: _Field) -> int:
    named = field.names.get(text.lower())
    return _integer(text) if named is None else named


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or len(text) > 18:
        raise ValueError(f"not a number: {text!r}")
    return int(text)


def _parse_duration(text: str) -> int:
    """Read a duration such as `1h30m` or `1.5h`, in nanoseconds."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"not a duration: {text!r}")
    nanoseconds = 0
    for whole, fraction, unit in _DURATION_PART.findall(text):
        nanoseconds += int(whole or "0") * _UNITS[unit]
        nanoseconds += int(fraction or "0") * _UNITS[unit] // 10 ** len(fraction)
        if nanoseconds > _DURATION_MAX:
            raise ValueError(f"too long a duration: {text!r}")
    return -nanoseconds if text.startswith("-") else nanoseconds


# --- finding the next reading -----------------------------------------------------------------------------------------


def _next_reading(calendar: Calendar, not_before: int) -> int | None:
    """Return the first matching time at or after `not_before` (seconds), in nanoseconds."""
    first_day = datetime.fromtimestamp(not_before, calendar.zone).date()
    for day in _matching_days(calendar, first_day):
        seconds = _first_of_day(calendar, day, not_before)
        if seconds is not None:
            return seconds * _SECOND
    return None


def _matching_days(calendar: Calendar, first_day: date) -> Iterator[date]:
    last_year = first_day.year + _YEARS_AHEAD
    day = first_day
    while day.year <= last_year:
        if day.month not in calendar.months:
            day = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
            continue
        if _day_matches(calendar, day):
            yield day
        day += timedelta(days=1)


def _day_matches(calendar: Calendar, day: date) -> bool:
    in_month = day.day in calendar.days_of_month
    in_week = day.isoweekday() % 7 in calendar.days_of_week
    return (in_month and in_week) if calendar.has_star_day else (in_month or in_week)


def _first_of_day(calendar: Calendar, day: date, not_before: int) -> int | None:
    midnight = datetime.combine(day, time())
    readings = (midnight.replace(hour=h, minute=m) for h, m in product(calendar.hours, calendar.minutes))
    times = (seconds for reading in readings for seconds in _instants(reading, calendar.zone) if seconds >= not_before)
    if _offset(midnight, calendar.zone) == _offset(midnight + timedelta(days=1), calendar.zone):
        return next(times, None)
    # The clock is changed on this day, so readings are not in order of time.
    return min(times, default=None)


def _offset(reading: datetime, zone: tzinfo) -> timedelta | None:
    return reading.replace(tzinfo=zone).utcoffset()


def _instants(reading: datetime, zone: tzinfo) -> Iterator[int]:
    """Yield the times, in seconds, at which a clock in the zone shows the reading: one, or none, or two."""
    first, second = reading.replace(tzinfo=zone), reading.replace(tzinfo=zone, fold=1)
    if first.utcoffset() == second.utcoffset():
        yield int(first.timestamp())
        return
    for local in (first, second):
        seconds = int(local.timestamp())
        if datetime.fromtimestamp(seconds, zone).replace(tzinfo=None) == reading:
            yield seconds
