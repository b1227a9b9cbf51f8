"""The journal as part of an array: what a kill leaves is replayed, whoever is missing, and only if it belongs there."""

from __future__ import annotations

import random

import pytest

from orionfs.array.superblock import OFFSET, SIZE, Superblock, pack_time
from orionfs.errors import Refused
from orionfs.units import KIB, MIB
from tests.arrays.kit import Events, make, read, reopened, running, start

SHAPES = [("raid4", 3, 1), ("raid5", 2, 1), ("raid5", 4, 1), ("raid6", 4, 2), ("raid6", 6, 2)]


async def killed(level, members, *, consistency="journal"):
    """An array that was killed with a log full of small writes: its media, and what must be on it."""
    array, _faulty, ram = await make(level, members, size=3 * MIB, chunk=16 * KIB, consistency=consistency)
    generator = random.Random(members)
    expected = bytearray(generator.randbytes(array.geometry.size))
    async with running(array):
        await array.write(0, [memoryview(bytes(expected))])
        await array.flush()
        for _ in range(40):
            offset = generator.randrange(0, len(expected) // 4096) * 4096
            data = generator.randbytes(4096)
            await array.write(offset, [memoryview(data)])
            expected[offset : offset + 4096] = data
        media = reopened(ram)
    return media, expected


@pytest.mark.parametrize(("level", "members", "losses"), SHAPES)
async def test_a_kill_loses_nothing_and_no_member_is_needed(level, members, losses, autojump_clock):
    media, expected = await killed(level, members)
    for first in range(members):
        gone = [(first + step) % members for step in range(losses)]
        events = Events()
        array = await start(reopened(media, without=gone), consistency="journal", events=events)
        assert any("journal is replayed" in message for _kind, message in events.seen)
        async with running(array):
            assert await read(array, 0, len(expected)) == bytes(expected)
            await array.drain()
            assert await read(array, 0, len(expected)) == bytes(expected)


@pytest.mark.parametrize(("level", "members", "losses"), SHAPES)
async def test_what_was_replayed_is_in_place_for_any_reader(level, members, losses, autojump_clock):
    media, expected = await killed(level, members)
    array = await start(media, consistency="journal")
    async with running(array):
        assert await read(array, 0, len(expected)) == bytes(expected)
    for first in range(members):
        plain = await start(reopened(media, without=[first]), consistency="resync")
        assert await read(plain, 0, len(expected)) == bytes(expected)
        await plain.aclose()


async def test_for_reading_a_journal_is_served_and_nothing_is_written(autojump_clock):
    media, expected = await killed("raid5", 4)
    before = [bytes(device.data) for device in media]
    array = await start(media, consistency="journal", read_only=True)
    async with running(array):
        assert await read(array, 0, len(expected)) == bytes(expected)
        extents = [extent async for extent in array.extents(0, array.geometry.size)]
        assert sum(extent.length for extent in extents) == array.geometry.size
    assert [bytes(device.data) for device in media] == before


def run_elsewhere(media):
    """What another driver's run leaves in the superblocks."""
    for device in media:
        superblock = Superblock.parse(bytes(device.data[OFFSET : OFFSET + SIZE]), device.geometry.size)
        superblock.events += 3
        superblock.utime = pack_time(1_900_000_000 * 10**9)
        device.data[OFFSET : OFFSET + SIZE] = superblock.encode()


async def test_an_empty_journal_of_before_somebody_else_ran_the_array_is_not_worth_a_word(autojump_clock):
    array, _faulty, ram = await make("raid5", 4, size=3 * MIB, chunk=16 * KIB, consistency="journal")
    async with running(array):
        for number in range(20):
            await array.write(number * 68 * KIB, [bytes([number]) * 4096])
    media = reopened(ram)
    run_elsewhere(media)
    events = Events()
    array = await start(media, consistency="journal", events=events)
    await array.aclose()
    assert events.seen == []


async def test_a_journal_of_before_somebody_else_ran_the_array_is_discarded(autojump_clock):
    media, _expected = await killed("raid5", 4)
    run_elsewhere(media)
    events = Events()
    array = await start(reopened(media), consistency="journal", events=events)
    assert any("journal was discarded" in message for _kind, message in events.seen)
    assert array.engine.sync.needed, "it is plain dirty MD"
    await array.aclose()
    with pytest.raises(Refused, match="dirty and degraded"):
        await start(reopened(media, without=[1]), consistency="journal")


async def test_dirty_and_degraded_without_a_log_is_refused(autojump_clock):
    media, _expected = await killed("raid6", 4, consistency="resync")
    with pytest.raises(Refused, match="dirty and degraded"):
        await start(reopened(media, without=[1]), consistency="journal")
