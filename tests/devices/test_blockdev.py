"""BlockDevice: the kernel's block devices, exclusively."""

import errno
import fcntl
import os
import stat
import subprocess
from pathlib import Path

import pytest

from orionfs.backends import OpenOptions, open_backend
from orionfs.backends.blockdev import BlockDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, InUse, MediaError, NotFound, ReadOnly
from orionfs.units import MIB

pytestmark = pytest.mark.root

SIZE = 4 * MIB


def run(*command, check=True):
    return subprocess.run(command, check=check, capture_output=True, text=True)


def number_of(path):
    return Path(path).stat().st_rdev


@pytest.fixture
def attach(tmp_path):
    """Attaches loop devices over sparse files."""
    if not Path("/dev/loop-control").exists():
        pytest.skip("no /dev/loop-control: the kernel has no loop devices")
    attached = []

    def make(*options):
        backing = tmp_path / f"disk{len(attached)}.img"
        with backing.open("wb") as file:
            file.truncate(SIZE)
        path = run("losetup", "--find", "--show", *options, backing).stdout.strip()
        attached.append(path)
        return path

    yield make
    for path in attached:
        run("losetup", "--detach", path)


async def open_device(path, **options):
    return await BlockDevice.open(path, options=OpenOptions(**options), environment=Environment())


async def test_its_shape_comes_from_the_kernel(attach):
    device = await open_device(attach("--sector-size", "4096"))
    assert (device.geometry.size, device.geometry.logical_block, device.geometry.atomic_write) == (SIZE, 4096, 4096)
    description = device.describe()
    assert (description.kind, description.where) == ("block", device.path)
    assert device.identity == ("block", number_of(device.path))
    await device.aclose()


async def test_its_url_is_its_path(attach):
    path = attach()
    device = await open_backend(path, base=Path("/"), options=OpenOptions(), environment=Environment())
    assert isinstance(device, BlockDevice)
    assert device.name == path
    await device.aclose()


async def test_nobody_else_may_have_it_open_in_the_same_way(attach, tmp_path):
    path = attach()
    os.mknod(tmp_path / "alias", stat.S_IFBLK | 0o600, number_of(path))
    device = await open_device(path)
    for name in (path, tmp_path / "alias"):
        with pytest.raises(InUse, match="in use by the kernel") as caught:
            await open_device(name)
        assert caught.value.exit_code == 5
    await device.aclose()
    again = await open_device(path)
    await again.aclose()


async def test_a_mounted_device_is_refused(attach, tmp_path, requires):
    requires("mkfs.ext4")
    path = attach()
    run("mkfs.ext4", "-q", path)
    folder = tmp_path / "mnt"
    folder.mkdir()
    mounted = run("mount", path, folder, check=False)
    if mounted.returncode:
        pytest.skip(f"needs to mount ext4: {mounted.stderr.strip()}")
    try:
        with pytest.raises(InUse, match="it is mounted, part of an array"):
            await open_device(path)
    finally:
        run("umount", folder)


async def test_a_device_that_takes_no_writes_can_be_read(attach):
    path = attach("--read-only")
    with pytest.raises(ReadOnly, match="takes no writes"):
        await open_device(path)
    device = await open_device(path, read_only=True)
    await device.read(0, [bytearray(4096)])
    with pytest.raises(ReadOnly):
        await device.write(0, [bytes(4096)])
    await device.aclose()


async def test_a_failure_to_zero_is_told(attach, monkeypatch):
    def fail(number):
        def call(*args):
            raise OSError(number, os.strerror(number))

        return call

    device = await open_device(attach())
    monkeypatch.setattr("orionfs.backends.descriptor.punch_hole", fail(errno.EOPNOTSUPP))
    monkeypatch.setattr(fcntl, "ioctl", fail(errno.EIO))
    with pytest.raises(MediaError, match="cannot zero 4096 bytes at 0"):
        await device.write_zeroes(0, 4096)
    await device.aclose()


async def test_what_is_no_block_device_is_refused(tmp_path):
    with pytest.raises(NotFound):
        await open_device("/dev/no-such-disk")
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    for name in (path, "/dev/null"):
        with pytest.raises(ConfigError, match="not a block device"):
            await open_device(name)


async def test_a_device_without_a_medium_is_refused(attach, monkeypatch):
    path = attach()
    monkeypatch.setattr(os, "lseek", lambda *args: 0)  # as of a card reader without a card
    with pytest.raises(ConfigError, match="has no size"):
        await open_device(path)
