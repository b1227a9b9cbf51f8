"""What the superblocks say, and when: dirty before data, losses before acknowledgments, clean after everything."""

from __future__ import annotations

import random

import pytest
import trio

from orionfs.array.superblock import OFFSET, RESYNC_DONE, ROLE_FAULTY, SIZE, Superblock
from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, ReadOnly, Refused
from orionfs.layers.layer import Layer
from orionfs.testing.faulty import FaultyDevice
from tests.arrays.kit import Events, format_members, make, ram_members, read, reopened, running, start


class Recorder(Layer):
    """Notes every write and flush in one list that all members share."""

    def __init__(self, child, log):
        super().__init__(child)
        self.log = log

    def try_write(self, offset, buffers):
        return False

    async def write(self, offset, buffers):
        await self.child.write(offset, buffers)
        self.log.append(("superblock" if offset == OFFSET else "data", self.name))

    async def flush(self):
        await self.child.flush()
        self.log.append(("flush", self.name))


def superblocks(ram) -> list[Superblock]:
    return [Superblock.parse(bytes(device.data[OFFSET : OFFSET + SIZE]), device.geometry.size) for device in ram]


async def recorded(level: str, members: int):
    log: list[tuple[str, str]] = []
    ram = ram_members([2 << 20] * members)
    await format_members(ram, level)
    array = await start([Recorder(device, log) for device in ram])
    return array, ram, log


@pytest.mark.parametrize(("level", "members"), [("linear", 2), ("raid0", 2), ("raid1", 2), ("raid5", 3)])
async def test_assembling_and_reading_write_nothing(level, members, autojump_clock):
    array, ram, _log = await recorded(level, members)
    before = [bytes(device.data) for device in ram]
    async with running(array):
        await read(array, 0, 65536)
        await trio.sleep(5)
    assert [bytes(device.data) for device in ram] == before


@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid5", 3)])
async def test_every_member_is_durably_dirty_before_any_data(level, members, autojump_clock):
    array, ram, log = await recorded(level, members)
    async with running(array):
        await array.write(0, [b"x" * 512])
        first_data = next(index for index, (what, _who) in enumerate(log) if what == "data")
        before = log[:first_data]
        for device in ram:
            assert before.index(("superblock", device.name)) < before.index(("flush", device.name))
        assert [found.resync_offset for found in superblocks(ram)] == [0] * members
        events = superblocks(ram)[0].events
        log.clear()
        await array.write(512, [b"y" * 512])
        assert {what for what, _who in log} == {"data"}, "marked once, not for each write"
        await trio.sleep(1)
        assert [found.resync_offset for found in superblocks(ram)] == [RESYNC_DONE] * members
        assert {found.events for found in superblocks(ram)} == {events + 1}, "events only ever count up"
        marks = [index for index, (what, _who) in enumerate(log) if what == "superblock"]
        flushed = {who for what, who in log[: marks[0]] if what == "flush"}
        assert flushed == {device.name for device in ram}, "data are flushed before the clean mark"


@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid5", 3)])
async def test_closing_marks_clean_at_once(level, members):
    array, _faulty, ram = await make(level, members)
    async with running(array):
        await array.write(0, [b"x" * 512])
    assert [found.resync_offset for found in superblocks(ram)] == [RESYNC_DONE] * members


@pytest.mark.parametrize("level", ["linear", "raid0"])
async def test_levels_without_redundancy_are_never_marked(level):
    array, _faulty, ram = await make(level, 2)
    before = superblocks(ram)
    async with running(array):
        await array.write(0, [b"x" * 512])
    assert superblocks(ram) == before


@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid1", 3), ("raid5", 3)])
async def test_a_lost_member_is_on_record_before_the_write_returns(level, members, autojump_clock):
    events = Events()
    array, faulty, ram = await make(level, members, events=events)
    async with running(array):
        await array.write(0, [b"a" * 65536])
        faulty[1].fail("write", MediaError("gone"), forever=True)
        await array.write(0, [b"b" * 65536])
        found = superblocks(ram)
        for slot in range(members):
            if slot != 1:
                assert found[slot].dev_roles[found[1].dev_number] == ROLE_FAULTY
                assert found[slot].events >= found[1].events + 2, "MD trusts a member that is one behind"
    assert "member.failed" in events.kinds()


