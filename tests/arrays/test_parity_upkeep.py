"""Parity: resync, scrubs that find, locate and mend what does not agree, and rebuilds that meet trouble."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.array.engine import Mismatch
from orionfs.errors import MediaError, NoSpace, TransportError
from orionfs.extents import Extent, Kind
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB
from tests.arrays.parity_kit import BLOCK, DATA, SHAPES, SMALL, Shape, Stage, ToyJournal, check_image, images, set_up

R5 = Shape("raid5", "", 4)
R6 = Shape("raid6", "", 6)
R6X4 = Shape("raid6", "", 4)
ONE = [shape for shape in SHAPES if shape.level != "raid6"]
TWO = [shape for shape in SHAPES if shape.level == "raid6"]
UNIT = 4096


def contents(stage: Stage) -> list[bytes]:
    return [bytes(ram.data) for ram in stage.ram]


def places(stage: Stage, source: random.Random, count: int) -> list[tuple[int, int]]:
    """(slot, offset) of some 4 KiB blocks, at most one of them at each offset."""
    offsets = source.sample(range(0, stage.shape.component, UNIT), count)
    return [(source.randrange(stage.shape.members), offset) for offset in sorted(offsets)]


# --- resync ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_resync_makes_parity_agree_with_the_data(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    wrong = set()
    for number in source.sample(range(shape.rows), shape.rows // 2):
        row = stage.engine.layout.row(number)
        for slot in source.sample([slot for slot in (row.parity, row.q) if slot >= 0], 1):
            at = number * shape.chunk + source.randrange(0, shape.chunk, 8)
            stage.spoil(slot, at, 8)
            wrong.add((slot, number))
    stage.engine.sync.position = 0
    writes = [device.counters.writes for device in stage.ram]
    await stage.sync()
    stage.check(oracle)
    assert sum(device.counters.writes for device in stage.ram) - sum(writes) <= 2 * len(wrong), "only what was wrong"
    assert not stage.engine.sync.needed


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_parity_that_cannot_be_read_is_written_anew_and_data_that_cannot_hold_up_their_stripe(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    row = stage.engine.layout.row(3)
    stage.ram[row.parity].data[DATA + 3 * UNIT : DATA + 4 * UNIT] = bytes(UNIT)
    stage.unreadable(row.parity, 3 * UNIT)
    await stage.engine.sync_units(0, 8)
    stage.check(oracle)
    stage.unreadable(row.data[0], 3 * UNIT)
    with pytest.raises(MediaError, match="bad sector"):
        await stage.engine.sync_units(0, 8)
    await stage.engine.sync_units(4, 4)


@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_a_stripe_whose_data_are_gone_cannot_be_proven(shape):
    stage = set_up(shape)
    await stage.fill()
    place = stage.engine.layout.row(2)
    gone = [place.data[1], place.parity][: shape.rules.tolerates(shape.members)]
    for slot in gone:
        assert stage.engine.can_sync
        await stage.lose(slot)
    assert not stage.engine.can_sync
    with pytest.raises(MediaError, match=r"cannot be proven without a member .*taken away"):
        await stage.engine.sync_units(2, 1)


@pytest.mark.parametrize("shape", [R6, R6X4, Shape("raid6", "ddf-N-continue", 5)], ids=str)
async def test_two_parities_are_proven_without_one_member(shape):
    for gone in range(shape.members):
        stage = set_up(shape)
        oracle = await stage.fill()
        await stage.lose(gone)
        stage.engine.sync.position = 0
        await stage.sync()
        stage.check(oracle)
        assert await stage.read(0, stage.size) == oracle, "what agrees is proven"
        wrong = {}
        for number in (2, 3, 7):
            place = stage.engine.layout.row(number)
            wrong[number] = place.q if gone != place.q else place.parity
            stage.spoil(wrong[number], number * UNIT)
        stage.engine.sync.suspect(0, shape.rows)
        for number in wrong:
            if gone in stage.engine.layout.row(number).data:
                with pytest.raises(MediaError, match="does not agree, and a member is gone"):
                    await stage.engine.sync_units(number, 1)
            else:
                await stage.engine.sync_units(number, 1)
        stage.engine.sync.settle()
        stage.engine.sync.position = 0
        stage.engine.sync.believed = True
        await stage.sync()
        stage.check(oracle)
        assert await stage.read(0, stage.size) == oracle


async def test_a_resync_that_finds_no_space_says_so_and_the_stripe_stays_unproven():
    stage = set_up(R5)
    await stage.fill()
    row = stage.engine.layout.row(1)
    stage.spoil(row.parity, UNIT)
    stage.faulty[row.parity].fail("write", NoSpace("the filesystem is full"))
    with pytest.raises(NoSpace):
        await stage.engine.sync_units(0, 4)
    assert not stage.faults.failed


# --- scrub -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ONE, ids=str)
async def test_one_parity_finds_every_flip_and_repairs_by_rule(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    assert await stage.scrub(repair=False) == []
    spoilt = places(stage, source, 8)
    for slot, offset in spoilt:
        stage.spoil(slot, offset + source.randrange(0, UNIT, 8), 8)
    before = contents(stage)
    found = await stage.scrub(repair=False)
    assert contents(stage) == before, "a check changes nothing"
    assert {at for each in found for at in range(each.offset, each.offset + each.length, UNIT)} == {
        offset for _slot, offset in spoilt
    }
    assert {(each.slots, each.repaired, each.by_rule) for each in found} == {((), False, False)}
    data = await stage.read(0, stage.size)
    repaired = await stage.scrub(repair=True)
    assert repaired == [each._replace(repaired=True, by_rule=True) for each in found]
    assert await stage.read(0, stage.size) == data, "the data win"
    stage.check(data)
    assert await stage.scrub(repair=False) == []
    assert len(data) == len(oracle)


@pytest.mark.parametrize("shape", TWO, ids=str)
async def test_two_parities_locate_the_one_wrong_member_and_put_it_right(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    assert await stage.scrub(repair=False) == []
    spoilt = places(stage, source, 10)
    for slot, offset in spoilt:
        length = source.choice([8, BLOCK, UNIT])
        stage.spoil(slot, offset + source.randrange(0, UNIT - length + 1, 8), length, seed=offset)
    before = contents(stage)
    found = await stage.scrub(repair=False)
    assert contents(stage) == before, "a check changes nothing"
    located = [(each.slots, at) for each in found for at in range(each.offset, each.offset + each.length, UNIT)]
    assert located == [((slot,), offset) for slot, offset in spoilt]
    repaired = await stage.scrub(repair=True)
    assert repaired == [each._replace(repaired=True) for each in found]
    stage.check(oracle)
    assert await stage.scrub(repair=False) == []


@pytest.mark.parametrize("shape", [R6, R6X4, Shape("raid6", "ddf-zero-restart", 5)], ids=str)
async def test_two_wrong_members_in_one_block_are_not_guessed_at(shape):
    stage = set_up(shape)
    await stage.fill()
    for row in (2, 5, 7):
        place = stage.engine.layout.row(row)
        first, second = random.Random(row).sample([*place.data, place.parity, place.q], 2)
        stage.spoil(first, row * UNIT, BLOCK, seed=1)
        stage.spoil(second, row * UNIT, BLOCK, seed=2)
    data = await stage.read(0, stage.size)
    found = await stage.scrub(repair=False)
    assert found == [Mismatch(row * UNIT, UNIT, ()) for row in (2, 5, 7)]
    assert await stage.scrub(repair=True) == [Mismatch(row * UNIT, UNIT, (), True, True) for row in (2, 5, 7)]
    stage.check(data)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_a_repair_never_replaces_good_data_by_bad(data):
    async def scenario() -> None:
        shape = data.draw(st.sampled_from([R6, R6X4, R5, Shape("raid6", "right-asymmetric", 7, 16 * KIB, 3)]))
        stage = set_up(shape)
        oracle = await stage.fill()
        good = images(stage.engine.layout, shape.members, oracle)
        count = data.draw(st.integers(1, 6))
        for seed in range(count):
            slot = data.draw(st.integers(0, shape.members - 1))
            offset = data.draw(st.integers(0, shape.component // 8 - 1)) * 8
            length = data.draw(st.sampled_from([8, 64, 4096]))
            stage.spoil(slot, offset, min(length, shape.component - offset), seed=seed)
        before = contents(stage)
        await stage.scrub(repair=True)
        for number in range(shape.rows):
            row = stage.engine.layout.row(number)
            for slot in row.data:
                for at in range(number * shape.chunk, (number + 1) * shape.chunk, 8):
                    here = slice(DATA + at, DATA + at + 8)
                    if before[slot][here] == good[slot][at : at + 8]:
                        assert stage.ram[slot].data[here] == good[slot][at : at + 8]
        assert await stage.scrub(repair=False) == []

    trio.run(scenario)


async def test_in_a_stripe_that_is_not_proven_the_data_win():
    stage = set_up(R6)
    await stage.fill()
    place = stage.engine.layout.row(3)
    stage.spoil(place.data[1], 3 * UNIT)
    stage.engine.sync.suspect(3, 4)
    data = await stage.read(0, stage.size)
    assert await stage.scrub(repair=True) == [Mismatch(3 * UNIT, UNIT, (), True, True)]
    stage.check(data)


@pytest.mark.parametrize("shape", [Shape("raid6", "", 4, 512 * KIB, 2), Shape("raid5", "", 3, 512 * KIB, 2)], ids=str)
async def test_runs_of_wrong_blocks_in_large_chunks(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    slot = stage.engine.layout.row(1).data[0]
    base = shape.chunk
    stage.spoil(slot, base + 8 * UNIT, 3 * UNIT)
    stage.spoil(slot, base + 64 * UNIT - UNIT, 2 * UNIT)  # over the end of a band
    slots = (slot,) if shape.level == "raid6" else ()
    assert await stage.scrub(repair=False) == [
        Mismatch(base + 8 * UNIT, 3 * UNIT, slots),
        Mismatch(base + 63 * UNIT, UNIT, slots),
        Mismatch(base + 64 * UNIT, UNIT, slots),
    ]
    await stage.scrub(repair=True)
    stage.check(oracle if shape.level == "raid6" else await stage.read(0, stage.size))


@pytest.mark.parametrize("shape", SMALL, ids=str)
async def test_a_scrub_mends_what_cannot_be_read(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    bad = places(stage, source, 6)
    for slot, offset in bad:
        stage.ram[slot].data[DATA + offset : DATA + offset + UNIT] = bytes(UNIT)
        stage.unreadable(slot, offset + BLOCK)
    assert await stage.scrub(repair=False, batch=source.choice([1, 5, 12])) == []
    stage.check(oracle)
    assert {member.slot for member in stage.faults.corrected} == {slot for slot, _offset in bad}


async def test_a_scrub_raises_what_cannot_be_read_by_any_means():
    stage = set_up(R6)
    await stage.fill()
    for slot in (0, 2, 3):
        stage.unreadable(slot, 4 * UNIT)
    with pytest.raises(MediaError, match="3 members of the stripe cannot be read"):
        await stage.engine.scrub_units(2, 4, repair=False)
    assert not stage.faults.failed


@pytest.mark.parametrize("shape", [R6, R6X4, Shape("raid6", "ddf-N-restart", 5)], ids=str)
async def test_with_one_member_gone_two_parities_still_show_whether_the_rest_agrees(shape):
    for gone in range(shape.members):
        stage = set_up(shape)
        await stage.fill()
        await stage.lose(gone)
        assert await stage.scrub(repair=False) == []
        for row in (1, 4, 6):
            slot = random.Random(row + gone).choice([slot for slot in range(shape.members) if slot != gone])
            stage.spoil(slot, row * UNIT)
        found = await stage.scrub(repair=False)
        assert [(each.offset // UNIT, each.slots) for each in found] == [(1, ()), (4, ()), (6, ())]
        repaired = await stage.scrub(repair=True)
        for each in repaired:
            by_rule = gone not in stage.engine.layout.row(each.offset // UNIT).data
            assert (each.repaired, each.by_rule) == (by_rule, by_rule), "what is gone is only in the parity: no guess"


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_what_contradicts_itself_is_not_stored_over_a_bad_sector(shape):
    stage = set_up(shape)
    await stage.fill()
    place = stage.engine.layout.row(2)
    stage.unreadable(place.data[0], 2 * UNIT)
    stage.spoil(place.data[1], 2 * UNIT)
    found = await stage.scrub(repair=True)
    if shape.level == "raid6":
        assert found == [Mismatch(2 * UNIT, UNIT, ())]
        assert not stage.faults.corrected
    else:
        assert found == []  # nothing is left to compare with


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_without_redundancy_there_is_nothing_to_compare(shape):
    stage = set_up(shape)
    await stage.fill()
    await stage.lose(*range(shape.rules.tolerates(shape.members)))
    reads = [device.counters.reads for device in stage.ram]
    stage.spoil(3, 0, UNIT)
    assert await stage.scrub(repair=True) == []
    assert [device.counters.reads for device in stage.ram] == reads


# --- rebuild ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_rebuild_fills_every_set_of_lost_members(shape):
    full = bytes(await set_up(shape).fill())
    for gone in shape.survivable():
        stage = set_up(shape)
        await stage.write(0, full)
        await stage.lose(*gone)
        for slot in gone:
            await stage.rebuild(stage.spare(slot), batch=5)
        stage.check(full)


@pytest.mark.parametrize("error", [MediaError, TransportError])
@pytest.mark.parametrize("shape", [R6, R6X4], ids=str)
async def test_sources_that_fail_are_made_up_for_as_far_as_redundancy_goes(shape, error):
    for gone in range(shape.members):
        other = (gone + 1) % shape.members
        stage = set_up(shape)
        oracle = await stage.fill()
        await stage.lose(gone)
        target = stage.spare(gone)
        here = (DATA + 4 * UNIT, DATA + 4 * UNIT + BLOCK)
        stage.faulty[other].fail("read", lambda: error("not today"), forever=True, within=here)
        await stage.rebuild(target)
        place = stage.engine.layout.row(4)
        lost_for_good = error is TransportError and stage.faults.failed[1:]
        assert [member.slot for member in stage.faults.failed[1:]] == ([other] if lost_for_good else [])
        if error is MediaError and gone in place.data and other in place.data:
            assert [member.slot for member in stage.faults.corrected] == [other]
        stage.check(oracle)
        assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_a_rebuild_raises_what_cannot_be_had_and_stays_where_it_was(shape):
    tolerated = shape.rules.tolerates(shape.members)
    stage = set_up(shape)
    await stage.fill()
    await stage.lose(0)
    target = stage.spare(0)
    await stage.rebuild(target, steps=1)
    row = next(number for number in range(4, 9) if 0 in stage.engine.layout.row(number).data)
    others = [slot for slot in stage.engine.layout.row(row).data if slot != 0]
    for slot in others[:tolerated]:
        stage.unreadable(slot, row * UNIT)
    with pytest.raises(MediaError, match="cannot be reconstructed"):
        await stage.engine.rebuild(target, 3 * UNIT, 12 * UNIT)
    assert target.valid == 3 * UNIT
    await stage.engine.rebuild(target, 3 * UNIT, row * UNIT)
    assert target.valid == row * UNIT


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_a_copy_is_made_of_what_its_original_can_read_and_of_the_rest_otherwise(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    copy, ram = stage.replacement(2)
    stage.unreadable(2, 5 * UNIT)
    stage.ram[2].data[DATA + 5 * UNIT : DATA + 6 * UNIT] = bytes(UNIT)
    reads = [device.counters.reads for device in stage.ram]
    await stage.rebuild(copy, steps=1)
    others = [device.counters.reads - before for device, before in zip(stage.ram, reads, strict=True)]
    assert sum(others) == others[2] == 1
    await stage.rebuild(copy)
    check_image(ram, images(stage.engine.layout, shape.members, oracle)[2], shape.component, "the copy")
    stage.check(oracle)
    assert [member.slot for member in stage.faults.corrected] == [2], "the original was mended on the way"


async def test_a_member_that_fails_while_it_is_filled_is_not_brought_back():
    stage = set_up(Shape("raid5", "", 4), wait=True)
    await stage.fill()
    await stage.lose(1)
    target = stage.spare(1)
    settle = stage.engine._rebuild_band

    async def interrupted(*arguments):
        await settle(*arguments)
        await stage.faults.member_failed(target, MediaError("gone again"))

    stage.engine._rebuild_band = interrupted
    await stage.engine.rebuild(target, 0, 4 * UNIT)
    assert (target.valid, target.state) == (0, "failed")


# --- facts -----------------------------------------------------------------------------------------------------------


def sparse(device: FaultyDevice, ram: RamDevice) -> None:
    """Let *device* say what a sparse one would: data wherever a block is not zero."""

    def used(at: int) -> bool:
        return any(ram.data[at : at + UNIT])

    async def extents(offset, length):
        for at in range(offset, offset + length, UNIT):
            yield Extent(at, UNIT, Kind.DATA if used(at) else Kind.HOLE)

    device.extents = extents
    device.allocated = lambda: sum(UNIT for at in range(DATA, len(ram.data), UNIT) if used(at))


@pytest.mark.parametrize("shape", [Shape("raid6", "", 6, rows=24), Shape("raid4", "", 3, rows=24)], ids=str)
async def test_extents_of_lost_chunks_are_those_of_the_others(shape):
    stage = set_up(shape)
    width = stage.engine.layout.row_width
    for device, ram in zip(stage.faulty, stage.ram, strict=True):
        sparse(device, ram)
    await stage.write(3 * width, random.Random(1).randbytes(2 * width))
    used = [
        Extent(0, 3 * width, Kind.HOLE),
        Extent(3 * width, 2 * width, Kind.DATA),
        Extent(5 * width, stage.size - 5 * width, Kind.HOLE),
    ]
    assert [each async for each in stage.engine.extents(0, stage.size)] == used
    assert stage.engine.allocated() == 2 * width
    await stage.lose(0)
    assert [each async for each in stage.engine.extents(0, stage.size)] == used
    assert stage.engine.allocated() == 2 * width
    stage.engine.sync.suspect(7, 8)
    assert Kind.DATA in [each.kind async for each in stage.engine.extents(7 * width, width)], "unreadable is no hole"


async def test_what_a_journal_holds_is_no_hole():
    stage = set_up(R5)
    for device, ram in zip(stage.faulty, stage.ram, strict=True):
        sparse(device, ram)
    stage.engine.log = ToyJournal(stage.engine, 100)
    await stage.write(8192, b"x" * 4096)
    assert not stage.engine.allocated()
    extents = [each async for each in stage.engine.extents(0, stage.size)]
    assert [each for each in extents if each.kind is Kind.DATA] == [Extent(8192, 4096, Kind.DATA)]
    await stage.lose(stage.engine.layout.locate(8192)[0])
    extents = [each async for each in stage.engine.extents(0, stage.size)]
    assert Extent(8192, 4096, Kind.DATA) in extents, "its parity waits"
