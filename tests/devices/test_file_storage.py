"""FileDevice: what is durable, what takes space, and what is left when it is closed."""

import errno
import os
import threading

import pytest
import trio
import trio.testing

from orionfs.backends.medium import Medium
from orionfs.errors import MediaError
from orionfs.extents import Extent, Kind
from tests.devices.kit import BLOCK, SIZE, open_file, opened, until


@pytest.fixture
def syncs(monkeypatch):
    """Counts calls of fdatasync."""
    calls = []

    def sync(descriptor, call=os.fdatasync):
        calls.append(threading.get_ident())
        call(descriptor)

    monkeypatch.setattr(os, "fdatasync", sync)
    return calls


async def test_a_flush_syncs_only_when_something_was_written(path, syncs):
    device = await open_file(path)
    await device.flush()
    assert len(syncs) == 1, "whoever had the file open before us may have left writes in the page cache"
    await device.flush()
    assert len(syncs) == 1
    changes = (
        lambda: device.write(0, [BLOCK]),
        lambda: device.write_zeroes(0, 4096),
        lambda: device.discard(0, 4096),
    )
    for count, change in enumerate(changes, 2):
        await change()
        await device.flush()
        await device.flush()
        assert len(syncs) == count
    assert device.try_write(0, [BLOCK])
    await device.aclose()
    assert len(syncs) == 5, "closing flushes"
    assert threading.get_ident() not in syncs


async def test_a_failed_write_is_flushed_too(path, syncs, monkeypatch):
    device = await open_file(path)
    await device.flush()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "gone")))
        with pytest.raises(MediaError):
            await device.write(0, [BLOCK])
    await device.flush()
    assert len(syncs) == 2
    await device.aclose()


async def test_flushes_that_wait_share_one_and_cover_what_was_written_before_them(path, monkeypatch):
    device = await open_file(path)
    gates = [threading.Event() for _ in range(3)]
    begun = []

    def sync(descriptor):
        gate = gates[len(begun)]
        begun.append(descriptor)
        gate.wait()

    monkeypatch.setattr(os, "fdatasync", sync)
    done = []

    async def flush(label):
        await device.flush()
        done.append(label)

    async with trio.open_nursery() as nursery:
        with opened(*gates):
            nursery.start_soon(flush, "first")
            await until(lambda: len(begun) == 1)
            await device.write(0, [BLOCK])
            for label in ("second", "third", "fourth"):
                nursery.start_soon(flush, label)
            await trio.testing.wait_all_tasks_blocked()
            assert len(begun) == 1
            gates[0].set()
            await until(lambda: len(begun) == 2)
            assert done == ["first"], "the others need one that began after the write"
    assert sorted(done) == ["first", "fourth", "second", "third"]
    assert len(begun) == 2
    await device.aclose()


async def test_a_failed_flush_is_never_taken_back(path, monkeypatch):
    device = await open_file(path)
    await device.write(0, [BLOCK])

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(MediaError, match="cannot flush"):
            await device.flush()
    for _ in range(2):
        with pytest.raises(MediaError, match="all its flushes fail from now on"):
            await device.flush()
    assert device.describe().state == "failed"
    with pytest.raises(MediaError, match="cannot flush"):
        await device.aclose()
    again = await open_file(path)
    await again.aclose()


@pytest.mark.parametrize("verb", ["write_zeroes", "discard"])
async def test_released_space_is_a_hole(path, verb):
    device = await open_file(path)
    await device.write(0, [BLOCK * 4])
    await device.flush()
    before = device.allocated()
    await getattr(device, verb)(4096, 8192)
    assert device.allocated() <= before - 8192
    assert [extent async for extent in device.extents(0, SIZE)] == [
        Extent(0, 4096, Kind.DATA),
        Extent(4096, 8192, Kind.HOLE),
        Extent(12288, 4096, Kind.DATA),
        Extent(16384, SIZE - 16384, Kind.HOLE),
    ]
    assert path.stat().st_size == SIZE
    await device.aclose()


async def test_writes_leave_the_loop_while_space_is_released(path, on_medium, monkeypatch):
    """The kernel holds the file until it is done, and would hold the event loop with it."""
    on_medium(Medium.MEMORY)
    device = await open_file(path)
    gate = threading.Event()
    monkeypatch.setattr("orionfs.backends.descriptor.punch_hole", lambda *args: gate.wait())
    async with trio.open_nursery() as nursery:
        with opened(gate):
            nursery.start_soon(device.discard, 0, 65536)
            await trio.testing.wait_all_tasks_blocked()
            assert not device.try_write(0, [BLOCK])
            assert device.try_read(0, [bytearray(4096)])
            await device.write(0, [BLOCK])
    assert device.try_write(0, [BLOCK])
    await device.aclose()


