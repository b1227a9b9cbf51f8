"""FileDevice: which thread touches the file, and that a request is done whole or fails."""

import errno
import fcntl
import os
import resource
import threading
from functools import partial

import pytest
import trio
import trio.testing

from orionfs.backends.create import create_file
from orionfs.backends.inline import RECENT
from orionfs.backends.medium import Medium
from orionfs.buffers import POOL
from orionfs.environment import Environment
from orionfs.errors import ConfigError, MediaError, NoSpace
from tests.devices.kit import BLOCK, SIZE, CountingThreads, SlowClock, open_file, opened


@pytest.mark.parametrize("medium", [Medium.MEMORY, Medium.LOCAL])
async def test_what_is_in_the_page_cache_never_leaves_the_event_loop(path, on_medium, medium):
    on_medium(medium)
    threads = CountingThreads()
    device = await open_file(path, Environment(threads=threads))
    threads.ran.clear()
    assert device.try_write(0, [BLOCK])
    await device.write(4096, [BLOCK])
    found = bytearray(8192)
    assert device.try_read(0, [found])
    await device.read(0, [found])
    assert found == BLOCK * 2
    assert not threads.ran
    await device.aclose()


async def test_a_remote_file_is_only_touched_by_workers(path, on_medium, monkeypatch):
    on_medium(Medium.REMOTE)
    device = await open_file(path)
    loop = threading.get_ident()
    touched = []

    def watch(name, call, *args):
        touched.append((name, threading.get_ident()))
        return call(*args)

    for name in ("preadv", "pwritev", "fdatasync", "fstat", "lseek", "close"):
        monkeypatch.setattr(os, name, partial(watch, name, getattr(os, name)))
    assert not device.try_write(0, [BLOCK])
    assert not device.try_read(0, [bytearray(4096)])
    await device.write(0, [BLOCK])
    await device.read(0, [bytearray(4096)])
    await device.flush()
    assert [extent async for extent in device.extents(0, SIZE)]
    assert device.allocated() == 4096
    device.describe()
    await device.aclose()
    assert {name for name, _ in touched} >= {"preadv", "pwritev", "fdatasync", "fstat", "lseek", "close"}
    assert loop not in {thread for _, thread in touched}


async def test_a_cold_read_goes_to_a_worker(path, on_medium, monkeypatch):
    on_medium(Medium.LOCAL)
    device = await open_file(path)
    preadv = os.preadv

    def cold(descriptor, buffers, offset, flags=0):
        if flags & os.RWF_NOWAIT:
            raise BlockingIOError(errno.EAGAIN, "cold")
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", cold)
    found = bytearray(b"x") * 4096
    assert not device.try_read(0, [found])
    await device.read(0, [found])
    assert found == bytes(4096)
    assert device.counters.reads == 1
    await device.aclose()


