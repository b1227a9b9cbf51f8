"""RangeLock: exclusion, fairness, cancellation."""

from collections import Counter

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from orionfs.rangelock import RangeLock


def test_ranges_that_do_not_overlap_are_held_together():
    lock = RangeLock()
    assert lock.try_acquire(0, 10)
    assert lock.try_acquire(20, 30)
    assert lock.try_acquire(10, 20)
    assert not lock.try_acquire(9, 10)
    lock.release(10, 20)
    assert lock.try_acquire(12, 13)


@given(
    held=st.sets(st.integers(0, 30)).map(lambda numbers: [(n * 4, n * 4 + 3) for n in sorted(numbers)]),
    start=st.integers(0, 130),
    length=st.integers(1, 30),
)
def test_a_range_is_busy_while_somebody_holds_a_part_of_it(held, start, length):
    lock = RangeLock()
    for taken in held:
        assert lock.try_acquire(*taken)
    assert lock.busy(start, start + length) == any(low < start + length and start < high for low, high in held)
    assert not lock.busy(200, 201)


@pytest.mark.parametrize("taken", [(0, 11), (19, 21), (0, 100), (12, 13), (10, 20)])
def test_ranges_that_overlap_exclude_each_other(taken):
    lock = RangeLock()
    assert lock.try_acquire(10, 20)
    assert not lock.try_acquire(*taken)
    lock.release(10, 20)
    assert lock.try_acquire(*taken)


def test_nonsense_is_refused():
    lock = RangeLock()
    with pytest.raises(ValueError, match="not a range"):
        lock.try_acquire(5, 5)
    with pytest.raises(ValueError, match="not held"):
        lock.release(0, 1)
    lock.try_acquire(0, 10)
    with pytest.raises(ValueError, match="not held"):
        lock.release(0, 5)


async def test_the_earlier_request_goes_first_also_while_it_waits():
    lock = RangeLock()
    order = []

    async def take(label, start, end):
        await lock.acquire(start, end)
        order.append(label)
        lock.release(start, end)

    assert lock.try_acquire(0, 10)
    async with trio.open_nursery() as nursery:
        for label, start, end in (("wide", 5, 30), ("behind wide", 20, 40), ("last", 35, 36)):
            nursery.start_soon(take, label, start, end)
            await trio.testing.wait_all_tasks_blocked()
        assert not lock.try_acquire(25, 26), "a waiting range keeps its place"
        assert lock.try_acquire(50, 60), "what overlaps nobody is free"
        assert order == []
        lock.release(0, 10)
    assert order == ["wide", "behind wide", "last"]
    lock.release(50, 60)
    assert lock.try_acquire(0, 1000), "everything was given back"


async def test_a_cancelled_waiter_lets_those_behind_it_through():
    lock = RangeLock()
    assert lock.try_acquire(0, 10)
    done = []

    async def take():
        await lock.acquire(15, 20)
        done.append(True)
        lock.release(15, 20)

    async def give_up(scope):
        with scope:
            await lock.acquire(5, 20)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert done == [True]
    lock.release(0, 10)
    assert lock.try_acquire(0, 1000)


async def test_a_range_granted_before_the_cancellation_is_held():
    lock = RangeLock()
    assert lock.try_acquire(0, 10)
    held = []

    async def take(scope):
        with scope:
            await lock.acquire(0, 10)
            held.append(True)
            lock.release(0, 10)

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, scope)
        await trio.testing.wait_all_tasks_blocked()
        lock.release(0, 10)
        scope.cancel()
    assert held == [True]
    assert lock.try_acquire(0, 10)


requests = st.tuples(st.integers(0, 20), st.integers(1, 8), st.integers(0, 3), st.booleans())


@given(st.lists(requests, max_size=25))
def test_no_two_holders_ever_overlap_and_nobody_is_forgotten(plan):
    async def main():
        lock = RangeLock()
        holders = Counter()
        served = []

        async def use(index, start, length, pauses, give_up):
            with trio.CancelScope() as scope:
                if give_up:
                    scope.cancel()
                await lock.acquire(start, start + length)
                for unit in range(start, start + length):
                    holders[unit] += 1
                    assert holders[unit] == 1
                try:
                    for _ in range(pauses):
                        await trio.lowlevel.checkpoint()
                finally:
                    holders.subtract(range(start, start + length))
                    lock.release(start, start + length)
            served.append(index)

        async with trio.open_nursery() as nursery:
            for index, (start, length, pauses, give_up) in enumerate(plan):
                nursery.start_soon(use, index, start, length, pauses, give_up)
        assert sorted(served) == list(range(len(plan)))
        assert lock.try_acquire(0, 100)

    trio.run(main)
