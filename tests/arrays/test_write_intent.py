"""WriteIntent: bits are durable before data are written and outlive them, whatever the power cut leaves."""

import random

import pytest
import trio

from orionfs.array.bitmap import STATE_STALE, Bitmap, DamagedBitmap, UnsupportedBitmap
from orionfs.array.member import Member
from orionfs.array.superblock import FEATURE_BITMAP, Superblock
from orionfs.array.write_intent import WriteIntent, find_bitmap, read_bitmap
from orionfs.errors import MediaError, NoSpace
from orionfs.testing.crash import choices, outcome
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.testing.simdisk import SimDisk, after_cut
from orionfs.testing.simulation import run

KIB, MIB = 1 << 10, 1 << 20
UUID = bytes(range(16))
PLACE = 8192
DATA = 2048 * 512


def superblock(size=MIB, **fields):
    values = {"data_offset": 2048, "data_size": size // 512, "size": size // 512, "events": 4, "bitmap_offset": 8}
    values |= {"feature_map": FEATURE_BITMAP, "bblog_size": 8, "bblog_offset": 16}
    return Superblock(UUID, bytes(16), 1, 2, 0, [0, 1], **values | fields)


def members_on(devices, **fields):
    return [
        Member(slot, device.name, device, superblock(device.geometry.size - DATA, **fields))
        for slot, device in enumerate(devices)
    ]


def bitmap_of(size=MIB, chunk=64 * KIB, **fields):
    return Bitmap(UUID, 4, 4, size // 512, chunk, **fields)


def make(count=2, size=MIB, chunk=64 * KIB, inline=True, **fields):
    """A bitmap on faulty devices on RAM."""
    faulty = [FaultyDevice(RamDevice(f"d{slot}", DATA + size), inline=inline) for slot in range(count)]
    members = members_on(faulty)
    return WriteIntent(members, bitmap_of(size, chunk, **fields)), members, faulty


def stored(member):
    """What is on the medium of *member*."""
    device = member.device
    while hasattr(device, "child"):
        device = device.child
    return Bitmap.parse(bytes(device.data[PLACE : PLACE + 4096]))


async def found(members, size=MIB, **fields):
    return await find_bitmap(
        [(member.label, member.superblock, member.device) for member in members],
        freshest=superblock(**fields),
        sync_size=size // 512,
    )


# --- setting ---------------------------------------------------------------------------------------------------------


async def test_a_bit_is_durable_on_every_member_before_a_write_may_begin():
    intent, members, devices = make()
    assert not intent.begin(70 * KIB, 71 * KIB)
    assert [device.calls["write"] for device in devices] == [0, 0]
    assert await intent.set(70 * KIB, 71 * KIB) == []
    for member, device in zip(members, devices, strict=True):
        assert stored(member).dirty_ranges() == [(64 * KIB, 128 * KIB)]
        assert (device.calls["write"], device.calls["flush"]) == (1, 1)
    assert intent.begin(64 * KIB, 128 * KIB), "the next one goes ahead at once"
    assert not intent.begin(127 * KIB, 129 * KIB), "this one needs another bit"
    assert intent.dirty_ranges() == [(64 * KIB, 192 * KIB)]
    assert intent.is_dirty(0, 65 * KIB)
    assert not intent.is_dirty(0, 64 * KIB)
    assert not intent.is_dirty(192 * KIB, MIB)


async def test_nothing_is_written_before_the_first_change_which_writes_it_whole():
    intent, members, devices = make()
    for device in devices:
        device.child.data[PLACE : PLACE + 512] = b"\xa5" * 512
    assert intent.describe() == {"chunk": 65536, "chunks": 16, "dirty_chunks": 0}
    assert await intent.note_events(5) == []
    assert [stored(member).events for member in members] == [5, 5]


async def test_setters_at_the_same_time_share_one_update():
    intent, members, devices = make(inline=False)
    gate = trio.Event()
    devices[0].block("write", gate)

    async def write(chunk):
        assert not intent.begin(chunk * 64 * KIB, chunk * 64 * KIB + 1)
        assert await intent.set(chunk * 64 * KIB, chunk * 64 * KIB + 1) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, 0)
        await trio.testing.wait_all_tasks_blocked()
        for chunk in (3, 5, 9, 15):
            nursery.start_soon(write, chunk)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert devices[1].calls["write"] == 2
    assert list(stored(members[1]).dirty_chunks()) == [0, 3, 5, 9, 15]


async def test_bits_that_are_wanted_go_along_with_the_event_count():
    intent, members, devices = make()
    intent.begin(0, 1)
    await intent.note_events(5)
    assert await intent.set(0, 1) == []
    assert devices[0].calls["write"] == 1
    assert list(stored(members[0]).dirty_chunks()) == [0]


async def test_a_stream_sets_bits_ahead():
    intent, members, _devices = make(size=64 * MIB, chunk=256 * KIB)
    updates = 0
    for offset in range(0, 64 * MIB, 64 * KIB):
        if not intent.begin(offset, offset + 64 * KIB):
            updates += 1
            await intent.set(offset, offset + 64 * KIB)
        intent.end(offset, offset + 64 * KIB)
    assert updates <= 40, "256 chunks, 9 at a time"
    assert stored(members[0]).dirty_ranges() == [(0, 64 * MIB)]


@pytest.mark.parametrize("operation", ["write", "flush"])
async def test_a_member_that_fails_is_reported_to_everyone_until_it_is_given_up(operation):
    intent, members, devices = make(inline=False)
    devices[1].fail(operation, lambda: MediaError("broken"), forever=True)
    reports = []

    async def write(chunk):
        intent.begin(chunk * 64 * KIB, chunk * 64 * KIB + 1)
        reports.extend(await intent.set(chunk * 64 * KIB, chunk * 64 * KIB + 1))

    async with trio.open_nursery() as nursery:
        for chunk in (0, 5):
            nursery.start_soon(write, chunk)
    assert [(member, error.message) for member, error in reports] == [(members[1], "broken")] * 2
    assert not intent.begin(0, 1), "it does not count as set"
    members[1].lose("broken")
    assert await intent.set(0, 1) == []
    assert intent.begin(0, 1)
    assert list(stored(members[0]).dirty_chunks()) == [0, 5]


async def test_a_flush_without_space_is_a_failure_of_the_member():
    intent, _members, devices = make()
    devices[0].fail("flush", NoSpace("full"))
    ((_member, error),) = await intent.set_all()
    assert isinstance(error, MediaError)


async def test_an_update_that_is_cancelled_does_not_count():
    intent, members, devices = make(inline=False)
    devices[0].block("write", trio.Event())
    intent.begin(0, 1)
    with trio.move_on_after(0):
        await intent.set(0, 1)
    devices[0].heal()
    assert not intent.begin(0, 1)
    assert await intent.set(0, 1) == []
    assert list(stored(members[0]).dirty_chunks()) == [0]


# --- members ---------------------------------------------------------------------------------------------------------


async def test_only_members_that_are_written_to_and_have_a_bitmap_are_kept_up_to_date():
    intent, members, _devices = make(5)
    members[1].lose("gone")
    members[2].fill(0)
    members[3].superblock.feature_map = 0
    copy = members_on([RamDevice("copy", DATA + MIB)])[0]
    copy.fill(0, "replacing")
    members[4].copy = copy
    await intent.set_all()
    written = [bool(member.device.calls["write"]) for member in members]
    assert written == [True, False, True, False, True]
    assert copy.device.counters.writes == 1


async def test_the_whole_bitmap_is_stored_on_a_member_that_joins():
    intent, _members, _devices = make()
    intent.begin(0, 1)
    joining = members_on([RamDevice("new", DATA + MIB)])[0]
    assert await intent.store_on(joining) == []
    assert list(stored(joining).dirty_chunks()) == [0]
    assert joining.device.data[PLACE + 512 : PLACE + 4096] == b"\xff" * 3584, "the padding too"
    assert joining.device.flushes == 1
    broken = FaultyDevice(RamDevice("broken", DATA + MIB))
    broken.fail("write", MediaError("no"))
    assert len(await intent.store_on(members_on([broken])[0])) == 1


async def test_members_with_large_blocks_get_whole_blocks():
    devices = [RamDevice("a", DATA + MIB, 4096), RamDevice("b", DATA + MIB)]
    members = members_on(devices)
    intent = WriteIntent(members, bitmap_of())
    intent.begin(0, 1)
    assert await intent.set(0, 1) == []
    assert list(stored(members[0]).dirty_chunks()) == [0]
    assert devices[0].data[PLACE : PLACE + 4096] == devices[1].data[PLACE : PLACE + 4096]
    assert (await read_bitmap(devices[0], members[0].superblock)).chunks == 16


# --- tidying ---------------------------------------------------------------------------------------------------------


async def dirty(intent, *chunks):
    for chunk in chunks:
        where = chunk * 64 * KIB, chunk * 64 * KIB + 1
        intent.begin(*where)
        await intent.set(*where)
        intent.end(*where)


async def test_a_bit_is_cleared_after_a_whole_interval_without_writes():
    intent, members, _devices = make()
    await dirty(intent, 0, 4)
    assert intent.untidy
    assert await intent.tidy(intent.snapshot()) == []
    assert intent.describe()["dirty_chunks"] == 2, "both were written since the last snapshot"
    await dirty(intent, 4)
    await intent.tidy(intent.snapshot())
    assert list(stored(members[1]).dirty_chunks()) == [4]
    assert not intent.begin(0, 1), "it is not set any more"
    await intent.tidy(intent.snapshot())
    assert list(stored(members[1]).dirty_chunks()) == [0], "it is in flight, and 4 was idle"
    intent.end(0, 1)
    await intent.tidy(intent.snapshot())
    await intent.tidy(intent.snapshot())
    assert not intent.untidy
    assert not list(stored(members[1]).dirty_chunks())


async def test_a_write_between_snapshot_and_clearing_keeps_its_bit():
    intent, members, _devices = make()
    await dirty(intent, 0, 7)
    intent.snapshot()
    snapshot = intent.snapshot()
    assert snapshot == {0, 7}
    assert intent.begin(0, 1)
    intent.end(0, 1)
    await intent.tidy(snapshot)
    assert list(stored(members[0]).dirty_chunks()) == [0]
    assert intent.begin(0, 1)


async def test_forgetting_is_on_record_before_it_happens():
    """The bits of a large bitmap lie behind the sector that says up to when bits were forgotten."""
    intent, members, devices = make(size=512 * MIB)
    await dirty(intent, 5000)
    intent.snapshot()
    await intent.note_events(9)
    assert intent.covers(4), "nothing has been forgotten yet"
    devices[0].fail("flush", MediaError("no"), nth=2)
    ((member, _error),) = await intent.tidy(intent.snapshot())
    assert member is members[0]
    for each in members:
        assert stored_at(each, 5000 // 8) == 0
        assert stored(each).events_cleared == 9
    assert not intent.covers(8)
    assert intent.covers(9)


async def test_a_failure_to_record_that_bits_are_forgotten_keeps_them():
    intent, members, devices = make(size=512 * MIB)
    await dirty(intent, 5000)
    intent.snapshot()
    await intent.note_events(9)
    devices[0].fail("flush", MediaError("no"))
    assert len(await intent.tidy(intent.snapshot())) == 1
    assert [stored_at(each, 5000 // 8) for each in members] == [1, 1]


def stored_at(member, index):
    return member.device.child.data[PLACE + 256 + index]


async def test_what_is_forgotten_is_what_a_member_needs_that_was_away():
    intent, members, _devices = make()
    await dirty(intent, 1)
    await intent.note_events(6)
    members[1].lose("away")  # with event count 6
    await intent.note_events(8)
    await dirty(intent, 3)
    assert intent.covers(6)
    assert intent.dirty_ranges() == [(64 * KIB, 128 * KIB), (192 * KIB, 256 * KIB)]
    # Somebody else takes its slot, and when all is in sync again bits are forgotten.
    intent.snapshot()
    await intent.tidy(intent.snapshot())
    assert not intent.covers(6)
    assert intent.covers(8)


async def test_an_event_count_that_goes_back_takes_the_forgotten_along():
    intent, members, _devices = make()
    await intent.note_events(3)
    assert stored(members[0]).events_cleared == 3
    assert intent.covers(3)


async def test_setting_everything_forgets_everything():
    intent, members, _devices = make()
    await intent.note_events(7)
    assert await intent.set_all() == []
    assert intent.begin(0, MIB)
    assert stored(members[1]).dirty_ranges() == [(0, MIB)]
    assert stored(members[1]).events_cleared == 7


# --- finding ---------------------------------------------------------------------------------------------------------


async def test_what_any_current_bitmap_lists_is_dirty():
    _intent, members, devices = make(3)
    for slot, (device, events) in enumerate(zip(devices, (4, 5, 3), strict=True)):
        bitmap = Bitmap(UUID, events, 2 + (slot == 0), MIB // 512, 64 * KIB)
        bitmap.set_chunks(slot, slot)
        device.child.data[PLACE : PLACE + 4096] = bitmap.encode()
    result = await found(members)
    assert not result.stale
    assert list(result.bitmap.dirty_chunks()) == [0, 1], "the third is behind the superblocks"
    assert (result.bitmap.events, result.bitmap.events_cleared) == (5, 3)
    assert result.notices == ("d2 has a write-intent bitmap that is out of date",)
    intent = WriteIntent(members, result.bitmap)
    await intent.note_events(6)
    assert [list(stored(member).dirty_chunks()) for member in members] == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda bitmap: setattr(bitmap, "events", 3), "out of date"),
        (lambda bitmap: setattr(bitmap, "state", STATE_STALE), "out of date"),
        (lambda bitmap: setattr(bitmap, "uuid", bytes(16)), "another array"),
        (lambda bitmap: setattr(bitmap, "daemon_sleep", 0), "never tidied"),
    ],
)
async def test_if_no_bitmap_counts_everything_is_dirty(spoil, says):
    _intent, members, devices = make(1)
    bitmap = bitmap_of(chunk=32 * KIB)
    spoil(bitmap)
    devices[0].child.data[PLACE : PLACE + 4096] = bitmap.encode()
    result = await found(members)
    assert result.stale
    assert says in result.notices[0]
    assert result.bitmap.dirty_ranges() == [(0, MIB)]
    assert result.bitmap.events_cleared == 4
    assert result.bitmap.chunksize == (32 * KIB if says == "out of date" else 64 * KIB)
    intent = WriteIntent(members, result.bitmap, stale=True)
    assert not intent.begin(0, 1), "the medium does not say so yet"
    await intent.set(0, 1)
    assert stored(members[0]).dirty_ranges() == [(0, MIB)]
    assert stored(members[0]).is_trustworthy


async def test_a_bitmap_that_cannot_be_read_is_no_reason_not_to_start():
    _intent, members, devices = make(2)
    devices[1].child.data[PLACE : PLACE + 4096] = bitmap_of().encode()
    devices[0].fail("read", MediaError("bad sector"))
    result = await found(members)
    assert not result.stale
    assert result.notices == ("the write-intent bitmap of d0 cannot be read: bad sector",)


async def test_bitmaps_of_different_grain_are_joined_in_that_of_the_newest():
    _intent, members, devices = make(2)
    fine, coarse = Bitmap(UUID, 5, 1, MIB // 512, 4 * KIB), Bitmap(UUID, 4, 1, MIB // 1024, 64 * KIB)
    fine.set(0, 1)
    coarse.set(100 * KIB, 101 * KIB)
    for device, bitmap in zip(devices, (fine, coarse), strict=True):
        device.child.data[PLACE : PLACE + 4096] = bitmap.encode()
    result = await found(members)
    assert result.bitmap.chunksize == 4 * KIB
    assert result.bitmap.dirty_ranges() == [(0, 4 * KIB), (64 * KIB, 128 * KIB)]


async def test_what_a_bitmap_does_not_reach_is_dirty():
    _intent, members, devices = make(1)
    devices[0].child.data[PLACE : PLACE + 4096] = bitmap_of(MIB // 2).encode()
    assert (await found(members)).bitmap.dirty_ranges() == [(MIB // 2, MIB)]


async def test_a_bitmap_that_must_not_be_written_to_stops_the_array():
    _intent, members, devices = make(1)
    image = bitmap_of().encode()
    image[4] = 5
    devices[0].child.data[PLACE : PLACE + 4096] = image
    with pytest.raises(UnsupportedBitmap, match="d0 has a write-intent bitmap of version 5"):
        await found(members)


@pytest.mark.parametrize("offset", [-9, 0, -2000000000, 16, 20, 2040, 2000000000])
async def test_superblocks_that_leave_no_place_for_a_bitmap(offset):
    device = RamDevice("d0", DATA + MIB)
    (member,) = members_on([device], bitmap_offset=offset)
    with pytest.raises(DamagedBitmap, match="leaves no place"):
        await read_bitmap(device, member.superblock)
    with pytest.raises(DamagedBitmap, match="leave no place"):
        await found([member], bitmap_offset=offset)


async def test_a_bitmap_between_superblock_and_page_end_is_where_older_kernels_put_it():
    device = RamDevice("d0", DATA + MIB)
    (member,) = members_on([device], bitmap_offset=2, bblog_offset=8)
    intent = WriteIntent([member], bitmap_of())
    intent.begin(0, 1)
    assert await intent.set(0, 1) == []
    assert await intent.store_on(member) == []
    assert list((await read_bitmap(device, member.superblock)).dirty_chunks()) == [0]
    assert not any(device.data[8192:]), "the page is not filled beyond its end"


# --- the rule --------------------------------------------------------------------------------------------------------

CHUNK, SIZE = 4 * KIB, 32 * KIB


class ClearsEarly(WriteIntent):
    """A planted bug: it forgets what is still in flight or not durable."""

    def snapshot(self):
        return frozenset(self._bitmap.dirty_chunks())

    async def tidy(self, snapshot):
        self._recent.clear()
        return await super().tidy(snapshot)

    def end(self, low, high):
        pass


class SetsLate(WriteIntent):
    """A planted bug: a write may begin before its bit is durable."""

    def begin(self, low, high):
        super().begin(low, high)
        return True


class SkipsAMember(WriteIntent):
    """A planted bug: one member's bitmap is left behind."""

    def _targets(self):
        return list(super()._targets())[:1]


async def life(simulation, kind, observe):
    """Writers on a mirror of two, and somebody who tidies up."""
    disks = [SimDisk(f"d{slot}", DATA + SIZE, machine=simulation.machine) for slot in range(2)]
    members = members_on(disks)
    generator = simulation.random("life")
    intent = kind(members, bitmap_of(SIZE, CHUNK))
    for member in members:
        await intent.store_on(member)
    simulation.machine.observer = lambda: observe(disks)
    await intent.note_events(5)

    async def writer(number):
        for _ in range(6):
            low = generator.randrange(0, SIZE // CHUNK) * CHUNK + generator.randrange(8) * 512
            data = generator.randbytes(512)
            if not intent.begin(low, low + 512):
                assert await intent.set(low, low + 512) == []
            for disk in generator.sample(disks, 2):
                await disk.write(DATA + low, [data])
                await simulation.environment.clock.sleep(generator.choice([0, 0, 0.5]))
            intent.end(low, low + 512)
            await simulation.environment.clock.sleep(generator.random())

    async def janitor():
        while True:
            await simulation.environment.clock.sleep(0.4)
            snapshot = intent.snapshot()
            for disk in disks:
                await disk.flush()
            assert await intent.tidy(snapshot) == []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(janitor)
        async with trio.open_nursery() as writers:
            for number in range(3):
                writers.start_soon(writer, number)
        nursery.cancel_scope.cancel()


async def check_rule(disks):
    """Wherever the copies differ, each member's bitmap and the joined one say that they may."""
    contents = [disk.content(DATA, SIZE) for disk in disks]
    members = members_on(disks)
    views = [await read_bitmap(member.device, member.superblock) for member in members]
    views.append((await found(members, SIZE)).bitmap)
    for low in range(0, SIZE, 512):
        if contents[0][low : low + 512] != contents[1][low : low + 512]:
            for view in views:
                assert view[low // CHUNK], f"the copies differ at {low}, and the bitmap does not know"
    return views


def states_of(kind, seed):
    """Check the rule in states that a cut may leave; how many there were, and how many bits were clear in them."""
    generator = random.Random(seed)
    wrecks = []

    def observe(disks):
        pending = [write for disk in disks for write in disk.unflushed]
        if generator.random() < 0.4:
            options = choices(pending, 3)
            for choice in generator.sample(options, min(len(options), 4)):
                parts = outcome(pending, choice, generator.randrange(1 << 30))
                wrecks.append([after_cut(disk.state(), parts) for disk in disks])

    run(seed, lambda simulation: life(simulation, kind, observe))

    async def check(simulation):
        clear = 0
        for states in wrecks:
            disks = [SimDisk.restored(state, machine=simulation.machine) for state in states]
            clear += sum(not bit for view in await check_rule(disks) for bit in map(view.__getitem__, range(8)))
        return clear

    return len(wrecks), run(seed, check).value


def test_after_any_cut_whatever_differs_is_on_record():
    states = clear = 0
    for seed in range(12):
        count, unset = states_of(WriteIntent, seed)
        states += count
        clear += unset
    assert states > 1000
    assert clear > states, "a bitmap whose bits are all set proves nothing"


@pytest.mark.parametrize("kind", [ClearsEarly, SetsLate, SkipsAMember])
def test_the_rule_finds_planted_bugs(kind):
    def campaign():
        for seed in range(12):
            states_of(kind, seed)

    with pytest.raises(AssertionError, match="does not know"):
        campaign()
