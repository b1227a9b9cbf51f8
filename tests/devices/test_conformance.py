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
from orionfs.backends.memory import MemoryDevice
from orionfs.backends.medium import Medium
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
