"""An array with a journal whose members are full: requests fail, and nothing else does."""

from __future__ import annotations

import pytest

from orionfs.array.logs import gap_of
from orionfs.errors import NoSpace, Refused
from orionfs.testing.faulty import FaultyDevice
from orionfs.units import KIB, MIB
from tests.arrays.kit import make, read, reopened, running, start
from tests.arrays.test_journal_in_arrays import killed


@pytest.mark.parametrize(("level", "members"), [("raid5", 4), ("raid6", 5)])
@pytest.mark.parametrize("degraded", [False, True])
async def test_a_write_that_found_no_room_in_the_log_leaves_its_stripe_believed(
    level, members, degraded, autojump_clock
):
    array, faulty, _ram = await make(level, members, size=3 * MIB, chunk=16 * KIB, consistency="journal")
    expected = bytes(range(256)) * (array.geometry.size // 256)
    async with running(array):
        await array.write(0, [memoryview(expected)])
        await array.flush()
        if degraded:
            await array.fail("d1")
        await array.write(0, [memoryview(expected[:4096])])
        gap = gap_of(array.engine.members[0].superblock)
        for device in faulty:
            device.fail("write", NoSpace("full"), forever=True, within=(gap[0] + 32 * KIB, sum(gap)))
        for offset in range(0, array.geometry.size, 256 * KIB):
            with pytest.raises(NoSpace):
                await array.write(offset, [memoryview(bytes(4096))])
        assert not array.engine.sync.needed
        assert await read(array, 0, len(expected)) == expected
        for device in faulty:
            device.heal()
        await array.write(4096, [memoryview(bytes(4096))])
    assert array.is_clean


async def test_a_replay_without_room_is_served_and_tried_again(autojump_clock):
    media, expected = await killed("raid5", 4)
    devices = [FaultyDevice(device) for device in reopened(media)]
    array = await start(devices, consistency="journal")
    low = array.engine.members[0].data_offset
    for device in devices:
        device.fail("write", NoSpace("full"), forever=True, within=(low, 3 * MIB))
    async with running(array):
        assert await read(array, 0, len(expected)) == bytes(expected)
        with pytest.raises(NoSpace):
            await array.drain()
        await array.flush()
        assert await read(array, 0, len(expected)) == bytes(expected)
        for device in devices:
            device.heal()
        await array.drain()
        assert await read(array, 0, len(expected)) == bytes(expected)


async def test_members_without_room_for_a_journal_are_refused_with_a_way_out(monkeypatch):
    _array, _faulty, ram = await make("raid5", 3, size=3 * MIB, consistency="resync")
    monkeypatch.setattr("orionfs.array.logs.free_gap", lambda _superblock: (16, 64))
    with pytest.raises(Refused, match=r"room before the data of 2 members, and 0 have it.*resync"):
        await start(reopened(ram), consistency="journal")
    for options in ({"consistency": "resync"}, {"consistency": "journal", "read_only": True}):
        array = await start(reopened(ram), **options)
        await array.aclose()