async def test_zeroing_a_remote_file_keeps_it_sparse(path, on_medium):
    on_medium(Medium.REMOTE)
    device = await open_file(path)
    await device.write(0, [BLOCK * 4])
    await device.write_zeroes(4096, SIZE - 4096)
    assert [extent async for extent in device.extents(0, SIZE)] == [
        Extent(0, 4096, Kind.DATA),
        Extent(4096, SIZE - 4096, Kind.HOLE),
    ]
    await device.aclose()


async def test_large_ranges_are_released_in_steps(path, monkeypatch):
    monkeypatch.setattr("orionfs.backends.descriptor._RESHAPE_STEP", 65536)
    steps = []
    monkeypatch.setattr("orionfs.backends.descriptor.punch_hole", lambda descriptor, *step: steps.append(step))
    device = await open_file(path)
    await device.discard(4096, 3 * 65536 - 4096)
    assert steps == [(4096, 65536), (69632, 65536), (135168, 61440)]
    await device.discard(4096, 0)
    assert len(steps) == 3
    await device.aclose()


@pytest.mark.parametrize("verb", ["write_zeroes", "discard"])
async def test_a_failure_to_release_space_is_told(path, monkeypatch, verb):
    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("orionfs.backends.descriptor.punch_hole", fail)
    device = await open_file(path)
    with pytest.raises(MediaError, match=r"4096 bytes at 0 of .*Input/output error"):
        await getattr(device, verb)(0, 4096)
    assert device.counters.write_errors == 1
    await device.aclose()


async def test_extents_of_a_range_are_cut_to_it(path):
    device = await open_file(path)
    await device.write(4096, [BLOCK])
    assert [extent async for extent in device.extents(4608, 512)] == [Extent(4608, 512, Kind.DATA)]
    assert [extent async for extent in device.extents(0, 4608)] == [
        Extent(0, 4096, Kind.HOLE),
        Extent(4096, 512, Kind.DATA),
    ]
    await device.aclose()


async def test_extents_come_in_more_than_one_batch(path, monkeypatch):
    monkeypatch.setattr("orionfs.backends.file._EXTENTS_AT_ONCE", 3)
    device = await open_file(path)
    for offset in range(0, SIZE, 65536):
        await device.write(offset, [BLOCK])
    found = [extent async for extent in device.extents(0, SIZE)]
    assert len(found) == 32
    assert sum(extent.length for extent in found) == SIZE
    await device.aclose()


async def test_a_filesystem_that_does_not_know_its_holes_has_only_data(path, monkeypatch):
    device = await open_file(path)

    def fail(*args):
        raise OSError(errno.EINVAL, "Invalid argument")

    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", fail)
        assert [extent async for extent in device.extents(0, SIZE)] == [Extent(0, SIZE, Kind.DATA)]
    await device.aclose()


async def test_requests_after_the_end_fail_and_touch_nothing(path):
    device = await open_file(path)
    number = device._descriptor
    await device.aclose()
    other = os.open("/dev/null", os.O_RDWR)
    assert other == number, "the test needs the same number again"
    for request in (
        device.read(0, [bytearray(512)]),
        device.write(0, [bytes(512)]),
        device.write_zeroes(0, 512),
        device.discard(0, 512),
    ):
        with pytest.raises(MediaError, match="closed"):
            await request
    with pytest.raises(MediaError, match="closed"):
        [extent async for extent in device.extents(0, 512)]
    assert not device.try_read(0, [bytearray(512)])
    assert not device.try_write(0, [bytes(512)])
    device.describe()
    device.allocated()
    await device.aclose()
    os.close(other)


async def test_closing_waits_for_the_requests_that_run(path, on_medium, monkeypatch):
    on_medium(Medium.REMOTE)
    device = await open_file(path)
    gate = threading.Event()
    order = []
    pwritev = os.pwritev

    def stall(*args):
        gate.wait()
        order.append("written")
        return pwritev(*args)

    def close(descriptor, call=os.close):
        order.append("closed")
        call(descriptor)

    monkeypatch.setattr(os, "pwritev", stall)
    async with trio.open_nursery() as nursery:
        with opened(gate):
            nursery.start_soon(device.write, 0, [BLOCK])
            await trio.testing.wait_all_tasks_blocked()
            monkeypatch.setattr(os, "close", close)
            nursery.start_soon(device.aclose)
            nursery.start_soon(device.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert order == []
    monkeypatch.undo()
    assert order == ["written", "closed"]
    assert path.read_bytes()[:4096] == BLOCK


async def test_a_cancelled_close_lets_go_of_the_file(path):
    device = await open_file(path)
    await device.write(0, [BLOCK])
    with trio.CancelScope() as scope:
        scope.cancel()
        await device.aclose()
    again = await open_file(path)
    await again.aclose()


async def test_counters_tell_what_happened(path):
    device = await open_file(path)
    await device.write(0, [BLOCK])
    device.try_write(0, [BLOCK])
    await device.read(0, [bytearray(512)])
    counters = device.describe().counters
    assert (counters["writes"], counters["written_bytes"]) == (2, 8192)
    assert (counters["reads"], counters["read_bytes"]) == (1, 512)
    await device.aclose()
