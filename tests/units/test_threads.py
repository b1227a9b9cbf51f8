"""Workers: off the loop, in order, results and exceptions back."""

import threading

import pytest
import trio
import trio.testing

from orionfs.threads import SystemThreads


async def test_calls_run_on_one_other_thread_in_their_order():
    worker = SystemThreads().worker("test")
    seen = []
    async with trio.open_nursery() as nursery:
        for index in range(20):
            nursery.start_soon(worker.run, seen.append, index)
            await trio.testing.wait_all_tasks_blocked()
    threads = {await worker.run(threading.get_ident) for _ in range(3)}
    assert seen == list(range(20))
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    worker.close()


async def test_results_and_exceptions_come_back():
    worker = SystemThreads().worker("test")
    assert await worker.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 7, 0)
    assert await worker.run(divmod, 7, 2) == (3, 1), "a failed call does not end the worker"
    worker.close()


async def test_a_call_that_has_begun_is_not_abandoned():
    worker = SystemThreads().worker("test")
    gate = threading.Event()
    done = []

    def work():
        gate.wait()
        done.append(True)
        return "result"

    async def cancelled():
        with trio.CancelScope() as scope:
            scope.cancel()
            done.append(await worker.run(work))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancelled)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        gate.set()
    assert done == [True, "result"]
    worker.close()


async def test_a_closed_worker_finishes_what_is_queued():
    worker = SystemThreads().worker("test")
    gate = threading.Event()
    seen = []
    await worker.run(len, ())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(worker.run, seen.append, 1)
        await trio.testing.wait_all_tasks_blocked()
        worker.close()
        gate.set()
    assert seen == [1]


def test_a_worker_without_a_call_has_no_thread():
    before = threading.active_count()
    worker = SystemThreads().worker("test")
    assert threading.active_count() == before
    worker.close()
    worker.close()
