"""Copies: scrubs that find and mend what differs, and members that are filled while everybody writes."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.array.engine import TargetFailed
from orionfs.array.member import WHOLE
from orionfs.errors import MediaError, NoSpace, TransportError
from tests.arrays.copies_kit import (
    BLOCK,
    DATA,
    MIRRORS,
    RAID10S,
    SHAPES,
    Shape,
    Stage,
    rebuild,
    set_up,
    survivable,
)
from tests.arrays.test_copies_keep_data import apply

THREE = [shape for shape in SHAPES if len(set_up(shape).places(0)) == 3]
TWO = [shape for shape in SHAPES if len(set_up(shape).places(0)) == 2]


def flips(stage: Stage, source: random.Random, count: int) -> dict[int, int]:
    """Spoil one copy of each of *count* random blocks: {array byte: slot}."""
    found = {}
    for offset in source.sample(range(0, stage.size, BLOCK), count):
        found[offset] = source.choice(stage.places(offset))[0]
        stage.spoil(offset, found[offset])
    return found


def blocks_of(found):
    return Counter(at for mismatch in found for at in range(mismatch.offset, mismatch.offset + mismatch.length, BLOCK))


# --- scrub -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_scrub_finds_every_flip_and_changes_nothing_unless_asked(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    await stage.fill()
    assert await stage.scrub(repair=False) == []
    spoilt = flips(stage, source, 20)
    before = [bytes(ram.data) for ram in stage.ram]
    found = await stage.scrub(repair=False)
    assert blocks_of(found) == Counter(spoilt.keys())
    assert not any(mismatch.repaired for mismatch in found)
    assert before == [bytes(ram.data) for ram in stage.ram]


@pytest.mark.parametrize("shape", THREE, ids=str)
async def test_of_three_copies_the_lone_one_is_known_and_made_like_the_others(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    spoilt = flips(stage, source, 30)
    found = await stage.scrub(repair=True)
    assert blocks_of(found) == Counter(spoilt.keys())
    for mismatch in found:
        assert mismatch.repaired
        assert not mismatch.by_rule
        for at in range(mismatch.offset, mismatch.offset + mismatch.length, BLOCK):
            assert mismatch.slots == (spoilt[at],)
    stage.check_copies(oracle)
    assert await stage.scrub(repair=False) == []


@pytest.mark.parametrize("shape", TWO, ids=str)
async def test_of_two_copies_the_first_wins_and_the_report_says_that_it_is_a_rule(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    spoilt = flips(stage, source, 30)
    found = await stage.scrub(repair=True)
    assert blocks_of(found) == Counter(spoilt.keys())
    assert all(mismatch.repaired and mismatch.by_rule and mismatch.slots == () for mismatch in found)
    for at, slot in spoilt.items():
        if slot == stage.places(at)[0][0]:
            oracle[at : at + BLOCK] = bytes(byte ^ 0x5A for byte in oracle[at : at + BLOCK])
    stage.check_copies(oracle)


@pytest.mark.parametrize("shape", THREE, ids=str)
async def test_three_different_copies_are_not_told_apart(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    for (slot, where), value in zip(stage.places(4096), (b"a", b"b", b"c"), strict=True):
        stage.ram[slot].data[DATA + where : DATA + where + BLOCK] = value * BLOCK
    (mismatch,) = await stage.scrub(repair=False)
    assert mismatch == (4096, BLOCK, (), False, False)
    (mismatch,) = await stage.scrub(repair=True)
    assert mismatch == (4096, BLOCK, (), True, True)
    oracle[4096 : 4096 + BLOCK] = b"a" * BLOCK
    stage.check_copies(oracle)


async def test_two_of_four_against_one_and_one_is_no_majority():
    stage = set_up(Shape("n4", 0x104, 4))
    await stage.fill()
    for (slot, where), value in zip(stage.places(0), (b"a", b"b", b"b", b"c"), strict=True):
        stage.ram[slot].data[DATA + where : DATA + where + BLOCK] = value * BLOCK
    (mismatch,) = await stage.scrub(repair=False)
    assert mismatch.slots == ()
    stage.ram[stage.places(0)[3][0]].data[DATA + stage.places(0)[3][1] :][:BLOCK] = b""
    where = DATA + stage.places(0)[3][1]
    stage.ram[stage.places(0)[3][0]].data[where : where + BLOCK] = b"b" * BLOCK
    (mismatch,) = await stage.scrub(repair=True)
    assert mismatch.slots == (stage.places(0)[0][0],), "three of four are a majority, also against the first"
    assert await stage.read(0, BLOCK) == b"b" * BLOCK


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_degraded_array_is_compared_as_far_as_there_are_copies(shape):
    for gone in survivable(shape):
        stage = set_up(shape)
        oracle = await stage.fill()
        await stage.lose(*gone)
        spoilt = {}
        for at in range(0, stage.size, 8192):
            here = [slot for slot, _where in stage.places(at) if slot not in gone]
            if len(here) > 1:
                spoilt[at] = here[-1]
                stage.spoil(at, here[-1])
        assert blocks_of(await stage.scrub(repair=True)) == Counter(spoilt.keys())
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", THREE, ids=str)
async def test_what_is_not_proven_is_repaired_from_the_copy_that_is_read(shape):
    """A majority may be what nobody has read since the unclean stop."""
    stage = set_up(shape)
    await stage.fill()
    stage.spoil(0, stage.places(0)[0][0])
    stage.engine.sync.position = 0
    seen = await stage.read(0, BLOCK)
    (mismatch,) = await stage.scrub(repair=True)
    assert mismatch.slots == ()
    assert mismatch.by_rule
    stage.engine.sync.settle()
    assert await stage.read(0, BLOCK) == seen


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_scrub_mends_what_cannot_be_read(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    slot, _where = stage.places(12288)[1]
    stage.unreadable(12288, slot)
    before = stage.faulty[slot].calls["write"]
    assert await stage.scrub(repair=False) == []
    assert stage.faulty[slot].calls["write"] == before + 1
    assert stage.faults.corrected == [stage.engine.members[slot]]
    stage.check_copies(oracle)
    for slot, _where in stage.places(12288):
        stage.unreadable(12288, slot)
    with pytest.raises(MediaError, match="bad sector"):
        await stage.scrub(repair=True)


async def test_a_repair_that_does_not_fit_is_not_called_one():
    stage = set_up(MIRRORS[1])
    await stage.fill()
    stage.spoil(0, 2)
    stage.faulty[2].fail("write", NoSpace("full"))
    (mismatch,) = await stage.scrub(repair=True)
    assert mismatch == (0, BLOCK, (2,), False, False)
    (mismatch,) = await stage.scrub(repair=True)
    assert mismatch.repaired


@pytest.mark.parametrize("shape", THREE, ids=str)
async def test_a_repair_reaches_what_was_copied_from_the_bad_copy(shape):
    """A replacement that was filled from a member that held flipped bits, before they were found."""
    stage = set_up(shape)
    oracle = await stage.fill()
    slot, where = stage.places(0)[0]
    stage.spoil(0, slot)
    copy, _faulty, ram = stage.new_member(slot)
    copy.fill(0, "replacing")
    stage.engine.members[slot].copy = copy
    stage.engine.member_changed()
    await rebuild(stage.engine, copy)
    await stage.scrub(repair=True)
    stage.check_copies(oracle)
    assert ram.data[DATA + where : DATA + where + BLOCK] == oracle[:BLOCK]


# --- rebuild ---------------------------------------------------------------------------------------------------------


async def begin_rebuild(stage: Stage, slot: int):
    """A new member takes *slot*, whose own is lost."""
    if stage.engine.members[slot].active:
        await stage.lose(slot)
    target, faulty, ram = stage.new_member(slot)
    target.fill(0)
    stage.engine.members[slot] = target
    stage.engine.member_changed()
    stage.faulty[slot], stage.ram[slot] = faulty, ram
    return target


async def begin_copy(stage: Stage, slot: int):
    target, faulty, ram = stage.new_member(slot)
    target.fill(0, "replacing")
    stage.engine.members[slot].copy = target
    stage.engine.member_changed()
    return target, faulty, ram


def admit(stage: Stage, target) -> None:
    target.admit()
    stage.engine.members[target.slot] = target
    stage.engine.member_changed()


@pytest.mark.parametrize("wait", [False, True], ids=["inline", "waiting"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_member_is_rebuilt_while_everybody_writes(shape, wait):
    for gone in survivable(shape, 2):
        stage = set_up(shape, wait=wait)
        oracle = await stage.fill()
        await stage.lose(*gone)
        for slot in gone:
            target = await begin_rebuild(stage, slot)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rebuild, stage.engine, target)
                await apply(stage, oracle, slot, 60)
            assert target.valid == stage.engine.rebuild_end
            await apply(stage, oracle, slot + 100, 10)
            admit(stage, target)
        stage.check_copies(oracle)
        assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_member_is_copied_while_everybody_writes(shape):
    for slot in range(shape.members):
        stage = set_up(shape, wait=True)
        oracle = await stage.fill()
        target, faulty, ram = await begin_copy(stage, slot)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rebuild, stage.engine, target)
            await apply(stage, oracle, slot, 60)
        await apply(stage, oracle, slot + 100, 10)
        stage.check_copies(oracle)
        admit(stage, target)
        stage.faulty[slot], stage.ram[slot] = faulty, ram
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_copy_stands_in_for_its_member_as_far_as_it_has_got(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    target, faulty, ram = await begin_copy(stage, 1)
    half = stage.engine.rebuild_end // 2 // stage.engine.rebuild_unit * stage.engine.rebuild_unit
    await stage.engine.rebuild(target, 0, half)
    await stage.lose(1)
    assert stage.engine.members[1] is target
    assert (target.state, target.valid) == ("rebuilding", half)
    stage.faulty[1], stage.ram[1] = faulty, ram
    await apply(stage, oracle, 1, 40)
    assert await stage.read(0, stage.size) == oracle
    await rebuild(stage.engine, target)
    admit(stage, target)
    stage.check_copies(oracle)


@pytest.mark.parametrize("shape", RAID10S + MIRRORS, ids=str)
async def test_what_is_rebuilt_so_far_serves_where_the_others_cannot(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    target = await begin_rebuild(stage, 0)
    assert not stage.faulty[0].calls["read"]
    await rebuild(stage.engine, target)
    at = next(at for at in range(0, stage.size, 4096) if 0 in dict(stage.places(at)))
    for slot, _where in stage.places(at):
        if slot:
            stage.unreadable(at, slot)
    assert await stage.read(at, BLOCK) == oracle[at : at + BLOCK]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_is_not_rebuilt_yet_serves_nobody(shape):
    for copying in (False, True):
        stage = set_up(shape)
        await stage.fill()
        target = (await begin_copy(stage, 0))[0] if copying else await begin_rebuild(stage, 0)
        held = list(stage.engine._held(0, 0, stage.engine.rebuild_end))
        await stage.engine.rebuild(target, 0, stage.engine.rebuild_unit)
        for at in (held[-1].at, held[-1].at + held[-1].length - 4096):
            for slot, _where in stage.places(at):
                if copying or slot:
                    stage.unreadable(at, slot, 4096)
            with pytest.raises(MediaError, match="bad sector"):
                await stage.read(at, 4096)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_rebuild_reads_no_more_than_it_writes_and_neither_twice(shape):
    stage = set_up(shape)
    await stage.fill()
    target = await begin_rebuild(stage, 1)
    for ram in stage.ram:
        ram.counters.read_bytes = ram.counters.written_bytes = 0
    await rebuild(stage.engine, target)
    held = sum(part.length for part in stage.engine._held(1, 0, stage.engine.rebuild_end))
    assert sum(ram.counters.read_bytes for ram in stage.ram) == held
    assert stage.ram[1].counters.written_bytes == held
    assert stage.ram[1].counters.read_bytes == 0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_target_that_cannot_be_written_fails_and_nothing_else_does(shape):
    for error in (MediaError("bad"), NoSpace("full"), TransportError("gone")):
        stage = set_up(shape)
        oracle = await stage.fill()
        target = await begin_rebuild(stage, 0)
        stage.faulty[0].fail("write", error, nth=2)
        with pytest.raises(TargetFailed, match="cannot be filled"):
            await rebuild(stage.engine, target, 1)
        assert target.valid == stage.engine.rebuild_unit
        assert await stage.read(0, stage.size) == oracle
        await rebuild(stage.engine, target)
        admit(stage, target)
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_target_that_fails_under_a_write_is_not_believed_afterwards(shape):
    """The write that it fails is in what was filled; the rebuild is in the midst of its next step."""
    stage = set_up(shape, wait=True)
    oracle = await stage.fill()
    target = await begin_rebuild(stage, 1)
    unit = stage.engine.rebuild_unit
    await stage.engine.rebuild(target, 0, 4 * unit)
    part = next(iter(stage.engine._held(1, 0, unit)))
    # Writes to the target: the step of the rebuild, and the user's.
    gate = trio.Event()
    stage.faulty[1].block("write", gate)
    outcome = []

    async def step() -> None:
        try:
            await stage.engine.rebuild(target, 4 * unit, 5 * unit)
        except TargetFailed as error:
            outcome.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(step)
        await trio.testing.wait_all_tasks_blocked()
        stage.faulty[1].fail("write", MediaError("bad"))
        await stage.write(part.at, b"n" * BLOCK)
        oracle[part.at : part.at + BLOCK] = b"n" * BLOCK
        assert target.valid == 0
        gate.set()
    assert len(outcome) == 1
    assert target.valid == 0
    assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_full_target_is_its_own_failure_and_not_that_of_the_write(shape):
    stage = set_up(shape)
    await stage.fill()
    target = await begin_rebuild(stage, 1)
    await rebuild(stage.engine, target)
    stage.faulty[1].fail("write", NoSpace("full"))
    await stage.write(0, bytes(stage.size))
    assert stage.faults.failed[-1] is target
    assert not stage.engine.sync.needed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_source_that_cannot_be_read_is_mended_or_the_step_is_not_done(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    target = await begin_rebuild(stage, 0)
    at = next(at for at in range(0, stage.size, 4096) if 0 in dict(stage.places(at)))
    others = [slot for slot, _where in stage.places(at) if slot]
    stage.unreadable(at, others[0])
    if len(others) > 1:
        await rebuild(stage.engine, target)
        admit(stage, target)
        stage.check_copies(oracle)
    else:
        with pytest.raises(MediaError, match="bad sector"):
            await rebuild(stage.engine, target, 1)
        assert target.valid <= dict(stage.places(at))[0]
        assert not stage.faults.failed[1:]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_where_copies_are_not_proven_the_one_that_is_read_is_copied(shape):
    stage = set_up(shape)
    await stage.fill()
    for at in range(0, stage.size, 8192):
        for slot, _where in stage.places(at)[1:]:
            stage.spoil(at, slot)
    stage.engine.sync.position = 0
    target, faulty, ram = await begin_copy(stage, 1)
    await rebuild(stage.engine, target)
    seen = await stage.read(0, stage.size)
    admit(stage, target)
    stage.faulty[1], stage.ram[1] = faulty, ram
    for part in stage.engine._held(1, 0, stage.engine.rebuild_end):
        where = DATA + part.offset
        assert ram.data[where : where + part.length] == seen[part.at : part.at + part.length]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_write_that_is_given_up_is_put_right_on_what_is_being_filled_too(shape):
    for copying in (False, True):
        stage = set_up(shape)
        oracle = await stage.fill()
        ram = None
        if copying:
            target, faulty, ram = await begin_copy(stage, 1)
        else:
            target = await begin_rebuild(stage, 1)
            faulty = stage.faulty[1]
        await rebuild(stage.engine, target)
        at = next(at for at in range(0, stage.size, 4096) if 1 in dict(stage.places(at)))
        faulty.block("write", trio.Event())
        with trio.move_on_after(0):
            await stage.write(at, b"n" * 4096)
        assert stage.engine.sync.suspects
        seen = await stage.read(at, 4096)
        oracle[at : at + 4096] = seen
        await stage.sync()
        admit(stage, target)
        if ram is not None:
            stage.faulty[1], stage.ram[1] = faulty, ram
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_lone_copy_and_one_that_is_being_filled_may_differ_too(shape):
    """Dirty, and a member half rebuilt: what was filled of it is made to agree, the rest is none of the resync's."""
    stage = set_up(shape)
    await stage.fill()
    target = await begin_rebuild(stage, 0)
    unit = stage.engine.rebuild_unit
    await stage.engine.rebuild(target, 0, unit)
    part = next(iter(stage.engine._held(0, 0, unit)))
    stage.spoil(part.at, 0)
    stage.engine.sync.position = 0
    assert stage.engine.can_sync
    seen = await stage.read(0, stage.size)
    await stage.sync()
    assert not stage.engine.sync.needed
    where = DATA + part.offset
    assert stage.ram[0].data[where : where + BLOCK] == seen[part.at : part.at + BLOCK]
    await rebuild(stage.engine, target)
    admit(stage, target)
    stage.check_copies(seen)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sync_addresses_of_a_part_of_a_member_are_those_of_what_it_holds(shape):
    stage = set_up(shape)
    engine, source = stage.engine, random.Random(1)
    assert engine.sync.unit_count * engine.sync.unit_size >= stage.size
    for _again in range(20):
        slot = source.randrange(shape.members)
        low, high = sorted(source.sample(range(0, engine.rebuild_end + 1, BLOCK), 2))
        expected = {at for at in range(0, stage.size, BLOCK) if low <= dict(stage.places(at)).get(slot, -1) < high}
        ranges = engine.sync_ranges_of(slot, low, high)
        assert {at for start, end in ranges for at in range(start, end, BLOCK)} == expected
        assert all(left[1] < right[0] for left, right in pairwise(ranges))
    assert engine.sync_range(5120, 512) == (5120, 5632)


