"""Which journal is believed, and what a replay makes of it."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
import trio

from orionfs.array.journal_format import HEADER_SPACE, SLOT, Mark, parse_header
from orionfs.array.journal_replay import Present, examine
from orionfs.array.superblock import OFFSET, ROLE_FAULTY, SIZE, Superblock
from orionfs.errors import MediaError, NoSpace
from orionfs.units import KIB, SECTOR

from .journal_kit import BLOCK, CHUNK, GAP, Shape, superblock_of
from .journal_stage import FOUR, Stage

RING = GAP + HEADER_SPACE


@pytest.fixture
async def stage():
    """Three records in the log, nothing in place."""
    stage = Stage()
    await stage.begin()
    for number in (1, 2, 3):
        await stage.write((2, number, number), (3, number, number + 10))
    return stage


ALL = [(slot, number, number + extra) for number in (1, 2, 3) for slot, extra in ((2, 0), (3, 10))]


async def rewrite(stage: Stage, slot: int, **fields: Any) -> None:
    """Change fields of the superblock on the medium of *slot*."""
    device = stage.ram[slot]
    superblock = await superblock_of(device)
    for name, value in fields.items():
        setattr(superblock, name, value)
    device.data[OFFSET : OFFSET + SIZE] = superblock.encode()


async def change_as_ours(stage: Stage, slots: Any = range(4), **fields: Any) -> dict[int, bytes]:
    """What :class:`SuperblockSet` does: the journal hears of it, then the media change; what was there before."""
    expected, images, before = {}, {}, {}
    events = utime = 0
    for slot in slots:
        superblock = await superblock_of(stage.ram[slot])
        before[slot] = superblock.encode()
        for name, value in fields.items():
            setattr(superblock, name, value)
        images[slot] = superblock.encode()
        events, utime = superblock.events, superblock.utime
        checksums = [struct.unpack_from("<I", image, 216)[0] for image in (before[slot], images[slot])]
        expected[superblock.device_uuid] = checksums[0], checksums[1]
    assert await stage.journal.witness(expected, events, utime) == []
    for slot, image in images.items():
        stage.ram[slot].data[OFFSET : OFFSET + SIZE] = image
    return before


async def judged(stage: Stage, *absent: int, gap: Any = None) -> Any:
    """The verdict on the media as they are."""
    devices = []
    for slot, device in enumerate(stage.faulty):
        if slot not in absent:
            superblock = await superblock_of(stage.ram[slot])
            devices.append(Present(device.name, device, superblock, gap or stage.shape.gap))
    return await examine(devices)


def pieces(verdict: Any) -> list[tuple[int, int, int]]:
    return [(slot, at // BLOCK, data[0]) for record in verdict.records for slot, at, data in record.pieces]


async def dirty(stage: Stage) -> None:
    await change_as_ours(stage, resync_offset=0, events=2, utime=5)


# --- whose journal it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [(), (0,), (1,), (2,), (3,)])
async def test_a_dirty_array_that_nobody_touched_is_replayed(stage, absent):
    await dirty(stage)
    verdict = await judged(stage, *absent)
    assert verdict.usable
    assert verdict.proven
    assert not verdict.disowned
    assert pieces(verdict) == ALL


async def test_every_mix_of_old_and_new_superblocks_is_ours(stage):
    await dirty(stage)
    before = await change_as_ours(stage, events=3, utime=6)
    after = {slot: bytes(stage.ram[slot].data[OFFSET : OFFSET + SIZE]) for slot in before}
    for mix in range(16):
        for slot in range(4):
            stage.ram[slot].data[OFFSET : OFFSET + SIZE] = (after if mix >> slot & 1 else before)[slot]
        verdict = await judged(stage)
        assert pieces(verdict) == ALL, mix


@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("fields", [{"events": 2, "utime": 6}, {"events": 3, "utime": 6}, {"cnt_corrected_read": 1}])
async def test_a_superblock_that_somebody_else_wrote_ends_it(stage, slot, fields):
    await dirty(stage)
    await rewrite(stage, slot, **fields)
    verdict = await judged(stage)
    assert not verdict.usable
    assert not verdict.damaged
    assert verdict.reason == f"d{slot} was changed by somebody else after the journal was written"
    assert not verdict.records


@pytest.mark.parametrize("careless", [False, True])
async def test_what_somebody_else_has_written_since_is_not_undone(stage, careless, monkeypatch):
    """With a planted bug, a witness that is not asked, it is."""
    await dirty(stage)
    for slot in range(4):
        stage.ram[slot].data[FOUR.data_offset : FOUR.data_offset + 8 * CHUNK] = bytes([99]) * (8 * CHUNK)
        await rewrite(stage, slot, events=4, utime=60)
    if careless:
        monkeypatch.setattr(Mark, "fits", lambda _mark, _other: True)
    await reloaded(stage, await judged(stage))
    await stage.journal.start()
    assert (stage.on_disk(2, 1) == 99) is not careless


async def test_a_stale_member_has_no_say(stage):
    await dirty(stage)
    await rewrite(stage, 3, events=0, utime=1)
    assert pieces(await judged(stage)) == ALL


async def test_a_journal_of_a_stale_member_is_not_looked_at(stage):
    await dirty(stage)
    old = bytes(stage.ram[0].data[GAP:RING])
    await stage.member_failed(stage.members[0], MediaError("gone"))
    roles = (await superblock_of(stage.ram[1])).dev_roles
    roles[0] = ROLE_FAULTY
    await change_as_ours(stage, (1, 2, 3), events=4, utime=9, dev_roles=roles)
    await stage.journal.drain()
    header = parse_header(old[:SLOT]) or parse_header(old[SLOT:])
    newer = header.__class__(**{name: getattr(header, name) for name in header.__slots__} | {"generation": 999})
    stage.ram[0].data[GAP : GAP + SLOT] = newer.encode()
    verdict = await judged(stage)
    assert verdict.usable
    assert not verdict.records
    assert verdict.generation == 999


async def test_a_clean_array_needs_no_journal(stage):
    await dirty(stage)
    await stage.journal.drain()
    await change_as_ours(stage, resync_offset=2**64 - 1, events=3, utime=7)
    verdict = await judged(stage)
    assert (verdict.usable, verdict.reason) == (False, "")


async def test_no_journal_at_all():
    stage = Stage()
    await FOUR.create(stage.ram)
    assert (await judged(stage)).reason == "there is no journal"
    assert (await judged(stage, gap=None)).reason == "there is no journal"
    assert (await examine([])).reason == "there is no journal"


@pytest.mark.parametrize("gap", [(GAP + 4096, 200 * KIB), (GAP, HEADER_SPACE + 8 * KIB), (0, 4096)])
async def test_a_journal_is_only_believed_where_it_belongs(stage, gap):
    await dirty(stage)
    assert (await judged(stage, gap=gap)).reason == "there is no journal"


async def test_data_that_moved_end_it(stage):
    await dirty(stage)
    for slot in range(4):
        superblock = await superblock_of(stage.ram[slot])
        await rewrite(stage, slot, data_offset=superblock.data_offset + 8, data_size=superblock.data_size - 8, size=64)
    assert (await judged(stage)).reason == "there is no journal"


async def test_a_journal_copied_to_another_member_is_none(stage):
    await dirty(stage)
    for slot in (2, 3):
        stage.ram[slot].data[GAP : FOUR.data_offset] = stage.ram[0].data[GAP : FOUR.data_offset]
    for slot in (0, 1):
        stage.ram[slot].data[GAP:RING] = bytes(HEADER_SPACE)
    assert (await judged(stage)).reason == "there is no journal"


async def test_redundancy_that_was_not_proven_is_said(stage):
    stage.proven = False
    await dirty(stage)
    verdict = await judged(stage)
    assert verdict.usable
    assert not verdict.proven


async def test_redundancy_that_is_proven_no_longer_is_said_with_the_next_flush(stage):
    await dirty(stage)
    stage.proven = False
    assert (await judged(stage)).proven
    assert await stage.journal.flush() == []
    assert not (await judged(stage)).proven


async def test_a_whole_stripe_that_failed_is_said_at_once(stage):
    await dirty(stage)
    stage.faulty[2].fail("write", NoSpace("full"))
    stage.proven = False
    with pytest.raises(NoSpace):
        await stage.write_row(3, 1)
    assert not (await judged(stage)).proven


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [0, 1])
async def test_a_torn_header_leaves_the_one_before_it(stage, slot):
    await dirty(stage)
    for log in (0, 1):
        area = stage.ram[log].data[GAP:RING]
        generations = [header.generation if (header := parse_header(area[at : at + SLOT])) else 0 for at in (0, SLOT)]
        newest = generations.index(max(generations))
        if log == slot:
            stage.ram[log].data[GAP + newest * SLOT : GAP + newest * SLOT + SECTOR] = bytes(SECTOR)
    for absent in ((), (1 - slot,)):
        verdict = await judged(stage, *absent)
        if absent:  # only the older header is left, which does not know of the new superblocks
            assert not verdict.usable
        else:
            assert pieces(verdict) == ALL


async def test_a_header_never_overwrites_the_newest_one(stage):
    await dirty(stage)
    for number in range(6):
        await stage.write((2, 4, number))
        before = {log: bytes(stage.ram[log].data[GAP:RING]) for log in (0, 1)}
        await stage.journal.drain()
        for log, area in before.items():
            headers = [parse_header(area[at : at + SLOT]) for at in (0, SLOT)]
            newest = max((0, 1), key=lambda at, headers=headers: headers[at].generation if headers[at] else 0)
            kept = stage.ram[log].data[GAP + newest * SLOT : GAP + (newest + 1) * SLOT]
            assert kept == area[newest * SLOT : (newest + 1) * SLOT]


async def test_a_start_after_a_stranger_has_a_higher_generation_and_another_epoch(stage):
    await dirty(stage)
    first = (await judged(stage)).header
    for slot in range(4):
        await rewrite(stage, slot, events=5, utime=50)
    found = await judged(stage)
    assert not found.usable
    await stage.begin(found=found)
    await stage.write((2, 5, 5))
    second = (await judged(stage)).header
    assert second.generation > first.generation
    assert second.epoch != first.epoch
    assert pieces(await judged(stage)) == [(2, 5, 5)]


# --- records ---------------------------------------------------------------------------------------------------------


def spoil(stage: Stage, slot: int, record: Any, at: int = 600) -> None:
    stage.ram[slot].data[RING + record.offset + at] ^= 0xFF


async def test_a_record_is_taken_from_the_copy_that_has_it(stage):
    await dirty(stage)
    records = (await judged(stage)).records
    spoil(stage, 0, records[0])
    spoil(stage, 1, records[1])
    verdict = await judged(stage)
    assert pieces(verdict) == ALL
    uuids = [member.superblock.device_uuid for member in stage.members]
    assert [record.lacking for record in verdict.records] == [{uuids[0]}, {uuids[1]}, set()]


async def test_records_end_with_the_first_that_nobody_has(stage):
    records = (await stage.found()).records
    for slot in (0, 1):
        spoil(stage, slot, records[1])
    verdict = await stage.found()
    assert verdict.usable
    assert pieces(verdict) == ALL[:2]


async def test_a_record_that_was_durable_and_is_nowhere_is_damage(stage):
    assert await stage.journal.flush() == []
    await stage.write((2, 4, 4))
    records = (await stage.found()).records
    for slot in (0, 1):
        spoil(stage, slot, records[1])
    verdict = await stage.found()
    assert not verdict.usable
    assert verdict.damaged
    assert verdict.reason == "record 2 of the journal is damaged on all members that should have it"
    assert pieces(verdict) == ALL[:2]


async def test_a_copy_that_cannot_be_read_is_no_loss_but_the_last_one_is(stage):
    await dirty(stage)
    ring = RING, FOUR.data_offset
    stage.faulty[0].fail("read", MediaError("unreadable"), forever=True, within=ring)
    assert pieces(await judged(stage)) == ALL
    verdict = await judged(stage, 1)
    assert verdict.damaged
    assert "record 1 of the journal cannot be read (d0: unreadable)" in verdict.reason
    stage.faulty[0].heal()
    stage.faulty[0].fail("read", MediaError("unreadable"), forever=True, within=(GAP, RING))
    assert pieces(await judged(stage)) == ALL
    assert (await judged(stage, 1)).reason == "there is no journal"


@pytest.mark.parametrize(("at", "value"), [(40, struct.pack("<Q", 8 * CHUNK)), (52, struct.pack("<H", 9))])
async def test_a_record_for_places_that_there_are_not_is_damage(stage, at, value):
    (first, *_rest) = (await stage.found()).records
    raw = bytearray(first.raw)
    raw[at : at + len(value)] = value
    struct.pack_into("<I", raw, 0, zlib.crc32(raw[4:]))
    for slot in (0, 1):
        stage.ram[slot].data[RING + first.offset : RING + first.offset + len(raw)] = raw
    verdict = await stage.found()
    assert verdict.damaged
    assert "outside of the members" in verdict.reason
    assert not verdict.records


async def test_a_ring_full_of_itself_ends(stage):
    """A hostile header whose records lead in a circle costs one lap at most."""
    for number in range(60):
        await stage.write((2, number % 16, number))
        if number % 8 == 7:
            await stage.journal.drain()
    verdict = await stage.found()
    assert verdict.usable
    assert sum(len(record.raw) for record in verdict.records) <= FOUR.ring


# --- replay ----------------------------------------------------------------------------------------------------------


async def reloaded(stage: Stage, found: Any) -> None:
    """Another start of the same media."""
    await stage.begin(found=found)


async def test_what_is_loaded_is_served_and_then_put_in_place(stage):
    await dirty(stage)
    found = await judged(stage)
    writes = [device.counters.writes for device in stage.ram]
    await reloaded(stage, found)
    assert [await stage.seen(2, number) for number in (1, 2, 3)] == [1, 2, 3]
    assert [device.counters.writes for device in stage.ram] == writes
    await stage.journal.start()
    assert [stage.on_disk(3, number) for number in (1, 2, 3)] == [11, 12, 13]
    assert stage.journal.empty
    verdict = await judged(stage)
    assert verdict.usable
    assert not verdict.records
    assert verdict.header.epoch != found.header.epoch


@pytest.mark.parametrize("act", ["write", "drain", "settle", "run"])
async def test_whatever_comes_first_puts_it_in_place(stage, act, autojump_clock):
    await dirty(stage)
    await reloaded(stage, await judged(stage))
    match act:
        case "write":
            await stage.write((2, 6, 6))
        case "drain":
            await stage.journal.drain()
        case "settle":
            await stage.journal.settle(0, 1)
        case "run":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stage.journal.run)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    assert stage.on_disk(3, 1) == 11


async def test_before_anything_is_put_in_place_all_copies_are_alike(stage):
    await dirty(stage)
    first = (await judged(stage)).records[0]
    spoil(stage, 1, first)
    await reloaded(stage, await judged(stage))
    data = FOUR.data_offset
    stage.faulty[2].fail("write", NoSpace("full"), forever=True, within=(data, data + 8 * CHUNK))
    with pytest.raises(NoSpace):
        await stage.journal.start()
    assert stage.on_disk(2, 1) == 0
    flushes = stage.ram[1].flushes
    assert flushes
    verdict = await judged(stage, 0)
    assert pieces(verdict) == ALL
    stage.faulty[2].heal()
    await stage.journal.start()
    assert stage.on_disk(2, 1) == 1


async def test_a_flush_before_the_replay_makes_what_was_served_durable_on_all_copies(stage):
    await dirty(stage)
    spoil(stage, 1, (await judged(stage)).records[0])
    await reloaded(stage, await judged(stage))
    assert await stage.journal.flush() == []
    assert stage.on_disk(2, 1) == 0
    assert pieces(await judged(stage, 0)) == ALL


async def test_superblocks_may_change_before_the_replay(stage):
    await dirty(stage)
    await reloaded(stage, await judged(stage))
    await change_as_ours(stage, events=3, utime=8)
    assert pieces(await judged(stage)) == ALL
    await stage.journal.start()
    assert not (await judged(stage)).records


async def test_given_up_records_are_passed_over(stage):
    stage.faulty[0].fail("write", NoSpace("full"))
    with pytest.raises(NoSpace):
        await stage.write((2, 9, 9))
    await stage.write((2, 4, 4))
    await dirty(stage)
    verdict = await judged(stage)
    assert pieces(verdict) == [*ALL, (2, 4, 4)]
    await reloaded(stage, verdict)
    await stage.journal.start()
    assert stage.on_disk(2, 4) == 4
    assert stage.on_disk(2, 9) == 0


async def test_what_lies_behind_a_lost_record_is_never_found_again(stage):
    """A cut keeps records 1 and 3 and loses 2.  The next record of another life must not lead to 3."""
    await dirty(stage)
    records = (await judged(stage)).records
    for slot in (0, 1):
        spoil(stage, slot, records[1])
    await reloaded(stage, await judged(stage))
    await stage.journal.start()
    assert stage.on_disk(2, 3) == 0
    for number in (5, 6):
        await stage.write((2, number, number), (3, number, number + 10))
    assert await stage.journal.flush() == []
    assert pieces(await judged(stage)) == [(2, 5, 5), (3, 5, 15), (2, 6, 6), (3, 6, 16)]
    assert await stage.seen(2, 3) == 0


async def test_records_for_a_member_that_is_not_there_are_kept_for_the_others():
    stage = Stage(Shape(4, 2, rows=8, ring=96 * KIB))
    await stage.begin()
    await stage.write((2, 3, 1), (3, 3, 2))
    await dirty(stage)
    found = await judged(stage, 2)
    await reloaded(stage, found)
    stage.members[2].lose("not there")
    await stage.journal.start()
    assert stage.on_disk(3, 3) == 2
    assert stage.on_disk(2, 3) == 0
    verdict = await judged(stage)
    assert verdict.disowned == ("d2",)


def test_superblocks_are_told_apart_by_checksum_events_and_time():
    superblock = FOUR.superblock(0)
    block = superblock.encode()
    assert Superblock.parse(block).encode() == block
