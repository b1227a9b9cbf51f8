"""Lanes: another worker only when all are busy, and an end that waits."""

import threading

import pytest
import trio
import trio.testing

from orionfs.backends.lanes import Lanes
from orionfs.threads import SystemThreads
from tests.devices.kit import opened


async def test_one_worker_serves_as_long_as_one_is_enough():
    lanes = Lanes(SystemThreads(), "test", 4)
    threads = {await lanes.run(threading.get_ident) for _ in range(5)}
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    await lanes.aclose()


async def test_busy_lanes_open_another_up_to_the_limit():
    lanes = Lanes(SystemThreads(), "test", 3)
    gate = threading.Event()
    threads = []

    def work():
        threads.append(threading.get_ident())
        gate.wait()

    async with trio.open_nursery() as nursery:
        with opened(gate):
            for _ in range(7):
                nursery.start_soon(lanes.run, work)
            await trio.testing.wait_all_tasks_blocked()
    assert len(threads) == 7
    assert len(set(threads)) == 3
    await lanes.aclose()


async def test_a_result_and_an_exception_come_back():
    lanes = Lanes(SystemThreads(), "test", 1)
    assert await lanes.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await lanes.run(divmod, 7, 0)
    assert await lanes.run(divmod, 7, 2) == (3, 1)
    await lanes.aclose()


async def test_closing_waits_for_what_runs_and_takes_nothing_new():
    lanes = Lanes(SystemThreads(), "test", 2)
    gate = threading.Event()
    order = []

    async def work():
        await lanes.run(gate.wait)
        order.append("done")

    async def close():
        await lanes.aclose()
        order.append("closed")

    async with trio.open_nursery() as nursery:
        with opened(gate):
            for _ in range(3):
                nursery.start_soon(work)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(close)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(OSError, match="closed"):
                await lanes.run(len, ())
            assert order == []
    assert sorted(order) == ["closed", "done", "done", "done"]
    await lanes.aclose()
