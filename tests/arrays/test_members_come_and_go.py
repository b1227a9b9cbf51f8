"""Spares, rebuilds, replacements and members that return, with somebody writing all the time."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest
import trio

from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.superblock import OFFSET, ROLE_FAULTY, ROLE_SPARE, SIZE, Superblock
from orionfs.errors import MediaError, NotFound, Refused
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB, MIB
from tests.arrays.kit import ENVIRONMENT, Events, format_members, make, ram_members, read, reopened, running, start

LEVELS_WITH_SPARES = [
    (level, members)
    for level, members in (
        ("raid1", 2),
        ("raid1", 3),
        ("raid4", 3),
        ("raid5", 4),
        ("raid6", 5),
        ("raid10", 4),
        ("raid10", 5),
    )
    if level in LEVELS
]
SIZE_OF_MEMBER = 2 * MIB


class Writer:
    """Writes at random places all the time and knows what must be there."""

    def __init__(self, array, seed=0):
        self.array = array
        self.generator = random.Random(seed)
        self.expected = bytearray(array.geometry.size)
        self.writes = 0

    async def fill(self):
        self.expected[:] = self.generator.randbytes(len(self.expected))
        await self.array.write(0, [memoryview(bytes(self.expected))])

    async def write_once(self):
        size = len(self.expected)
        length = self.generator.choice((512, 4096, 4096, 12 * KIB, 64 * KIB))
        offset = self.generator.randrange(0, (size - length) // 512) * 512
        data = self.generator.randbytes(length)
        await self.array.write(offset, [memoryview(data)])
        self.expected[offset : offset + length] = data
        self.writes += 1

    async def run(self):
        while True:
            await self.write_once()
            await trio.sleep(0.001)

    @asynccontextmanager
    async def busy(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            yield
            nursery.cancel_scope.cancel()

    async def check(self):
        assert await read(self.array, 0, len(self.expected)) == bytes(self.expected)


async def until(condition, seconds=600):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)


def spare_device(name="s0", size=SIZE_OF_MEMBER):
    return RamDevice(name, size)


def superblock_of(ram):
    return Superblock.parse(bytes(ram.data[OFFSET : OFFSET + SIZE]), ram.geometry.size)


async def check_every_survivor(level, devices, expected):
    """Reopened without any one of the members, everything is still there."""
    for lost in range(len(devices)):
        array = await start(reopened(devices, without=[lost]))
        async with running(array):
            assert await read(array, 0, len(expected)) == bytes(expected)


@pytest.mark.parametrize("consistency", ["journal", "resync"])
@pytest.mark.parametrize(("level", "members"), LEVELS_WITH_SPARES)
async def test_a_spare_takes_over_by_itself_under_load(level, members, consistency, autojump_clock):
    events = Events()
    array, _faulty, ram = await make(level, members, consistency=consistency, size=SIZE_OF_MEMBER, events=events)
    spare = spare_device()
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.add("s0", spare)
        assert [member.label for member in array.roster.spares] == ["s0"]
        async with writer.busy():
            await array.fail("d1")
            await until(lambda: array.roster.slots[1].active)
            await trio.sleep(0.05)
        assert writer.writes > 10
        await writer.check()
        assert array.roster.slots[1].label == "s0"
        await until(lambda: array.state == "clean")
    media = [*ram]
    media[1] = spare
    assert {superblock_of(device).events for device in media} == {superblock_of(spare).events}
    assert superblock_of(spare).role == 1
    assert not superblock_of(spare).is_recovering
    assert superblock_of(ram[0]).role_of(superblock_of(ram[1]).dev_number) == ROLE_FAULTY
    await check_every_survivor(level, media, writer.expected)
    assert "recovery.finished" in events.kinds()


@pytest.mark.parametrize("consistency", ["journal", "resync"])
@pytest.mark.parametrize(("level", "members"), LEVELS_WITH_SPARES)
async def test_a_replacement_never_leaves_the_array_degraded(level, members, consistency, autojump_clock):
    array, _faulty, ram = await make(level, members, consistency=consistency, size=SIZE_OF_MEMBER)
    spare = spare_device()
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.add("s0", spare)
        async with writer.busy():
            await array.replace("d0")
            while array.roster.slots[0].label == "d0":
                assert not array.roster.gone()
                await trio.sleep(0.001)
        await writer.check()
        await until(lambda: array.state == "clean")
        with pytest.raises(Refused, match="in use"):
            await array.remove("s0")
        device = await array.remove("d0")
        await device.aclose()
    await check_every_survivor(level, [spare, *ram[1:]], writer.expected)


@pytest.mark.parametrize("consistency", ["journal", "resync"])
@pytest.mark.parametrize(("level", "members"), LEVELS_WITH_SPARES)
async def test_a_rebuild_goes_on_where_it_was_after_a_restart(level, members, consistency, autojump_clock):
    array, _faulty, ram = await make(level, members, consistency=consistency, size=SIZE_OF_MEMBER)
    array.policies.rebuild_ceiling = 256 * KIB
    spare = spare_device()
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.add("s0", spare)
        await array.fail("d1")
        await until(lambda: 0 < array.roster.slots[1].valid < MIB)
        await writer.write_once()
    recorded = superblock_of(spare)
    assert recorded.is_recovering
    assert 0 < recorded.recovery_offset * 512 < MIB
    media = reopened([ram[0], spare, *ram[2:]])
    array = await start(media, consistency=consistency)
    assert array.roster.slots[1].state == "rebuilding"
    assert array.roster.slots[1].valid == recorded.recovery_offset * 512
    async with running(array):
        writer.array = array
        await writer.check()
        async with writer.busy():
            await until(lambda: array.roster.slots[1].active)
        await writer.check()
    await check_every_survivor(level, media, writer.expected)


@pytest.mark.parametrize("consistency", ["journal", "resync"])
@pytest.mark.parametrize(("level", "members"), LEVELS_WITH_SPARES)
async def test_a_target_that_fails_is_given_up_and_the_next_spare_takes_over(
    level, members, consistency, autojump_clock
):
    array, _faulty, ram = await make(level, members, consistency=consistency, size=SIZE_OF_MEMBER)
    bad, good = FaultyDevice(spare_device("bad")), spare_device("good")
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.add("bad", bad)
        await array.fail("d1")
        await until(lambda: array.roster.slots[1].label == "bad")
        bad.fail("write", MediaError("worn out"))
        await array.add("good", good)
        await until(lambda: array.roster.slots[1].label == "good" and array.roster.slots[1].active)
        await writer.check()
    media = [*ram]
    media[1] = good
    await check_every_survivor(level, media, writer.expected)


async def test_what_makes_no_sense_is_refused(autojump_clock):
    array, _faulty, _ram = await make("raid5", 3, size=SIZE_OF_MEMBER)
    async with running(array):
        with pytest.raises(Refused, match="no spare to replace d0 with"):
            await array.replace("d0")
        with pytest.raises(NotFound, match="there is no member d9"):
            await array.fail("d9")
        with pytest.raises(Refused, match="needs"):
            await array.add("small", RamDevice("small", MIB))
        used = RamDevice("used", SIZE_OF_MEMBER)
        await format_members([used, RamDevice("other", SIZE_OF_MEMBER)], "raid1")
        with pytest.raises(Refused, match="already holds"):
            await array.add("used", used)
        await array.fail("1")
        with pytest.raises(Refused, match="cannot do without it"):
            await array.fail("d0")
        with pytest.raises(Refused, match="failed already"):
            await array.fail("d1")
        await (await array.remove("d1")).aclose()
        assert array.state == "degraded"
        with pytest.raises(NotFound):
            await array.remove("d1")


async def test_a_removed_member_is_forgotten_on_the_media(autojump_clock):
    array, _faulty, ram = await make("raid1", 2, size=SIZE_OF_MEMBER)
    async with running(array):
        await array.fail("d0")
        number = superblock_of(ram[0]).dev_number
        assert superblock_of(ram[1]).role_of(number) == ROLE_FAULTY
        await (await array.remove("d0")).aclose()
        assert superblock_of(ram[1]).role_of(number) == ROLE_SPARE


async def test_arrays_without_redundancy_have_no_spares(autojump_clock):
    array, _faulty, _ram = await make("raid0", 2)
    async with running(array):
        with pytest.raises(Refused, match="no use for a spare"):
            await array.add("s0", spare_device())


async def test_jobs_can_be_paused(autojump_clock):
    array, _faulty, _ram = await make("raid1", 2, size=SIZE_OF_MEMBER)
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        array.pause()
        await array.add("s0", spare_device())
        await array.fail("d0")
        await until(lambda: array.roster.slots[0].label == "s0")
        await trio.sleep(5)
        assert array.describe().details["job"]["state"] == "paused"
        assert not array.roster.slots[0].active
        array.resume()
        await until(lambda: array.roster.slots[0].active)


async def test_two_members_of_a_mirror_can_both_be_rebuilt(autojump_clock):
    array, _faulty, ram = await make("raid1", 3, size=SIZE_OF_MEMBER)
    spares = [spare_device("s0"), spare_device("s1")]
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        for label, device in zip(("s0", "s1"), spares, strict=True):
            await array.add(label, device)
        async with writer.busy():
            await array.fail("d0")
            await array.fail("d1")
            await until(lambda: all(member.active for member in array.roster.slots))
        await writer.check()
    for device in (*spares, ram[2]):
        assert bytes(device.data[MIB : MIB + len(writer.expected)]) == bytes(writer.expected)


async def test_a_spare_on_the_media_is_a_spare_after_a_restart(autojump_clock):
    array, _faulty, ram = await make("raid1", 2, size=SIZE_OF_MEMBER)
    spare = spare_device()
    async with running(array):
        await array.add("s0", spare)
    array = await start(reopened([*ram, spare]))
    assert [member.label for member in array.roster.spares] == ["d2"]
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.fail("d0")
        await until(lambda: array.roster.slots[0].active)
        await writer.check()


async def test_a_member_that_failed_and_returns_is_stale_until_it_is_filled(autojump_clock):
    devices = ram_members([SIZE_OF_MEMBER] * 2)
    await format_members(devices, "raid1")
    array = await start(devices)
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.fail("d0")
        await writer.write_once()
        assert array.roster.slots[0].state == "failed"
        async with writer.busy():
            await array.readd("d0")
            await until(lambda: array.roster.slots[0].active)
        await writer.check()
    for device in devices:
        assert bytes(device.data[MIB : MIB + len(writer.expected)]) == bytes(writer.expected)


async def test_a_member_that_fails_while_bits_are_cleared_is_still_covered(autojump_clock):
    """What was cleared was durable on it; what is written from then on has its bit."""
    devices = ram_members([SIZE_OF_MEMBER] * 3)
    spec = MdSpec(level=5, name="test", layout=2, chunksize=8, bitmap=True)
    await create_array(devices, spec=spec, environment=ENVIRONMENT, freshly_made=True)
    events = Events()
    array = await start([FaultyDevice(device) for device in devices], events=events)
    async with running(array):
        writer = Writer(array)
        await writer.fill()
        await array.flush()
        array.bitmap.snapshot()
        snapshot = array.bitmap.snapshot()
        await array.fail("d1")
        assert await array.bitmap.tidy(snapshot) == []
        await writer.write_once()
        await array.readd("d1")
        await until(lambda: array.roster.slots[1].active)
        await writer.check()
    assert any("by the bitmap" in message for _kind, message in events.seen)
    await check_every_survivor("raid5", devices, writer.expected)