@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid5", 3)])
async def test_no_write_is_acknowledged_while_a_loss_is_not_on_record(level, members, autojump_clock):
    array, faulty, _ram = await make(level, members)
    async with running(array):
        await array.write(0, [b"a" * 512])
        gate = trio.Event()
        faulty[1].fail("write", MediaError("gone"), forever=True)
        faulty[0].block("flush", gate)  # the flush that would put the loss on record
        done: list[int] = []

        async def write(offset: int) -> None:
            await array.write(offset, [b"b" * 8192])
            done.append(offset)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, 0)
            await trio.testing.wait_all_tasks_blocked()
            for offset in range(65536, 65536 * 8, 65536):
                nursery.start_soon(write, offset)
            await trio.testing.wait_all_tasks_blocked()
            assert done == []
            gate.set()
        assert len(done) == 8


async def test_a_dirty_raid5_is_resynced_and_its_parity_mended(autojump_clock):
    array, _faulty, ram = await make("raid5", 3)
    data = random.Random(1).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [data])
        copies = reopened(ram)  # a kill: dirty, as it is now
    base = superblocks(ram)[0].data_offset * 512
    copies[2].data[base : base + 4096] = bytes(4096)  # stripe 0 of a left-symmetric array of 3: parity is on slot 2
    events = Events()
    again = await start(copies, events=events)
    assert again.state == "resyncing"
    async with running(again):
        await trio.sleep(10)
        assert again.state == "clean"
    assert events.kinds()[-2:] == ["resync.started", "resync.finished"]
    for gone in range(3):
        degraded = await start(reopened(copies, without=[gone]))
        assert await read(degraded, 0, len(data)) == data
        await degraded.aclose()


async def test_a_dirty_raid1_reads_one_copy_until_all_are_equal(autojump_clock):
    array, _faulty, ram = await make("raid1", 3, size=8 << 20)
    async with running(array):
        await array.write(0, [b"a" * array.geometry.size])
        copies = reopened(ram)
    base = superblocks(ram)[0].data_offset * 512
    for slot in (1, 2):
        copies[slot].data[base : base + array.geometry.size] = b"%d" % slot * array.geometry.size
    again = await start(copies)
    for offset in range(0, again.geometry.size, 1 << 20):
        assert await read(again, offset, 512) == b"a" * 512
    async with running(again):
        await trio.sleep(10)
        assert again.state == "clean"
    assert copies[0].data[base:] == copies[1].data[base:] == copies[2].data[base:]


async def test_an_interrupted_resync_goes_on_where_it_was(autojump_clock):
    array, _faulty, ram = await make("raid5", 3, size=16 << 20)
    async with running(array):
        await array.write(0, [random.Random(1).randbytes(array.geometry.size)])
        copies = reopened(ram)
    slow = await start([Layer(device) for device in copies])
    blocker = trio.Event()
    original = slow._engine.sync_units

    async def sync_units(first, count):
        if first:
            await blocker.wait()
        await original(first, count)

    slow._engine.sync_units = sync_units
    async with running(slow):
        await trio.sleep(5)
    offset = superblocks(copies)[0].resync_offset
    assert 0 < offset < RESYNC_DONE
    again = await start(reopened(copies))
    assert again.describe().details["effect"].startswith("readable and writable")
    assert again._engine.sync.position * 4096 == offset * 512
    await again.aclose()


