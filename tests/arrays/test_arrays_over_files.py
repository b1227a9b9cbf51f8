"""Arrays over real files, whose owners do things to them."""

from __future__ import annotations

import os
import random

import pytest

from orionfs.backends import OpenOptions
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.environment import Environment
from tests.arrays.kit import format_members, read, running, start

SIZE = 8 << 20


async def opened(folder, numbers):
    environment = Environment()
    options = OpenOptions(lock=False)
    return [await FileDevice.open(folder / f"d{n}", options=options, environment=environment) for n in numbers]


@pytest.mark.parametrize("first", ["read near the end", "write"])
@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid5", 4)])
async def test_a_member_that_is_truncated_is_replaced_by_redundancy_and_never_by_zeros(tmp_path, level, members, first):
    for number in range(members):
        await create_file(tmp_path / f"d{number}", SIZE, Environment())
    devices = await opened(tmp_path, range(members))
    await format_members(devices, level, chunk=65536)
    array = await start(devices)
    async with running(array):
        data = bytearray(random.Random(4).randbytes(array.geometry.size))
        await array.write(0, [bytes(data)])
        await array.flush()
        os.truncate(tmp_path / "d0", 0)
        if first == "write":
            for offset in range(0, len(data), 65536):
                await array.write(offset, [b"n" * 4096])
                data[offset : offset + 4096] = b"n" * 4096
            await array.flush()
        else:
            assert await read(array, len(data) - 65536, 65536) == data[-65536:]
        assert await read(array, 0, len(data)) == data
        assert array.state == "degraded"
    assert os.stat(tmp_path / "d0").st_size == 0
    again = await start([None, *await opened(tmp_path, range(1, members))])
    assert await read(again, 0, len(data)) == data
    await again.aclose()
