"""FileDevice: which thread touches the file, what is durable, who may open it, and what is refused."""

import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from orionfs.backends import OpenOptions
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.backends.inline import RECENT
from orionfs.backends.medium import Medium
from orionfs.buffers import POOL
from orionfs.clock import SystemClock
from orionfs.environment import Environment
from orionfs.errors import AccessRefused, ConfigError, InUse, MediaError, NoSpace, NotFound, ReadOnly, Refused
from orionfs.extents import Extent, Kind
from orionfs.threads import SystemThreads
from orionfs.units import MIB

SIZE = MIB
BLOCK = bytes(range(256)) * 16


class CountingThreads(SystemThreads):
    """Real workers that count what they are asked to run."""

    def __init__(self):
        self.ran = Counter()

    def worker(self, name):
        worker = super().worker(name)
        run = worker.run

        async def count(function, *args):
            self.ran[function.__name__] += 1
            return await run(function, *args)

        worker.run = count
        return worker


class SlowClock(SystemClock):
    """Every operation seems to take :attr:`step_ns`."""

    def __init__(self):
        self.step_ns = 1000
        self.now_ns = 0

    def elapsed_ns(self):
        self.now_ns += self.step_ns
        return self.now_ns


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "d0.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def on_medium(monkeypatch):
    """Make the filesystem of the next file look like another."""

    def choose(medium):
        monkeypatch.setattr("orionfs.backends.file.medium_of", lambda descriptor: medium)

    return choose


async def open_file(path, environment=None, **options):
    return await FileDevice.open(path, options=OpenOptions(**options), environment=environment or Environment())


@contextmanager
def opened(*gates):
    """Open the gates at the end whatever happens: what waits at them on a worker cannot be cancelled."""
    try:
        yield
    finally:
        for gate in gates:
            gate.set()


async def until(condition):
    """Wait for what a worker does."""
    with trio.fail_after(60):
        while not condition():
            await trio.lowlevel.checkpoint()


# --- threads -------------------------------------------------------------------------------------------------------


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


# --- whole or not at all -------------------------------------------------------------------------------------------


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
    for offset in (4096, 8192):
        assert not device.try_read(offset, [bytearray(4096)])
        with pytest.raises(MediaError, match="truncated"):
            await device.read(offset, [bytearray(4096)])
    with pytest.raises(MediaError, match="shorter"):
        [extent async for extent in device.extents(0, SIZE)]
    assert device.counters.read_errors == 2
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


# --- durability ----------------------------------------------------------------------------------------------------


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


# --- space ---------------------------------------------------------------------------------------------------------


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


# --- O_DIRECT ------------------------------------------------------------------------------------------------------


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
    assert threads.ran == {"write_all": 1, "read_all": 1}
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


# --- locks ---------------------------------------------------------------------------------------------------------


async def test_no_name_of_an_open_file_opens_it_again(path, tmp_path):
    (tmp_path / "symlink").symlink_to(path)
    (tmp_path / "hardlink").hardlink_to(path)
    device = await open_file(path)
    for alias in (path, tmp_path / "symlink", tmp_path / "hardlink"):
        with pytest.raises(InUse, match="locked by another"):
            await open_file(alias)
        with pytest.raises(InUse, match="locked by another"):
            await open_file(alias, read_only=True)
    unlocked = await open_file(tmp_path / "symlink", lock=False)
    assert unlocked.identity == device.identity
    await unlocked.aclose()
    await device.aclose()
    again = await open_file(tmp_path / "hardlink")
    await again.aclose()


async def test_readers_share_a_file_and_keep_writers_out(path):
    readers = [await open_file(path, read_only=True) for _ in range(2)]
    with pytest.raises(InUse):
        await open_file(path)
    for reader in readers:
        with pytest.raises(ReadOnly):
            await reader.write(0, [BLOCK])
        with pytest.raises(ReadOnly):
            await reader.write_zeroes(0, 512)
        with pytest.raises(ReadOnly):
            await reader.discard(0, 512)
        assert not reader.try_write(0, [BLOCK])
        await reader.read(0, [bytearray(512)])
        await reader.flush()
        await reader.aclose()


def test_the_lock_goes_along_into_a_forked_daemon_and_not_into_other_programs(path):
    """In a process of its own, because this one has threads."""
    script = """
import os, subprocess, sys, trio
from orionfs.backends.file import FileDevice
from orionfs.environment import Environment

async def open_file():
    return await FileDevice.open(sys.argv[1], environment=Environment())

device = trio.run(open_file)
held = os.path.realpath(f"/proc/self/fd/{device._descriptor}")
program = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False, check=True)
assert held not in program.stdout
ready, go = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(go[1])
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os._exit(0)
os.close(device._descriptor)
os.read(ready[0], 1)
try:
    trio.run(open_file)
except Exception as error:
    print(type(error).__name__)
os.write(go[1], b"x")
os.wait()
trio.run(open_file)
print("free")
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["InUse", "free"], done.stderr


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_filesystem_without_locks_is_refused_unless_told_otherwise(path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(Refused, match="no_lock") as caught:
        await open_file(path)
    assert caught.value.exit_code == 5
    device = await open_file(path, lock=False)
    assert device.describe().details["lock"] is False
    await device.aclose()


# --- what is not a member ------------------------------------------------------------------------------------------


async def test_a_missing_file_is_never_made(tmp_path):
    for name in ("missing.img", "no/such/folder.img"):
        with pytest.raises(NotFound, match=f"there is no file .*{name}") as caught:
            await open_file(tmp_path / name)
        assert caught.value.exit_code == 3
    assert not list(tmp_path.iterdir())


async def test_what_is_not_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "socket"))
        for name, kind in (
            (tmp_path, "a directory"),
            (tmp_path / "pipe", "a named pipe"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a character device"),
        ):
            with pytest.raises(ConfigError, match=f"is {kind}, not a regular file"):
                await open_file(name)


@pytest.mark.parametrize(
    ("size", "complaint"), [(0, "less than one block"), (100, "less than"), (1000, "not a multiple")]
)
async def test_a_file_of_odd_size_is_refused_and_stays_as_it_is(tmp_path, size, complaint):
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(ConfigError, match=complaint):
        await open_file(path)
    assert path.stat().st_size == size


async def test_a_path_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not a path"):
        await open_file("a\0b")
    with pytest.raises(ConfigError, match="not a usable path"):
        await open_file(tmp_path / ("x" * 300))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match="not a usable path"):
        await open_file(tmp_path / "loop")


@pytest.fixture
def open_folder():
    folder = Path("/var/tmp") / f"orionfs-test-{os.getpid()}"
    folder.mkdir(mode=0o755)
    yield folder
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()


@pytest.mark.parametrize(("mode", "complaint"), [(0o400, "may be read but not written"), (0o000, "may not be opened")])
async def test_permissions_are_explained(open_folder, mode, complaint):
    path = open_folder / "d0.img"
    path.write_bytes(bytes(SIZE))
    path.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.chown(path, 65534, 65534)
        os.seteuid(65534)
    try:
        with pytest.raises(AccessRefused, match=complaint) as caught:
            await open_file(path)
        assert caught.value.exit_code == 7
        if mode:
            device = await open_file(path, read_only=True)
            await device.aclose()
    finally:
        if root:
            os.seteuid(0)


# --- life ----------------------------------------------------------------------------------------------------------


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
