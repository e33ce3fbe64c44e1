"""Recording events: ids, what memory keeps of a history, and what waiting for it costs."""

from __future__ import annotations

from perdure.server.core.effects import AlarmSet, HistoryAdvanced
from perdure.server.core.machines.timer import ALARM
from perdure.server.core.transition import TAIL_BYTES_MAX
from tests.server.core.commands import SECOND, start_timer
from tests.server.core.stories import started_story
from tests.server.core.story import NOW


def test_memory_keeps_the_end_of_a_long_history() -> None:
    story = started_story()
    for _ in range(30):
        story.signal("x" * 20_000)
        story.decide()
    run = story.run
    assert run.tail_bytes <= TAIL_BYTES_MAX
    assert run.tail_first_event_id > 1
    assert run.tail_bytes == sum(map(len, run.tail))
    kept = [event.SerializeToString() for event in story.history()[run.tail_first_event_id - 1 :]]
    assert run.tail == kept


def test_memory_keeps_what_a_cached_worker_has_not_seen() -> None:
    story = started_story()
    story.decide()
    for _ in range(20):
        story.signal("x" * 20_000)
    assert story.run.tail_bytes > TAIL_BYTES_MAX
    assert story.run.tail_first_event_id <= story.run.previous_started_event_id


def test_memory_keeps_no_more_than_four_times_that() -> None:
    story = started_story()
    story.decide()
    for _ in range(80):
        story.signal("x" * 20_000)
    assert story.run.tail_bytes <= 4 * TAIL_BYTES_MAX


def test_a_run_that_was_read_from_the_store_keeps_what_comes_after() -> None:
    story = started_story()
    story.crash()
    assert story.run.tail == []
    story.signal()
    assert (story.run.tail_first_event_id, len(story.run.tail)) == (3, 1)


def test_who_waits_for_history_is_told_of_every_change_and_of_no_read() -> None:
    story = started_story()
    assert story.effects_of(HistoryAdvanced)
    story.describe()
    assert not story.effects_of(HistoryAdvanced)


def test_the_next_alarm_is_told_when_it_changes() -> None:
    story = started_story()
    story.decide(start_timer("t", 100))
    assert [alarm.due for alarm in story.effects_of(AlarmSet)] == [NOW + 100 * SECOND]
    story.describe()
    assert not story.effects_of(AlarmSet)


def test_alarms_of_what_is_over_are_dropped_as_they_come_up() -> None:
    story = started_story()
    story.decide(*(start_timer(f"t{number}", number) for number in range(1, 6)))
    story.wait(5)
    assert not [kind for _, kind, _ in story.run.alarms if kind == ALARM]