@pytest.mark.parametrize(("level", "members"), [("raid1", 2), ("raid5", 4)])
@pytest.mark.parametrize("slot", [0, 1])
async def test_no_space_reaches_the_writer_and_the_array_stays_whole(level, members, slot, autojump_clock):
    array, faulty, ram = await make(level, members)
    rng = random.Random(3)
    oracle = bytearray(rng.randbytes(array.geometry.size))
    async with running(array):
        await array.write(0, [bytes(oracle)])
        faulty[slot].fail("write", NoSpace("the filesystem is full"), within=(1 << 20, 2 << 20), forever=True)
        failed = 0
        for offset in range(0, 40960, 4096):
            try:
                await array.write(offset, [b"n" * 4096])
                oracle[offset : offset + 4096] = b"n" * 4096
            except NoSpace:
                failed += 1
        assert failed
        assert array.describe().details["slots"] == "U" * members
        faulty[slot].heal()
        await trio.sleep(5)
        assert array.state == "clean", "half-written stripes are mended when there is space again"
        seen = await read(array, 0, len(oracle))
        for offset in range(0, len(oracle), 4096):
            block = seen[offset : offset + 4096]
            assert block == oracle[offset : offset + 4096] or (block == b"n" * 4096 and offset < 40960)
    for gone in range(members):
        degraded = await start(reopened(ram, without=[gone]))
        assert await read(degraded, 0, len(seen)) == seen
        await degraded.aclose()


@pytest.mark.parametrize("slot", [0, 1, 2])
async def test_no_space_on_a_degraded_raid5_loses_nothing_acknowledged(slot, autojump_clock):
    array, _faulty, ram = await make("raid5", 4)
    oracle = random.Random(3).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [oracle])
    devices = [FaultyDevice(device) if device else None for device in reopened(ram, without=[3])]
    degraded = await start(devices)
    async with running(degraded):
        await degraded.write(0, [oracle[:512]])
        devices[slot].fail("write", NoSpace("full"), within=(1 << 20, 2 << 20))
        refused = 0
        for offset in range(0, 1 << 20, 4096):
            try:
                await degraded.write(offset, [oracle[offset : offset + 4096][::-1]])
            except NoSpace:
                refused = offset
                break
        seen = await read(degraded, 0, len(oracle))
        for offset in range(0, len(oracle), 4096):
            new = oracle[offset : offset + 4096][::-1]
            allowed = (new,) if offset < refused else (new, oracle[offset : offset + 4096])
            assert seen[offset : offset + 4096] in (allowed if offset <= refused else (oracle[offset : offset + 4096],))


@pytest.mark.parametrize(("level", "members"), [("linear", 2), ("raid0", 3), ("raid1", 2), ("raid5", 3)])
async def test_a_flush_that_cannot_be_kept_fails_for_good(level, members):
    array, faulty, _ram = await make(level, members)
    for device in faulty:
        device.fail("flush", MediaError("not on the platter"))

    async def write_durably():  # which of the two fails depends on whether the superblocks had to be flushed first
        await array.write(0, [b"x" * 512])
        await array.flush()

    with pytest.raises(OrionError):
        await write_durably()
    with pytest.raises(DeviceError):
        await array.flush()
    assert array.state == "failed"
    with pytest.raises(DeviceError):
        await array.write(0, [b"x" * 512])


async def test_a_bad_sector_is_read_from_the_others_and_rewritten():
    array, faulty, _ram = await make("raid5", 3)
    data = random.Random(5).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [data])
        for device in faulty:
            device.fail("read", MediaError("unreadable"), within=(1 << 20, (1 << 20) + 4096))
        writes = [device.calls["write"] for device in faulty]
        with pytest.raises(MediaError):  # all members of one stripe at once is too much
            await read(array, 0, 65536)
        for device in faulty:
            device.heal()
        faulty[0].fail("read", MediaError("unreadable"), within=(1 << 20, (1 << 20) + 4096), forever=True)
        assert await read(array, 0, 65536) == data[:65536]
        assert faulty[0].calls["write"] == writes[0] + 1, "rewritten in place"
        assert array.state != "degraded"


async def test_a_cancelled_write_leaves_a_stripe_that_is_mended(autojump_clock):
    array, faulty, ram = await make("raid5", 3, always_wait=True)
    data = random.Random(5).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [data])
        faulty[0].block("write", trio.Event())
        with trio.move_on_after(1):
            await array.write(0, [b"z" * 4096 * 2])
        await trio.sleep(5)
        assert array.state == "clean"
        seen = await read(array, 0, len(data))
    for gone in range(3):
        degraded = await start(reopened(ram, without=[gone]))
        assert await read(degraded, 0, len(data)) == seen
        await degraded.aclose()


