"""FileDevice: who may open a file, and what is refused."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orionfs.backends.opening import CutShort
from orionfs.errors import AccessRefused, ConfigError, InUse, NotFound, ReadOnly, Refused
from tests.devices.kit import BLOCK, SIZE, open_file


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
    ("size", "complaint"), [(0, "is empty"), (100, "not a multiple of 512"), (1000, "not a multiple of 512")]
)
async def test_a_file_of_odd_size_is_refused_and_stays_as_it_is(tmp_path, size, complaint):
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(CutShort, match=complaint) as caught:
        await open_file(path)
    assert "truncate" not in str(caught.value)  # a file that lost its end must not be filled up with zeros
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
