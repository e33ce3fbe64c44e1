"""Timer and marker commands."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio.api.command.v1 import (
    CancelTimerCommandAttributes,
    RecordMarkerCommandAttributes,
    StartTimerCommandAttributes,
)
from temporalio.api.common.v1 import Payload, Payloads

from perdure.server.core.checks import (
    BadCommand,
    RunFacts,
    check_cancel_timer,
    check_record_marker,
    no_running_timer,
    normalize_start_timer,
    timer_id_taken,
)
from perdure.server.core.durations import MAX_DURATION, nanos_of
from perdure.server.core.limits import Limits

FACTS = RunFacts(namespace="default", workflow_type="Order", task_queue="orders")
LIMITS = Limits()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (StartTimerCommandAttributes(), "BadStartTimerAttributes: TimerId is not set on StartTimerCommand."),
        (
            StartTimerCommandAttributes(timer_id="t" * 1001),
            "BadStartTimerAttributes: TimerId on StartTimerCommand exceeds length limit. "
            f"TimerId={'t' * 1001} Length=1001 Limit=1000",
        ),
        (
            StartTimerCommandAttributes(timer_id="t\0"),
            "BadStartTimerAttributes: TimerId on StartTimerCommand contains a NUL character.",
        ),
        (
            StartTimerCommandAttributes(timer_id="t", start_to_fire_timeout=Duration(seconds=-1)),
            "BadStartTimerAttributes: An invalid StartToFireTimeout is set on StartTimerCommand: negative duration. "
            "TimerId=t",
        ),
    ],
)
def test_a_wrong_timer_fails_the_task(attributes: StartTimerCommandAttributes, message: str) -> None:
    with pytest.raises(BadCommand) as caught:
        normalize_start_timer(attributes, FACTS, LIMITS)
    assert (caught.value.message, caught.value.terminate) == (message, False)


@pytest.mark.parametrize(
    "attributes",
    [
        StartTimerCommandAttributes(timer_id="t"),
        StartTimerCommandAttributes(timer_id="t", start_to_fire_timeout=Duration()),
        StartTimerCommandAttributes(timer_id="t" * 1000, start_to_fire_timeout=Duration(seconds=86_400, nanos=1)),
    ],
)
def test_a_proper_timer_stays_as_it_is(attributes: StartTimerCommandAttributes) -> None:
    assert normalize_start_timer(attributes, FACTS, LIMITS) == attributes


def test_a_timer_of_ages_is_cut_in_the_copy_alone() -> None:
    attributes = StartTimerCommandAttributes(timer_id="t", start_to_fire_timeout=Duration(seconds=90_000_000_000))
    normalized = normalize_start_timer(attributes, FACTS, LIMITS)
    assert nanos_of(normalized.start_to_fire_timeout) == MAX_DURATION
    assert attributes.start_to_fire_timeout.seconds == 90_000_000_000


def test_a_cancel_needs_a_timer_id() -> None:
    check_cancel_timer(CancelTimerCommandAttributes(timer_id="t"), FACTS, LIMITS)
    with pytest.raises(BadCommand, match=r"^BadCancelTimerAttributes: TimerId is not set on CancelTimerCommand\.$"):
        check_cancel_timer(CancelTimerCommandAttributes(), FACTS, LIMITS)


def test_refusals_that_need_the_state_of_the_run_have_temporals_words() -> None:
    assert timer_id_taken("t").message == (
        "StartTimerDuplicateId: invalid history builder state for action: add-timer-started-event, TimerID: t"
    )
    assert no_running_timer("t").message == (
        "BadCancelTimerAttributes: invalid history builder state for action: add-timer-canceled-event, TimerID: t"
    )


def test_a_marker_needs_a_name_that_is_not_too_long() -> None:
    check_record_marker(RecordMarkerCommandAttributes(marker_name="m" * 1000), FACTS, LIMITS)
    with pytest.raises(BadCommand, match="MarkerName is not set on RecordMarkerCommand"):
        check_record_marker(RecordMarkerCommandAttributes(), FACTS, LIMITS)
    with pytest.raises(BadCommand, match=r"exceeds length limit\. MarkerName=m+ Length=1001 Limit=1000$"):
        check_record_marker(RecordMarkerCommandAttributes(marker_name="m" * 1001), FACTS, LIMITS)


def test_too_large_details_of_a_marker_end_the_run() -> None:
    half = Payloads(payloads=[Payload(data=bytes(LIMITS.blob_size_error // 2))])
    check_record_marker(RecordMarkerCommandAttributes(marker_name="m", details={"a": half}), FACTS, LIMITS)
    with pytest.raises(BadCommand) as caught:
        check_record_marker(
            RecordMarkerCommandAttributes(marker_name="m", details={"a": half, "b": half}), FACTS, LIMITS
        )
    assert caught.value.terminate
    assert caught.value.reason == "RecordMarkerCommandAttributes.Details exceeds size limit."