async def test_dirty_and_degraded_raid5_wants_force_and_raid1_does_not(autojump_clock):
    for level, members in (("raid5", 3), ("raid1", 2)):
        array, _faulty, ram = await make(level, members)
        async with running(array):
            await array.write(0, [b"q" * 65536])
            dirty = reopened(ram, without=[1])
        if level == "raid5":
            with pytest.raises(Refused, match="dirty and degraded"):
                await start(dirty)
        forced = await start(dirty, force=True)
        assert forced.state == "degraded"
        async with running(forced):
            await forced.write(65536, [b"r" * 512])
            await trio.sleep(1)
        assert superblocks([device for device in dirty if device])[0].resync_offset == RESYNC_DONE


async def test_read_only_arrays_write_nothing_at_all(autojump_clock):
    array, _faulty, ram = await make("raid5", 3)
    async with running(array):
        await array.write(0, [b"q" * 65536])
        dirty = reopened(ram)
    before = [bytes(device.data) for device in dirty]
    again = await start(dirty, read_only=True)
    async with running(again):
        await trio.sleep(5)
        with pytest.raises(ReadOnly):
            await again.write(0, [b"x" * 512])
        assert await read(again, 0, 65536) == b"q" * 65536
    assert [bytes(device.data) for device in dirty] == before


async def test_a_sector_that_cannot_be_read_keeps_only_its_stripe_unproven(autojump_clock):
    array, _faulty, ram = await make("raid5", 3, size=4 << 20)
    data = random.Random(9).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [data])
        copies = reopened(ram)
    devices = [FaultyDevice(device) for device in copies]
    events = Events()
    again = await start(devices, events=events)
    bad = superblocks(copies)[0].data_offset * 512 + 4 * 4096  # data: parity would just be written anew
    devices[0].fail("read", MediaError("unreadable"), within=(bad, bad + 4096), forever=True)
    async with running(again):
        await trio.sleep(20)
        assert again._engine.sync.suspects == {4}
        assert again.state == "resyncing"
        assert "unreadable" in again.describe().details["why"][0]
        assert events.kinds().count("resync.waiting") == 1
        devices[0].heal()
        await trio.sleep(60)
        assert again.state == "clean"
    assert superblocks(copies)[0].resync_offset == RESYNC_DONE


@pytest.mark.parametrize("pair", [(0, 1), (1, 3), (2, 3)])
async def test_an_array_that_lost_two_members_at_once_can_be_brought_back(pair, autojump_clock):
    array, faulty, ram = await make("raid5", 4)
    data = random.Random(8).randbytes(array.geometry.size)
    async with running(array):
        await array.write(0, [data])
        await array.flush()
        for slot in pair:
            for operation in ("write", "flush"):
                faulty[slot].fail(operation, MediaError("the server is gone"), forever=True)
        with pytest.raises(MediaError):
            await array.write(0, [data[: 4 * array.geometry.stripe_width]])
        assert array.state == "failed"
        for device in faulty:
            device.heal()  # the server is back, for the closing flush too
    back = reopened(ram)
    with pytest.raises(Refused, match="dirty and degraded"):
        await start(back)
    forced = await start(back, force=True)
    assert await read(forced, 0, len(data)) == data, "what was written again is what was there"
    await forced.aclose()


@pytest.mark.parametrize("level", ["linear", "raid0"])
async def test_an_array_without_redundancy_says_that_a_member_fails(level):
    array, faulty, _ram = await make(level, 2)
    assert array.state == "clean"
    faulty[0].fail("read", MediaError("unreadable"))
    with pytest.raises(MediaError):
        await read(array, 0, 4096)
    assert array.state == "degraded"
    assert "nothing can stand in" in array.describe().details["why"][0]
    await array.aclose()
