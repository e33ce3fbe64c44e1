"""Cron schedules: what may be written, and that the next time is the first one that matches."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.server.core.cron import next_cron_delay, next_time, parse_cron, validate_cron
from perdure.server.core.errors import InvalidArgument

SECOND = 1_000_000_000
NOW = int(datetime(2024, 5, 15, 10, 20, 30, tzinfo=UTC).timestamp()) * SECOND


def nanos(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


def following(schedule: str, after: str, count: int = 1) -> list[str]:
    """The next times of a schedule, as ISO text in UTC without its offset."""
    times = []
    at: int | None = nanos(after)
    for _ in range(count):
        assert at is not None
        at = next_time(parse_cron(schedule), at)
        assert at is not None
        times.append(datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return times


# --- what may be written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [
        "a b c",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 7",
        "-1 * * * *",
        "5-1 * * * *",
        "1-2-3 * * * *",
        "*/0 * * * *",
        "1/2/3 * * * *",
        "*/x * * * *",
        "1_0 * * * *",
        "٣ * * * *",
        "* * * sun *",
        "@fortnightly",
        "@Daily",
        " @daily",
        "@every",
        "@every 5",
        "@every 1d",
        "@every 1h 3m",
        "@every 9999999999h",
        "TZ=Europe/Berlin",
        "CRON_TZ=Nowhere/Land 0 0 * * *",
        "TZ=/etc/passwd 0 0 * * *",
        "TZ=../../x 0 0 * * *",
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate_cron(schedule, NOW)
    assert refusal.value.message == "invalid CronSchedule."


@pytest.mark.parametrize("schedule", ["0 0 31 2 *", "0 0 30 Feb ?", ", * * * *"])
def test_a_schedule_that_never_comes_is_refused(schedule: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate_cron(schedule, NOW)
    assert refusal.value.message == "invalid CronSchedule, no time can be found to satisfy the schedule"


@pytest.mark.parametrize(
    "schedule",
    ["", "* * * * *", "  5,,7 1-3/2 */2 JAN-mar sun,Mon ", "@hourly", "@every 1.5h", "TZ= @daily", "+5 ? ? ? ?"],
)
def test_a_proper_schedule_passes(schedule: str) -> None:
    validate_cron(schedule, NOW)


# --- when it comes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("* * * * *", "2024-05-15T10:21:00"),
        ("20 * * * *", "2024-05-15T11:20:00"),
        ("*/15 * * * *", "2024-05-15T10:30:00"),
        ("50/5 * * * *", "2024-05-15T10:50:00"),
        ("0 9-17 * * mon-fri", "2024-05-15T11:00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00"),
        ("@hourly", "2024-05-15T11:00:00"),
        ("@daily", "2024-05-16T00:00:00"),
        ("@midnight", "2024-05-16T00:00:00"),
        ("@weekly", "2024-05-19T00:00:00"),
        ("@monthly", "2024-06-01T00:00:00"),
        ("@yearly", "2025-01-01T00:00:00"),
        ("@annually", "2025-01-01T00:00:00"),
        ("@every 90m", "2024-05-15T11:50:30"),
        ("@every 1h1m1s", "2024-05-15T11:21:31"),
        ("CRON_TZ=Europe/Berlin 0 13 * * *", "2024-05-15T11:00:00"),
        ("TZ=Asia/Kolkata @daily", "2024-05-15T18:30:00"),
        ("TZ=Local 0 11 * * *", "2024-05-15T11:00:00"),
    ],
)
def test_the_next_time(schedule: str, expected: str) -> None:
    assert following(schedule, "2024-05-15T10:20:30+00:00") == [expected]


def test_one_of_two_restricted_days_is_enough() -> None:
    assert following("0 0 13 * fri", "2024-09-01T00:00:00+00:00", 3) == [
        "2024-09-06T00:00:00",
        "2024-09-13T00:00:00",
        "2024-09-20T00:00:00",
    ]


@pytest.mark.parametrize("star", ["*", "?", "*/1", "1,*"])
def test_a_star_leaves_only_the_other_day_field(star: str) -> None:
    assert following(f"0 0 {star} * fri", "2024-09-07T00:00:00+00:00", 2) == [
        "2024-09-13T00:00:00",
        "2024-09-20T00:00:00",
    ]


def test_a_star_with_a_step_is_a_restriction() -> None:
    assert following("0 0 */10 * fri", "2024-09-06T12:00:00+00:00", 3) == [
        "2024-09-11T00:00:00",
        "2024-09-13T00:00:00",
        "2024-09-20T00:00:00",
    ]


def test_a_reading_that_the_clock_skips_does_not_happen_that_day() -> None:
    assert following("CRON_TZ=Europe/Berlin 30 2 * * *", "2024-03-30T00:00:00+00:00", 2) == [
        "2024-03-30T01:30:00",
        "2024-04-01T00:30:00",
    ]


def test_a_reading_that_the_clock_repeats_happens_twice() -> None:
    assert following("CRON_TZ=Europe/Berlin 30 2 * * *", "2024-10-26T12:00:00+00:00", 3) == [
        "2024-10-27T00:30:00",
        "2024-10-27T01:30:00",
        "2024-10-28T01:30:00",
    ]


def test_the_repeated_hour_is_in_order_of_time() -> None:
    assert following("CRON_TZ=Europe/Berlin */30 2 * * *", "2024-10-26T23:59:00+00:00", 4) == [
        "2024-10-27T00:00:00",
        "2024-10-27T00:30:00",
        "2024-10-27T01:00:00",
        "2024-10-27T01:30:00",
    ]


def test_a_day_whose_midnight_the_clock_skips_keeps_its_other_times() -> None:
    assert following("TZ=Africa/Cairo 0 5 * * fri", "2024-04-22T00:00:00+00:00") == ["2024-04-26T02:00:00"]


@pytest.mark.parametrize("duration", ["10ms", "-5s", "0", "0s"])
def test_a_constant_delay_is_at_least_a_second(duration: str) -> None:
    assert next_cron_delay(f"@every {duration}", NOW, NOW) == SECOND


# --- between two runs -------------------------------------------------------------------------------------------------


def test_the_first_run_waits_for_the_schedule() -> None:
    assert next_cron_delay("30 10 * * *", NOW, NOW) == 570 * SECOND


def test_the_delay_counts_from_the_close_in_whole_seconds_rounded_up() -> None:
    assert next_cron_delay("@hourly", NOW, NOW + 300 * SECOND + 1) == 2070 * SECOND
    assert next_cron_delay("@hourly", NOW, NOW + 300 * SECOND) == 2070 * SECOND
    assert next_cron_delay("@hourly", NOW, NOW + 300 * SECOND - 1) == 2071 * SECOND


def test_times_that_passed_while_a_run_was_open_are_not_made_up_for() -> None:
    assert next_cron_delay("@every 10s", NOW, NOW + 35 * SECOND) == 5 * SECOND
    assert next_cron_delay("*/5 * * * *", NOW, NOW + 3600 * SECOND) == 270 * SECOND


def test_a_close_exactly_on_time_is_followed_at_once() -> None:
    assert next_cron_delay("@every 10s", NOW, NOW + 20 * SECOND) == 0


def test_a_run_closed_before_it_was_due_is_followed_when_it_was_due() -> None:
    assert next_cron_delay("@hourly", NOW, NOW - 7 * SECOND) == 7 * SECOND


@pytest.mark.parametrize("schedule", ["", "nonsense", "0 0 31 2 *"])
def test_without_a_schedule_that_comes_there_is_no_next_run(schedule: str) -> None:
    assert next_cron_delay(schedule, NOW, NOW) is None


def test_years_of_a_short_delay_cost_nothing() -> None:
    assert next_cron_delay("@every 1s", 0, NOW + 1) == SECOND


# --- against brute force ----------------------------------------------------------------------------------------------

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Santiago"]
_DAYS_SEARCHED = 3


def _matches(schedule: tuple[set[int], set[int], set[int] | None, set[int] | None], at: datetime) -> bool:
    minutes, hours, days, weekdays = schedule
    if at.minute not in minutes or at.hour not in hours:
        return False
    in_month = days is None or at.day in days
    in_week = weekdays is None or at.isoweekday() % 7 in weekdays
    return in_month and in_week if days is None or weekdays is None else in_month or in_week


def _text(values: set[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


@settings(max_examples=150, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    start=st.integers(nanos("2023-01-01T00:00:00+00:00"), nanos("2027-01-01T00:00:00+00:00")),
    minutes=st.sets(st.integers(0, 59), min_size=1, max_size=4),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=8),
    days=st.none() | st.sets(st.integers(1, 31), min_size=1),
    weekdays=st.none() | st.sets(st.integers(0, 6), min_size=1),
)
def test_the_next_time_is_the_first_minute_that_matches(
    zone: str,
    start: int,
    minutes: set[int],
    hours: set[int],
    days: set[int] | None,
    weekdays: set[int] | None,
) -> None:
    after = datetime.fromtimestamp(start // SECOND, UTC)
    text = f"CRON_TZ={zone} {_text(minutes)} {_text(hours)} {_text(days)} * {_text(weekdays)}"
    found = next_time(parse_cron(text), start)
    first_minute = after.replace(second=0) + timedelta(minutes=1)
    tzinfo = ZoneInfo(zone)
    for minute in range(_DAYS_SEARCHED * 1440):
        at = first_minute + timedelta(minutes=minute)
        if _matches((minutes, hours, days, weekdays), at.astimezone(tzinfo)):
            assert found == int(at.timestamp()) * SECOND
            return
    end = first_minute + timedelta(days=_DAYS_SEARCHED)
    assert found is None or found >= int(end.timestamp()) * SECOND
