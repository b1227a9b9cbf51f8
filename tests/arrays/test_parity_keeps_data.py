"""Parity: random requests against a byte string, with every survivable set of members gone, coming back, and logged."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, TransportError
from orionfs.units import KIB
from tests.arrays.parity_kit import (
    BLOCK,
    DATA,
    SHAPES,
    SMALL,
    Shape,
    Stage,
    ToyJournal,
    ToyThrough,
    check_image,
    images,
    set_up,
)
from tests.arrays.test_arrays_keep_data import requests

R5 = Shape("raid5", "", 4)
R6 = Shape("raid6", "", 6)
R6X4 = Shape("raid6", "", 4)


async def apply(stage: Stage, oracle: bytearray, seed: int, count: int) -> None:
    for kind, offset, length, source in requests(stage.size, seed, count):
        if kind == "write":
            data = source.randbytes(length)
            await stage.write(offset, data, source.randrange(0, length + 1, BLOCK))
            oracle[offset : offset + length] = data
        elif kind in ("zero", "discard"):
            await stage.engine.write_zeroes(offset, length)
            oracle[offset : offset + length] = bytes(length)
        else:
            cut = source.randrange(0, length, BLOCK)
            assert await stage.read(offset, length, cut) == oracle[offset : offset + length]


@pytest.mark.parametrize("wait", [False, True], ids=["inline", "waiting"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_member_holds_what_the_definition_says(shape, wait):
    stage = set_up(shape, wait=wait)
    oracle = bytearray(stage.size)
    await apply(stage, oracle, shape.members, 100)
    assert await stage.read(0, stage.size) == oracle
    stage.check(oracle)
    assert not stage.engine.sync.needed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_survivable_set_of_members_may_be_gone(shape):
    full = await set_up(shape).fill()
    for number, gone in enumerate(shape.survivable()):
        stage = set_up(shape)
        await stage.write(0, bytes(full))
        oracle = bytearray(full)
        await stage.lose(*gone)
        for device in stage.faulty:
            device.calls.clear()
        assert await stage.read(0, stage.size) == oracle
        await apply(stage, oracle, number, 25)
        assert await stage.read(0, stage.size, BLOCK * 3) == oracle
        stage.check(oracle)
        for slot in gone:
            assert not stage.faulty[slot].calls, "a member that is gone is not asked"


@pytest.mark.parametrize("shape", SMALL, ids=str)
async def test_lost_members_come_back_under_load(shape):
    source = random.Random(f"{shape}")
    for number, gone in enumerate(shape.survivable()):
        if len(gone) == 2 and shape.layout and number % 3:
            continue  # two at once: a part of the pairs for each layout, all of them for the default ones
        stage = set_up(shape)
        oracle = await stage.fill(number)
        await stage.lose(*gone)
        await apply(stage, oracle, number, 5)
        targets = [stage.spare(slot) for slot in gone]
        while any(target.valid < stage.engine.rebuild_end for target in targets):
            await stage.rebuild(source.choice(targets), steps=1, batch=source.choice([1, 2, 5]))
            await apply(stage, oracle, source.randrange(1 << 30), 6)
            stage.check(oracle)
        assert await stage.read(0, stage.size) == oracle
        for target in targets:
            stage.admit(target)
        await apply(stage, oracle, number, 10)
        stage.check(oracle)


@pytest.mark.parametrize("shape", [R5, R6, R6X4, Shape("raid4", "", 3), Shape("raid6", "ddf-N-continue", 5)], ids=str)
async def test_a_member_is_replaced_under_load(shape):
    source = random.Random(f"{shape}")
    for slot in range(shape.members):
        for also_gone in (None, *[other for other in range(shape.members) if other != slot]):
            stage = set_up(shape)
            oracle = await stage.fill(slot)
            if also_gone is not None:
                await stage.lose(also_gone)
            copy, ram = stage.replacement(slot)
            await stage.rebuild(copy, steps=2)
            if shape.level == "raid6" and source.random() < 0.5:
                await stage.lose(slot)  # the original goes: the copy is made from the others
            while copy.valid < stage.engine.rebuild_end:
                await apply(stage, oracle, source.randrange(1 << 30), 6)
                await stage.rebuild(copy, steps=1)
                image = images(stage.engine.layout, shape.members, oracle)[slot]
                check_image(ram, image, copy.valid, "the copy")
            stage.check(oracle)


@pytest.mark.parametrize("size", [0, 3, 1000])
@pytest.mark.parametrize("shape", [R5, R6, R6X4, Shape("raid5", "", 2), Shape("raid6", "right-asymmetric", 5)], ids=str)
async def test_through_a_journal_everything_is_as_without_one(shape, size):
    for number, gone in enumerate([(), *shape.survivable()]):
        stage = set_up(shape)
        stage.engine.log = journal = ToyJournal(stage.engine, size)
        oracle = await stage.fill(number)
        await stage.lose(*gone[:1])
        await apply(stage, oracle, number, 15)
        await stage.lose(*gone[1:])
        await apply(stage, oracle, number + 1, 15)
        assert await stage.read(0, stage.size) == oracle
        targets = [stage.spare(slot) for slot in gone]
        for target in targets:
            journal.adopt(target)
        for target in targets:
            await stage.rebuild(target, steps=2)
            await apply(stage, oracle, number + 2, 10)
            await stage.rebuild(target)
            stage.admit(target)
            await apply(stage, oracle, number + 3, 10)
        assert await stage.scrub(repair=False) == []
        assert await stage.read(0, stage.size) == oracle
        await journal.drain()
        stage.check(oracle)
        assert journal.partial
        assert journal.whole


@pytest.mark.parametrize("shape", [R5, R6, R6X4, Shape("raid4", "", 4)], ids=str)
async def test_a_log_that_writes_through_is_settled_before_anything_goes_around_it(shape):
    stage = set_up(shape)
    stage.engine.log = log = ToyThrough(stage.engine)
    oracle = await stage.fill()
    await apply(stage, oracle, 3, 60)
    log.settled.clear()
    width = stage.engine.layout.row_width
    await stage.engine.write_zeroes(width, 3 * width)
    oracle[width : 4 * width] = bytes(3 * width)
    assert log.settled == [(1, 4)]
    await stage.engine.sync_units(2, 4)
    bad = stage.engine.layout.row(5).data[0]
    stage.unreadable(bad, 5 * shape.chunk)
    await stage.read(0, stage.size)
    assert log.settled[1:] == [(2, 6), (5, 6)], "before a bad sector is rewritten, too"
    stage.faulty[bad].heal()
    log.settled.clear()
    await stage.lose(1)
    target = stage.spare(1)
    await stage.rebuild(target, steps=1, batch=4)
    assert log.settled == [(0, 4)]
    await stage.rebuild(target)
    stage.admit(target)
    log.settled.clear()
    stage.spoil(2, 3 * shape.chunk)
    assert await stage.scrub(repair=False)
    assert log.settled == []
    assert await stage.scrub(repair=True)
    assert log.settled == [(3, 4)]


@pytest.mark.parametrize("error", [MediaError, TransportError])
@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_members_may_fail_between_any_two_requests(shape, error):
    for number, gone in enumerate(shape.survivable()):
        stage = set_up(shape, wait=bool(number % 2))
        oracle = await stage.fill(number)
        for slot in gone:
            stage.faulty[slot].fail("write", error("the disk does not write any more"), forever=True)
            if number % 3:
                stage.faulty[slot].fail("read", error("nor read"), forever=True)
            await apply(stage, oracle, number, 25)
        await stage.write(0, bytes(oracle))
        assert {member.slot for member in stage.faults.failed} == set(gone)
        assert await stage.read(0, stage.size) == oracle
        stage.check(oracle)


@pytest.mark.parametrize("shape", SMALL, ids=str)
async def test_bad_sectors_are_read_from_the_others_and_rewritten(shape):
    source = random.Random(f"{shape}")
    tolerated = shape.rules.tolerates(shape.members)
    for _ in range(12):
        stage = set_up(shape)
        oracle = await stage.fill()
        row = source.randrange(shape.rows)
        bad = source.sample(range(shape.members), tolerated)
        gone = bad.pop() if source.random() < 0.3 else None
        if gone is not None:
            await stage.lose(gone)
        data = stage.engine.layout.row(row).data
        for slot in bad:
            at = row * shape.chunk + source.randrange(0, shape.chunk, BLOCK)
            stage.unreadable(slot, at)
            if slot in data:
                stage.ram[slot].data[DATA + at : DATA + at + BLOCK] = bytes(BLOCK)
        assert await stage.read(0, stage.size) == oracle
        stage.check(oracle)
        assert {member.slot for member in stage.faults.corrected} >= set(bad) & set(data), "rewritten, and told"
        await apply(stage, oracle, 1, 10)
        assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_what_redundancy_cannot_stand_in_for_is_an_error_and_the_rest_is_not(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    row = stage.engine.layout.row(5)
    tolerated = shape.rules.tolerates(shape.members)
    await stage.lose(*row.data[:tolerated])
    victim = row.data[tolerated]
    stage.unreadable(victim, 5 * shape.chunk)
    width = stage.engine.layout.row_width
    lost = 5 * width
    with pytest.raises(MediaError, match=f"{tolerated + 1} members of the stripe cannot be read.*bad sector"):
        await stage.read(lost, width)
    with pytest.raises(MediaError):
        await stage.read(0, stage.size)
    assert await stage.read(0, lost) == oracle[:lost]
    assert await stage.read(lost + width, stage.size - lost - width) == oracle[lost + width :]
    assert await stage.read(lost + BLOCK, 2 * BLOCK) == oracle[lost + BLOCK : lost + 3 * BLOCK], "beside the sector"
    await stage.write(lost, bytes(width))
    stage.faulty[victim].heal()
    oracle[lost : lost + width] = bytes(width)
    assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_a_stripe_that_is_not_proven_is_not_computed_from(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    place = stage.engine.layout.row(4)
    await stage.lose(place.data[0])
    stage.engine.sync.suspect(4, 5)
    width = stage.engine.layout.row_width
    with pytest.raises(MediaError, match="not proven"):
        await stage.read(4 * width, BLOCK)
    rest = slice(4 * width + shape.chunk, 5 * width)
    assert await stage.read(rest.start, rest.stop - rest.start) == oracle[rest]
    data = bytes(shape.chunk)
    await stage.write(4 * width + shape.chunk, data)
    oracle[4 * width + shape.chunk : 4 * width + 2 * shape.chunk] = data
    target = stage.spare(place.data[0])
    with pytest.raises(MediaError, match="not proven"):
        await stage.engine.rebuild(target, 0, 8 * shape.chunk)
    assert target.valid == 0
    stage.engine.sync.prove(4, 5)
    await stage.rebuild(target)
    assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("logged", [False, True], ids=["", "logged"])
@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_stripes_written_as_a_whole_are_proven(shape, logged):
    stage = set_up(shape)
    oracle = await stage.fill()
    if logged:
        stage.engine.log = ToyThrough(stage.engine)
    place = stage.engine.layout.row(4)
    await stage.lose(place.data[0])
    stage.engine.sync.suspect(3, 9)
    width = stage.engine.layout.row_width
    await stage.write(4 * width - BLOCK, bytes(2 * width + 2 * BLOCK))
    oracle[4 * width - BLOCK : 6 * width + BLOCK] = bytes(2 * width + 2 * BLOCK)
    assert stage.engine.sync.suspects == {3, 6, 7, 8}
    assert await stage.read(4 * width, 2 * width) == bytes(2 * width)
    await stage.engine.write_zeroes(7 * width, width)
    assert stage.engine.sync.suspects == {3, 6, 8}
    stage.engine.sync.position = 10
    await stage.write(9 * width, bytes(2 * width))
    assert stage.engine.sync.position == 11


@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_parity_is_rebuilt_without_proof(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    place = stage.engine.layout.row(4)
    await stage.lose(place.parity)
    stage.engine.sync.suspect(4, 5)
    target = stage.spare(place.parity)
    await stage.rebuild(target)
    stage.check(oracle)


# --- writes that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_a_write_that_finds_no_space_leaves_whole_stripes_suspect_and_degraded_ones_as_they_were(shape):
    for number, gone in enumerate([(), *shape.survivable()]):
        for full in range(shape.members):
            if full in gone:
                continue
            stage = set_up(shape, wait=bool(number % 2))
            oracle = await stage.fill(number)
            await stage.lose(*gone)
            stage.faulty[full].fail("write", lambda: NoSpace("the filesystem is full"), forever=True)
            source = random.Random(number)
            for _ in range(6):
                length = source.choice([BLOCK, 4096, 5 * 4096])
                offset = source.randrange(0, stage.size - length + 1, BLOCK)
                before = bytes(oracle[offset : offset + length])
                data = source.randbytes(length)
                try:
                    await stage.write(offset, data)
                except NoSpace:
                    after = data
                else:
                    after = before = data
                if not gone:
                    now = await stage.read(offset, length)
                    for at in range(0, length, BLOCK):
                        assert now[at : at + BLOCK] in (before[at : at + BLOCK], after[at : at + BLOCK])
                    oracle[offset : offset + length] = now
                else:
                    oracle[offset : offset + length] = before
            assert not stage.faults.failed[len(gone) :]
            if gone:
                assert not stage.engine.sync.suspects, "taken back"
            stage.faulty[full].heal()
            if not gone:
                assert stage.faults.wanted
                await stage.sync()
            assert await stage.read(0, stage.size) == oracle
            stage.check(oracle)


async def test_want_of_space_for_a_member_that_is_being_filled_is_its_own_failure():
    stage = set_up(R6)
    oracle = await stage.fill()
    await stage.lose(2)
    target = stage.spare(2)
    await stage.rebuild(target, steps=3)
    copy, _ram = stage.replacement(4)
    await stage.rebuild(copy, steps=3)
    for member in (target, copy):
        member.present.fail("write", lambda: NoSpace("the filesystem is full"), forever=True)
    await apply(stage, oracle, 5, 30)
    assert stage.faults.failed[1:] == [target, copy] or stage.faults.failed[1:] == [copy, target]
    stage.check(oracle)
    assert not stage.engine.sync.needed


async def test_a_target_that_takes_no_writes_fails_its_rebuild():
    from orionfs.array.engine import TargetFailed

    stage = set_up(R5)
    await stage.fill()
    await stage.lose(1)
    target = stage.spare(1)
    await stage.rebuild(target, steps=1)
    stage.faulty[1].fail("write", lambda: MediaError("worn out"), forever=True)
    with pytest.raises(TargetFailed, match="new1 cannot be filled: worn out"):
        await stage.rebuild(target)
    assert target.valid == 3 * R5.chunk


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_a_cancelled_write_leaves_its_stripes_suspect(shape, autojump_clock):
    stage = set_up(shape, wait=True)
    oracle = await stage.fill()
    place = stage.engine.layout.row(3)
    stage.faulty[place.parity].block("write", trio.Event())
    offset = 3 * stage.engine.layout.row_width
    with trio.move_on_after(1):
        await stage.write(offset, bytes(4096))
    assert stage.engine.sync.suspects == {3}
    oracle[offset : offset + 4096] = await stage.read(offset, 4096)
    await stage.sync()
    assert not stage.engine.sync.needed
    stage.check(oracle)


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
@pytest.mark.parametrize("halfway", [False, True])
async def test_what_a_log_raises_leaves_stripes_suspect_that_it_had_begun_to_write(shape, halfway):
    class Broken(ToyThrough):
        async def write(self, transfers, rows, put):
            if halfway:
                await put(transfers[:1])
            raise NoSpace("no room in the log")

    stage = set_up(shape)
    await stage.fill()
    stage.engine.log = Broken(stage.engine)
    width = stage.engine.layout.row_width
    with pytest.raises(NoSpace):
        await stage.write(2 * width - BLOCK, bytes(2 * BLOCK))
    assert stage.engine.sync.suspects == ({1, 2} if halfway else set())
    with pytest.raises(NoSpace):
        await stage.write(5 * width, bytes(2 * width))
    assert stage.engine.sync.suspects == ({1, 2, 5, 6} if halfway else set())


@pytest.mark.parametrize("shape", [R5, R6, R6X4], ids=str)
async def test_requests_and_a_rebuild_at_the_same_time(shape, autojump_clock):
    """Tasks that overlap on waiting devices, each with a part of the array that is its own, and a member that goes."""
    stage = set_up(Shape(shape.level, shape.layout, shape.members, shape.chunk, 16), wait=True)
    oracle = await stage.fill()
    share = 5 * 4096 // 2 // BLOCK * BLOCK
    done = trio.Event()

    async def work(number: int) -> None:
        source = random.Random(number)
        low, high = number * share, (number + 1) * share
        for _ in range(50):
            length = source.randrange(BLOCK, share, BLOCK)
            offset = source.randrange(low, high - length + 1, BLOCK)
            if source.random() < 0.5:
                data = source.randbytes(length)
                await stage.write(offset, data)
                oracle[offset : offset + length] = data
            else:
                assert await stage.read(offset, length) == oracle[offset : offset + length]

    async def come_and_go() -> None:
        source = random.Random(shape.members)
        while not done.is_set():
            slot = source.randrange(shape.members)
            await stage.lose(slot)
            await trio.testing.wait_all_tasks_blocked() if source.random() < 0.1 else await trio.lowlevel.checkpoint()
            target = stage.spare(slot)
            while target.valid < stage.engine.rebuild_end:
                await stage.rebuild(target, steps=1)
                await trio.lowlevel.checkpoint()
            stage.admit(target)

    async def all_work() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(stage.size // share):
                nursery.start_soon(work, number)
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_and_go)
        nursery.start_soon(all_work)
    assert await stage.read(0, stage.size) == oracle
    stage.check(oracle)


# --- economy ---------------------------------------------------------------------------------------------------------


def bytes_read(stage: Stage) -> list[int]:
    return [device.counters.read_bytes for device in stage.ram]


@pytest.mark.parametrize(
    ("shape", "offset", "length", "reads"),
    [
        (R5, 0, 3 * 4096 * 4, 0),  # whole stripes
        (R5, 512, 512, 2),  # read-modify-write: old data and old parity
        (R5, 0, 2 * 4096, 1),  # reconstruct-write: the one chunk that stays
        (R5, 4096 - 512, 1024, 4),  # two ends of neighbors: nothing between them is read
        (R6, 512, 512, 3),
        (R6, 0, 3 * 4096, 1),
        (R6X4, 0, 512, 1),
    ],
    ids=str,
)
async def test_a_write_reads_no_more_than_it_has_to(shape, offset, length, reads):
    stage = set_up(shape)
    await stage.fill()
    before, counted = bytes_read(stage), stage.engine.stripe_reads
    await stage.write(offset, bytes(length))
    assert stage.engine.stripe_reads - counted == reads
    read = sum(bytes_read(stage)) - sum(before)
    assert read == reads * min(length // max(length // shape.chunk, 1), 512 if reads == 4 else length) or not reads


@pytest.mark.parametrize("gone", [(0,), (1, 3)])
async def test_a_degraded_read_reads_nothing_twice_and_each_member_once(gone):
    shape = Shape("raid6", "", 6, rows=24) if len(gone) == 2 else Shape("raid5", "", 4, rows=24)
    stage = set_up(shape)
    oracle = await stage.fill()
    await stage.lose(*gone)
    before = bytes_read(stage)
    for device in stage.faulty:
        device.calls.clear()
    width = stage.engine.layout.row_width
    assert await stage.read(2 * width, 12 * width) == oracle[2 * width : 14 * width]
    for slot, device in enumerate(stage.ram):
        if slot not in gone:
            assert device.counters.read_bytes - before[slot] <= 12 * shape.chunk
            if shape.level == "raid5":
                assert stage.faulty[slot].calls["read"] <= 5, "one read for all neighbors"


async def test_sync_addresses_are_those_of_the_stripes():
    engine = set_up(Shape("raid6", "", 6, 16 * KIB)).engine
    assert engine.sync_range(0, 512) == (0, 16 * KIB)
    assert engine.sync_range(64 * KIB - 512, 1024) == (0, 32 * KIB)
    assert engine.sync_ranges_of(3, 100, 200) == [(100, 200)]
    assert (engine.rebuild_unit, engine.rebuild_end) == (16 * KIB, 12 * 16 * KIB)


@pytest.mark.parametrize("shape", [R5, R6X4], ids=str)
async def test_nothing_is_mended_on_an_array_that_is_only_read(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    stage.engine.read_only = True
    stage.unreadable(0, 0, shape.component)
    calls = stage.faulty[0].calls["write"]
    assert await stage.read(0, stage.size) == oracle
    assert stage.faulty[0].calls["write"] == calls
    assert not stage.faults.failed


@pytest.mark.parametrize("shape", [R5, R6], ids=str)
async def test_more_failures_than_can_be_survived_are_errors_and_no_member_is_lost_for_them(shape):
    stage = set_up(shape)
    await stage.fill()
    tolerated = shape.rules.tolerates(shape.members)
    for slot in range(tolerated + 1):
        for operation in ("write", "write_zeroes"):
            stage.faulty[slot].fail(operation, lambda: TransportError("gone"), forever=True)
    with pytest.raises(DeviceError):
        await stage.write(0, bytes(stage.size))
    assert len(stage.faults.failed) == tolerated
    assert stage.engine.sync.needed
    with pytest.raises(OrionError):
        await stage.engine.write_zeroes(0, stage.size)
