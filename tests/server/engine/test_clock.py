"""The real clock and its fresh ids: no two alike, also where one block of random bytes ends and the next begins."""

from __future__ import annotations

import uuid

from perdure.server.engine.clock import SystemClock, uuid7

MORE_THAN_A_BLOCK = 2_000


def test_nonces_are_96_bits_and_no_two_are_alike() -> None:
    clock = SystemClock()
    nonces = [clock.new_nonce() for _ in range(MORE_THAN_A_BLOCK)]
    assert len(set(nonces)) == MORE_THAN_A_BLOCK
    assert {len(bytes.fromhex(nonce)) for nonce in nonces} == {12}


def test_ids_and_nonces_share_no_random_bytes() -> None:
    clock = SystemClock()
    run_id, nonce = uuid.UUID(clock.new_run_id()), clock.new_nonce()
    assert run_id.bytes[-6:].hex() not in nonce


def test_run_ids_are_of_version_7_and_no_two_are_alike() -> None:
    clock = SystemClock()
    run_ids = [uuid.UUID(clock.new_run_id()) for _ in range(MORE_THAN_A_BLOCK)]
    assert len(set(run_ids)) == MORE_THAN_A_BLOCK
    assert {(run_id.version, run_id.variant) for run_id in run_ids} == {(7, uuid.RFC_4122)}


def test_run_ids_that_are_not_to_rise_are_random() -> None:
    clock = SystemClock(run_ids_rise=False)
    run_ids = [uuid.UUID(clock.new_run_id()) for _ in range(MORE_THAN_A_BLOCK)]
    assert len(set(run_ids)) == MORE_THAN_A_BLOCK
    assert {(run_id.version, run_id.variant) for run_id in run_ids} == {(4, uuid.RFC_4122)}
    assert len({run_id.bytes[0] for run_id in run_ids}) > 200, "they lie all over"


def test_run_ids_hold_the_time_and_all_of_their_random_bits() -> None:
    assert uuid7(0x0190D0F00001, 0) == "0190d0f0-0001-7000-8000-000000000000"
    assert uuid7(0x0190D0F00001, 2**74 - 1) == "0190d0f0-0001-7fff-bfff-ffffffffffff"
    assert uuid7(1, 2**74 - 1) < uuid7(2, 0)


def test_the_clocks_of_two_engines_give_different_ids() -> None:
    assert SystemClock().new_nonce() != SystemClock().new_nonce()