async def test_a_partly_cached_read_is_completed_by_a_worker(path, on_medium, monkeypatch):
    on_medium(Medium.LOCAL)
    path.write_bytes(BLOCK * (SIZE // 4096))
    device = await open_file(path)
    preadv = os.preadv

    def half(descriptor, buffers, offset, flags=0):
        if flags & os.RWF_NOWAIT:
            return preadv(descriptor, [memoryview(buffers[0])[:100]], offset)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", half)
    found = bytearray(4096)
    assert not device.try_read(0, [found])
    await device.read(0, [found])
    assert found == BLOCK
    await device.aclose()


async def test_a_filesystem_without_nowait_is_read_by_workers(path, on_medium, monkeypatch):
    on_medium(Medium.LOCAL)
    monkeypatch.setattr("orionfs.backends.file.takes_nowait", lambda descriptor: False)
    device = await open_file(path)
    assert not device.try_read(0, [bytearray(4096)])
    await device.read(0, [bytearray(4096)])
    await device.aclose()


async def test_writes_leave_the_loop_while_they_are_slow_and_come_back(path, on_medium):
    on_medium(Medium.LOCAL)
    clock = SlowClock()
    device = await open_file(path, Environment(clock=clock))
    assert device.try_write(0, [BLOCK])
    clock.step_ns = 2_000_000
    assert device.try_write(0, [BLOCK]), "the first slow one may be chance"
    assert device.try_write(0, [BLOCK])
    assert not device.try_write(0, [BLOCK]), "two of the last hundred are more than one percent"
    assert not device.describe().details["inline_writes"]
    await device.write(0, [BLOCK])
    clock.step_ns = 1000
    for _ in range(RECENT - 1):
        assert not device.try_write(0, [BLOCK])
        await device.write(0, [BLOCK])
    assert device.try_write(0, [BLOCK])
    assert device.describe().details["inline_writes"]
    await device.aclose()


async def test_writes_leave_the_loop_while_too_much_is_not_flushed(path, on_medium, monkeypatch):
    on_medium(Medium.LOCAL)
    monkeypatch.setattr("orionfs.backends.descriptor.UNFLUSHED_LIMIT", 8192)
    device = await open_file(path)
    assert device.try_write(0, [BLOCK])
    assert device.try_write(0, [BLOCK])
    assert not device.try_write(0, [BLOCK])
    await device.write(0, [BLOCK])
    await device.flush()
    assert device.try_write(0, [BLOCK])
    await device.aclose()


async def test_a_stuck_write_delays_no_read_and_no_other_member(tmp_path, on_medium, monkeypatch):
    on_medium(Medium.REMOTE)
    devices = []
    for name in ("slow", "swift"):
        await create_file(tmp_path / name, SIZE, Environment())
        devices.append(await open_file(tmp_path / name))
    slow, swift = devices
    gate = threading.Event()
    pwritev = os.pwritev
    stuck = slow._descriptor

    def stall(descriptor, *args):
        if descriptor == stuck:
            gate.wait()
        return pwritev(descriptor, *args)

    monkeypatch.setattr(os, "pwritev", stall)
    async with trio.open_nursery() as nursery:
        with opened(gate):
            for _ in range(10):
                nursery.start_soon(slow.write, 0, [BLOCK])
            await trio.testing.wait_all_tasks_blocked()
            await slow.read(0, [bytearray(4096)])
            await slow.flush()
            await swift.write(0, [BLOCK])
    for device in devices:
        await device.aclose()


@pytest.mark.parametrize("medium", list(Medium))
async def test_short_transfers_are_continued(path, on_medium, monkeypatch, medium):
    on_medium(medium)
    device = await open_file(path)

    def little(call, descriptor, buffers, *args):
        buffers = [buffer for buffer in buffers if len(buffer)]
        return call(descriptor, [memoryview(buffers[0])[:1000]], *args)

    monkeypatch.setattr(os, "preadv", partial(little, os.preadv))
    monkeypatch.setattr(os, "pwritev", partial(little, os.pwritev))
    pieces = [BLOCK[:700], BLOCK[700:3000], BLOCK[3000:]]
    await device.write(512, pieces)
    found = [bytearray(1500), bytearray(2596)]
    await device.read(512, found)
    assert b"".join(found) == BLOCK
    await device.aclose()


@pytest.mark.parametrize("medium", list(Medium))
async def test_a_file_that_was_truncated_behind_us_is_a_media_error(path, on_medium, medium):
    on_medium(medium)
    device = await open_file(path, lock=False)
    os.truncate(path, 4096 + 100)
    await device.read(0, [bytearray(4096)])
    with pytest.raises(MediaError, match="shorter"):
        [extent async for extent in device.extents(0, SIZE)]
    for offset in (4096, 8192):
        assert not device.try_read(offset, [bytearray(4096)])
        with pytest.raises(MediaError, match="truncated"):
            await device.read(offset, [bytearray(4096)])
    assert device.counters.read_errors == 1, "it is lost at the first, and not asked again"
    with pytest.raises(MediaError, match="truncated"):
        await device.aclose()


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("medium", list(Medium))
async def test_a_truncated_file_is_never_made_long_enough_again(path, on_medium, medium, direct):
    """A write would do that, and what was cut off would read as zeros from then on."""
    on_medium(medium)
    device = await open_file(path, lock=False, direct=direct)
    await device.write(0, [BLOCK])
    os.truncate(path, 0)
    with pytest.raises(MediaError, match="truncated"):
        await device.write(8192, [BLOCK])
    assert os.stat(path).st_size == 0
    os.truncate(path, SIZE)  # what somebody else does does not help either: the data are gone
    assert not device.try_read(0, [bytearray(4096)])
    with pytest.raises(MediaError, match="truncated"):
        await device.read(0, [bytearray(4096)])
    with pytest.raises(MediaError, match="truncated"):
        await device.write_zeroes(0, 4096)
    with pytest.raises(MediaError, match="truncated"):
        await device.flush()
    with pytest.raises(MediaError, match="truncated"):
        await device.aclose()


@pytest.mark.parametrize("medium", list(Medium))
async def test_a_full_filesystem_is_told_to_the_writer_and_the_rest_stays(path, on_medium, medium):
    """RLIMIT_FSIZE stands for a full disk: writes beyond it fail, and one across it is cut short."""
    on_medium(medium)
    device = await open_file(path)
    await device.write(0, [BLOCK])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192 + 512, limits[1]))
    try:
        for offset in (8192, SIZE - 4096):
            with pytest.raises(NoSpace):
                await device.write(offset, [BLOCK])
        await device.write(4096, [BLOCK])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await device.write(8192, [BLOCK])
    found = bytearray(3 * 4096)
    await device.read(0, [found])
    assert found == BLOCK * 3
    assert device.counters.write_errors == 2
    await device.aclose()


async def test_an_error_of_the_disk_is_a_media_error(path, monkeypatch):
    device = await open_file(path)

    def fail(*args):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        patch.setattr(os, "pwritev", fail)
        with pytest.raises(MediaError, match=r"cannot read 4096 bytes at 512 of .*d0\.img: Input/output error"):
            await device.read(512, [bytearray(4096)])
        with pytest.raises(MediaError, match="cannot write 4096 bytes at 512"):
            await device.write(512, [BLOCK])
    assert (device.counters.read_errors, device.counters.write_errors) == (1, 1)
    await device.aclose()


async def test_direct_io_takes_aligned_memory_as_it_is_and_copies_the_rest(path):
    threads = CountingThreads()
    device = await open_file(path, Environment(threads=threads), direct=True)
    assert device.describe().details["direct"]
    assert fcntl.fcntl(device._descriptor, fcntl.F_GETFL) & os.O_DIRECT
    aligned = POOL.take(4096)
    aligned[:] = BLOCK
    threads.ran.clear()
    await device.write(0, [aligned])
    await device.read(0, [aligned])
    assert threads.ran == {"_guarded_write": 1, "read_all": 1}
    memory = bytearray(4097)
    await device.write(8192, [BLOCK])
    await device.read(8192, [memoryview(memory)[1:]])
    assert memory[1:] == BLOCK
    assert aligned == BLOCK
    POOL.give(aligned)
    await device.aclose()


async def test_a_filesystem_without_direct_io_is_refused(path, monkeypatch):
    def refuse(*args, call=os.open):
        if args[1] & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(*args)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="no direct I/O"):
        await open_file(path, direct=True)
