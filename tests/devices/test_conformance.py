"""Every backend keeps the contract of StorageDevice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orionfs.backends import OpenOptions
from orionfs.backends.blockdev import BlockDevice
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.backends.medium import Medium
from orionfs.backends.memory import MemoryDevice
from orionfs.backends.null import NullDevice
from orionfs.environment import Environment
from orionfs.testing.conformance import check_device
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB

SIZE = 3 * MIB


@pytest.mark.parametrize("always_wait", [False, True])
@pytest.mark.parametrize("block", [512, 4096])
async def test_ram(always_wait, block):
    async def make():
        return RamDevice("ram", SIZE, block, always_wait=always_wait)

    await check_device(make)


@pytest.mark.parametrize("block", [512, 4096])
async def test_memory(block):
    async def make():
        return MemoryDevice("memory", SIZE, block)

    await check_device(make)


async def test_null_but_for_what_it_stores():
    async def make():
        return NullDevice("null", 1 << 40)

    await check_device(make, stores=False)


@pytest.fixture(params=["/dev/shm", "/var/tmp"])
def folder(request, tmp_path_factory):
    """A folder in memory, and one on a disk."""
    path = Path(request.param) / f"orionfs-test-{os.getpid()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


async def make_file(folder, **options):
    path = folder / "d0.img"
    if not path.exists():
        await create_file(path, SIZE, Environment())
    return await FileDevice.open(path, options=OpenOptions(**options), environment=Environment())


async def test_file(folder):
    async def make():
        return await make_file(folder)

    await check_device(make, reopen=make)


async def test_file_whose_calls_may_wait(folder, monkeypatch):
    monkeypatch.setattr("orionfs.backends.file.medium_of", lambda descriptor: Medium.REMOTE)

    async def make():
        device = await make_file(folder)
        assert not device.inline_writes
        assert not device.try_read(0, [bytearray(512)])
        return device

    await check_device(make, reopen=make)


@pytest.mark.parametrize("direct", [False, True])
async def test_file_on_a_server_that_takes_holes_for_advice(folder, monkeypatch, direct):
    monkeypatch.setattr("orionfs.backends.file.medium_of", lambda descriptor: Medium.REMOTE)
    for module in ("descriptor", "transfer"):
        monkeypatch.setattr(f"orionfs.backends.{module}.punch_hole", lambda descriptor, offset, length: None)

    async def make():
        return await make_file(folder, direct=direct)

    await check_device(make, reopen=make, requests=30)


async def test_file_without_holes(folder, monkeypatch):
    def refuse(descriptor, offset, length):
        raise OSError(95, "Operation not supported")

    for module in ("descriptor", "transfer"):
        monkeypatch.setattr(f"orionfs.backends.{module}.punch_hole", refuse)

    async def make():
        return await make_file(folder)

    await check_device(make, reopen=make)


async def test_file_past_the_page_cache(folder):
    async def make():
        return await make_file(folder, direct=True)

    await check_device(make, reopen=make, requests=30)


@pytest.fixture
def loop_device(tmp_path):
    """The path of a loop device over a sparse file."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    if not Path("/dev/loop-control").exists():
        pytest.skip("no /dev/loop-control: the kernel has no loop devices")
    backing = tmp_path / "disk.img"
    with backing.open("wb") as file:
        file.truncate(SIZE)
    found = subprocess.run(["losetup", "--find", "--show", backing], check=True, capture_output=True, text=True)
    path = found.stdout.strip()
    yield path
    subprocess.run(["losetup", "--detach", path], check=True)


@pytest.mark.root
@pytest.mark.parametrize("direct", [False, True])
async def test_block_device(loop_device, direct):
    async def make():
        return await BlockDevice.open(loop_device, options=OpenOptions(direct=direct), environment=Environment())

    await check_device(make, reopen=make, requests=30)


@pytest.mark.root
async def test_block_device_that_cannot_discard(loop_device, monkeypatch):
    def refuse(descriptor, offset, length):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("orionfs.backends.descriptor.punch_hole", refuse)

    async def make():
        return await BlockDevice.open(loop_device, environment=Environment())

    await check_device(make, reopen=make, requests=30)