class Sparse:
    """Members whose devices know where something was stored."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        for ram in stage.ram:
            ram.extents = self._extents(ram)

    @staticmethod
    def _extents(ram):
        from orionfs.extents import Extent, Kind

        async def extents(offset, length):
            for at in range(offset, offset + length, 4096):
                kind = Kind.DATA if any(ram.data[at : at + 4096]) else Kind.HOLE
                yield Extent(at, min(4096, offset + length - at), kind)

        return extents


@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_what_is_called_unused_is_zeros_everywhere_and_is_found(shape, seed):
    async def scenario() -> None:
        source = random.Random(seed)
        stage = set_up(shape)
        Sparse(stage)
        engine = stage.engine
        oracle = bytearray(stage.size)
        for _write in range(source.randrange(4)):
            at = source.randrange(0, stage.size, 4096)
            await stage.write(at, b"x" * 4096)
            oracle[at : at + 4096] = b"x" * 4096
        unit = engine.sync.unit_size
        low = source.randrange(engine.sync.unit_count) * unit
        empty = await engine.unused(low, stage.size)
        assert not any(oracle[low : low + empty])
        if not any(oracle):
            assert empty == stage.size - low
        slot = source.randrange(shape.members)
        await stage.lose(slot)
        low = source.randrange(engine.rebuild_end // engine.rebuild_unit) * engine.rebuild_unit
        empty = await engine.unused_of(slot, low, engine.rebuild_end)
        assert empty <= engine.rebuild_end - low
        for part in engine._held(slot, low, low + empty):
            assert not any(oracle[part.at : part.at + part.length])
        if not any(oracle):
            assert empty >= engine.rebuild_unit

    trio.run(scenario)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_extents_and_allocation_are_those_of_the_array(shape):
    from orionfs.extents import Kind

    stage = set_up(shape)
    Sparse(stage)
    await stage.write(8192, b"x" * 12288)
    for gone in [(), *survivable(shape)]:
        for slot in gone:
            stage.engine.members[slot].lose("gone")
        stage.engine.member_changed()
        extents = [extent async for extent in stage.engine.extents(0, stage.size)]
        assert [extent[:2] for extent in extents if extent.kind is Kind.DATA] == [(8192, 12288)]
        assert sum(extent.length for extent in extents) == stage.size
        for slot in gone:
            stage.engine.members[slot].admit()
        stage.engine.member_changed()
    # RAM devices call everything allocated.
    copies = len(stage.places(0))
    expected = len(stage.ram[0].data) * (shape.members // copies if shape.layout else 1)
    assert expected <= stage.engine.allocated() <= expected * 2


def test_whole_is_more_than_any_member_has():
    assert max(shape.component for shape in SHAPES) < WHOLE
