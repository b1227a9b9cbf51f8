"""The oracle allows what the contract allows, and nothing else."""

import itertools

import numpy as np
import pytest

from orionfs.testing.oracle import Oracle, Violation, make_tags, read_tags, render


@pytest.fixture
def oracle():
    ticks = itertools.count(1)
    return Oracle(8, lambda: next(ticks))


def now(oracle):
    return oracle._tick()


def device(*writes):
    """The whole device after *writes*, in that order."""
    tags = np.zeros(8, np.uint64)
    for write in writes:
        tags[write.first : write.end] = write.tags
    return render(tags)


def write(oracle, first=0, count=2, **options):
    issued = oracle.issue(first, count, **options)
    oracle.done(issued)
    return issued


def flush(oracle):
    oracle.flush_done(oracle.flush_begins())


def allowed_after_cut(oracle, *writes):
    try:
        oracle.check_cut(device(*writes), now(oracle))
    except Violation:
        return False
    return True


def test_an_unflushed_write_may_be_lost_or_kept(oracle):
    first = write(oracle)
    assert allowed_after_cut(oracle)
    assert allowed_after_cut(oracle, first)


def test_a_flushed_write_must_be_there(oracle):
    first = write(oracle)
    flush(oracle)
    assert allowed_after_cut(oracle, first)
    assert not allowed_after_cut(oracle)


def test_a_flushed_write_takes_the_place_of_all_that_ended_before_it(oracle):
    first, second = write(oracle), write(oracle)
    flush(oracle)
    third = write(oracle)
    assert not allowed_after_cut(oracle, first)
    assert allowed_after_cut(oracle, second)
    assert allowed_after_cut(oracle, third)


def test_two_writes_in_flight_together_have_no_order(oracle):
    first, second = oracle.issue(0, 2), oracle.issue(0, 2)
    oracle.done(second)
    oracle.done(first)
    flush(oracle)
    assert allowed_after_cut(oracle, first)
    assert allowed_after_cut(oracle, second)
    assert not allowed_after_cut(oracle)


def test_a_flush_in_flight_or_begun_before_the_write_ended_promises_nothing(oracle):
    first = oracle.issue(0, 2)
    began = oracle.flush_begins()
    oracle.done(first)
    oracle.flush_done(began)
    oracle.flush_begins()
    assert allowed_after_cut(oracle)


def test_a_failed_write_is_old_or_new_block_by_block(oracle):
    first = write(oracle)
    flush(oracle)
    second = oracle.issue(0, 2)
    oracle.failed(second)
    flush(oracle)
    assert allowed_after_cut(oracle, first)
    assert allowed_after_cut(oracle, second)
    half = np.concatenate([first.tags[:1], second.tags[1:], np.zeros(6, np.uint64)])
    oracle.check_cut(render(half), now(oracle))
    assert not allowed_after_cut(oracle)


def test_a_failed_write_cannot_come_back_after_a_later_flushed_one(oracle):
    failed = oracle.issue(0, 2)
    oracle.failed(failed)
    later = write(oracle)
    flush(oracle)
    assert allowed_after_cut(oracle, later)
    assert not allowed_after_cut(oracle, failed)


def test_a_discarded_block_is_old_or_zero_even_after_a_flush(oracle):
    first = write(oracle)
    flush(oracle)
    write(oracle, zero=True, optional=True)
    flush(oracle)
    assert allowed_after_cut(oracle, first)
    assert allowed_after_cut(oracle)


def test_after_a_kill_the_last_completed_write_is_there_or_one_in_flight(oracle):
    first, second = write(oracle), write(oracle)
    flying = oracle.issue(0, 2)
    at = now(oracle)
    oracle.check_kill(device(second), at)
    oracle.check_kill(device(flying), at)
    for lost in (device(first), device()):
        with pytest.raises(Violation):
            oracle.check_kill(lost, at)


def test_the_past_can_be_asked_about(oracle):
    first = write(oracle)
    before = now(oracle)
    flush(oracle)
    second = write(oracle)
    oracle.check_cut(device(), before)
    with pytest.raises(Violation):
        oracle.check_cut(device(second), before)
    assert oracle.acknowledged(before) == 0
    assert oracle.acknowledged(now(oracle)) == 1
    assert not oracle.open_blocks(before)[2:].any()
    assert oracle.open_blocks(now(oracle))[:2].all()
    assert first.number != second.number


def test_a_read_sees_the_last_completed_write_or_one_that_it_raced_with(oracle):
    first, second = write(oracle), write(oracle)
    began = oracle.read_begins()
    racing = oracle.issue(0, 2)
    oracle.check_read(0, render(second.tags), began)
    oracle.check_read(0, render(racing.tags), began)
    with pytest.raises(Violation):
        oracle.check_read(0, render(first.tags), began)


def test_what_a_read_saw_of_a_failed_write_does_not_change_any_more(oracle):
    first = write(oracle)
    failed = oracle.issue(0, 2)
    oracle.failed(failed)
    oracle.check_read(0, render(failed.tags), oracle.read_begins())
    with pytest.raises(Violation):
        oracle.check_read(0, render(first.tags), oracle.read_begins())
    flush(oracle)
    assert not allowed_after_cut(oracle, first)
    assert allowed_after_cut(oracle, failed)


def test_what_was_read_after_recovery_is_where_the_next_life_begins(oracle):
    first = write(oracle)
    tags = oracle.check_cut(device(first), now(oracle))
    ticks = itertools.count(1)
    again = Oracle(8, lambda: next(ticks), tags)
    assert allowed_after_cut(again, first)
    assert not allowed_after_cut(again)


def test_a_torn_a_misplaced_and_an_invented_block_are_told_from_right_ones(oracle):
    first = write(oracle)
    good = bytearray(device(first))
    torn = good[:256] + bytes(256) + good[512:]
    misplaced = good[512:1024] + good[:512] + good[1024:]
    invented = bytes(3584) + b"garbage!" * 64
    for bad, word in ((torn, "mix"), (misplaced, "nobody wrote"), (invented, "nobody wrote")):
        with pytest.raises(Violation, match=word):
            oracle.check_cut(bytes(bad), now(oracle))


def test_a_violation_names_the_block_its_history_and_what_was_found(oracle):
    first = write(oracle, first=3, count=2)
    second = write(oracle, first=4, count=1, what="zero")
    flush(oracle)
    with pytest.raises(Violation) as caught:
        oracle.check_cut(device(second, first), now(oracle))
    text = str(caught.value)
    assert "block 4 (byte 2048)" in text
    assert f"it holds: write {first.number}" in text
    assert f"allowed zero {second.number}" in text


def test_only_some_blocks_can_be_looked_at(oracle):
    write(oracle, first=0, count=2)
    flush(oracle)
    only = np.ones(8, np.bool_)
    only[:2] = False
    oracle.check_cut(device(), now(oracle), only=only)


def test_tags_are_all_different_and_survive_the_bytes():
    tags = np.concatenate([make_tags(number, 5, 1000) for number in range(1, 50)])
    assert len(np.unique(tags)) == len(tags)
    assert tags.all()
    assert (read_tags(render(tags), 0) == tags).all()
