"""Copies: random requests against a byte string, with every survivable set of members gone, and while they go."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from orionfs.errors import DeviceError, MediaError, NoSpace, TransportError
from tests.arrays.copies_kit import BLOCK, DATA, MIRRORS, SHAPES, Shape, Stage, set_up, survivable
from tests.arrays.test_arrays_keep_data import requests

N2X4 = Shape("n2", 0x102, 4)


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
            assert await stage.read(offset, length) == oracle[offset : offset + length]


@pytest.mark.parametrize("policy", ["adaptive", "round-robin", "nearest"])
@pytest.mark.parametrize("wait", [False, True], ids=["inline", "waiting"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_copy_holds_what_was_written(shape, wait, policy):
    stage = set_up(shape, wait=wait)
    stage.engine.policies.read_policy = policy
    oracle = bytearray(stage.size)
    await apply(stage, oracle, shape.members, 120)
    assert await stage.read(0, stage.size) == oracle
    stage.check_copies(oracle)
    assert not stage.engine.sync.needed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_survivable_set_of_members_may_be_gone(shape):
    for number, gone in enumerate(survivable(shape)):
        stage = set_up(shape)
        oracle = await stage.fill(number)
        await stage.lose(*gone)
        assert await stage.read(0, stage.size) == oracle
        await apply(stage, oracle, number, 30)
        assert await stage.read(0, stage.size) == oracle
        stage.check_copies(oracle)
        for slot in gone:
            assert not stage.faulty[slot].calls["read"], "a member that is gone is not asked"


@pytest.mark.parametrize("error", [MediaError, TransportError])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_members_may_fail_between_any_two_requests(shape, error):
    for number, gone in enumerate(survivable(shape, 2)):
        stage = set_up(shape)
        oracle = bytearray(stage.size)
        await apply(stage, oracle, number, 15)
        for slot in gone:
            stage.faulty[slot].fail("write", lambda: error("it does not write"), forever=True)
            stage.faulty[slot].fail("write_zeroes", lambda: error("it does not write"), forever=True)
            await apply(stage, oracle, slot, 25)
        assert {member.slot for member in stage.faults.failed} <= set(gone)
        await stage.write(0, bytes(oracle))  # now every member has had to do something
        assert {member.slot for member in stage.faults.failed} == set(gone)
        assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_with_the_last_copy_gone_nothing_is_made_up(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    holders = {slot for slot, _where in stage.places(0)}
    for slot in holders:
        stage.engine.members[slot].lose("gone")
    stage.engine.member_changed()
    for act in (stage.read(0, BLOCK), stage.read(0, stage.size), stage.write(0, bytes(BLOCK))):
        with pytest.raises(MediaError, match="no copy"):
            await act
    for at in range(0, stage.size, 4096):
        if not {slot for slot, _where in stage.places(at)} <= holders:
            assert await stage.read(at, 4096) == oracle[at : at + 4096]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_requests_are_split_as_little_as_the_layout_allows(shape):
    stage = set_up(shape)
    await stage.fill()
    zones = stage.engine.layout.far if shape.layout and not stage.engine.layout.offset else 1
    assert all(device.calls["write"] <= zones for device in stage.faulty), "one write for each zone of a member"
    for device in stage.faulty:
        device.calls.clear()
    await stage.engine.read(0, [bytearray(stage.size)], stage.size)
    read = sum(device.child.counters.read_bytes for device in stage.faulty)
    assert read == stage.size, "each byte is read once"
    if shape.layout and shape.members % stage.engine.layout.near == 0 and not stage.engine.layout.offset:
        assert sum(device.calls["read"] for device in stage.faulty) <= shape.members, "one read for each member at most"


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["adaptive", "round-robin", "nearest"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_one_copy_cannot_give_another_does_and_it_is_rewritten(shape, policy):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    stage.engine.policies.read_policy = policy
    oracle = await stage.fill()
    for number in range(6):
        offset = source.randrange(0, stage.size, BLOCK)
        places = stage.places(offset)
        slot, _where = source.choice(places) if number % 2 else places[0]
        stage.unreadable(offset, slot)
        writes, errors = stage.faulty[slot].calls["write"], stage.engine.members[slot].counters.read_errors
        for _again in range(4):  # until each policy has come upon the bad copy
            low = max(offset - source.randrange(0, 40960, BLOCK), 0)
            length = min(source.randrange(BLOCK, 131072, BLOCK) + offset - low, stage.size - low)
            assert await stage.read(low, length) == oracle[low : low + length]
            assert await stage.read(0, stage.size) == oracle
        if stage.engine.members[slot].counters.read_errors > errors:
            assert stage.faulty[slot].calls["write"] > writes, "it was rewritten"
            assert stage.engine.members[slot] in stage.faults.corrected
        stage.faulty[slot].heal()
        stage.check_copies(oracle)
    assert not stage.faults.failed
    assert stage.faults.corrected, "some of them were met"


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.members > 2], ids=str)
async def test_every_copy_may_have_bad_places_if_they_are_not_the_same(shape):
    """Each block can be read from exactly one copy, which is another one for each block."""
    stage = set_up(shape)
    oracle = await stage.fill()
    for number, at in enumerate(range(0, stage.size, 4096)):
        places = stage.places(at)
        for slot, _where in places[: number % len(places)] + places[number % len(places) + 1 :]:
            stage.unreadable(at, slot, 4096)
    assert await stage.read(0, stage.size) == oracle
    for at in range(0, stage.size, 24576):
        length = min(24576, stage.size - at)
        assert await stage.read(at, length) == oracle[at : at + length]
    assert not stage.faults.failed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_no_copy_can_give_is_an_error_and_nobody_is_failed_for_it(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    for slot, _where in stage.places(8192):
        stage.unreadable(8192, slot)
    for offset, length in ((8192, BLOCK), (0, stage.size)):
        with pytest.raises(MediaError, match="bad sector"):
            await stage.read(offset, length)
    assert await stage.read(8192 + BLOCK, BLOCK) == oracle[8192 + BLOCK : 8192 + 2 * BLOCK]
    assert not stage.faults.failed
    stage.check_copies(oracle)


@pytest.mark.parametrize("policy", ["adaptive", "round-robin", "nearest"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_member_that_does_not_answer_is_failed_and_the_read_is_served(shape, policy):
    stage = set_up(shape)
    stage.engine.policies.read_policy = policy
    oracle = await stage.fill()
    stage.faulty[1].fail("read", lambda: TransportError("gone"), forever=True)
    for at in range(0, stage.size, 4096):
        assert await stage.read(at, 4096) == oracle[at : at + 4096]
    stage.engine.policies.read_policy = "round-robin"
    for _again in range(4):
        assert await stage.read(0, stage.size) == oracle
    assert [member.slot for member in stage.faults.failed] == [1]


async def test_a_copy_that_cannot_be_rewritten_is_failed_unless_it_is_for_want_of_space():
    for error, failed in ((MediaError("write"), [0]), (NoSpace("full"), [])):
        stage = set_up(MIRRORS[0])
        oracle = await stage.fill()
        stage.engine.policies.read_policy = "round-robin"
        stage.unreadable(4096, 0)
        stage.faulty[0].fail("write", error, forever=True)
        for _again in range(3):
            assert await stage.read(4096, BLOCK) == oracle[4096 : 4096 + BLOCK]
        assert [member.slot for member in stage.faults.failed] == failed


async def test_nothing_is_mended_in_an_array_that_is_only_read():
    stage = set_up(N2X4)
    oracle = await stage.fill()
    stage.engine.read_only = True
    stage.unreadable(0, 0)
    before = stage.faulty[0].calls["write"]
    assert await stage.read(0, stage.size) == oracle
    assert stage.faulty[0].calls["write"] == before


# --- writes that go wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_full_backing_store_fails_the_write_and_no_member(shape):
    stage = set_up(shape)
    oracle = await stage.fill()
    slot, _where = stage.places(8192)[1]
    stage.faulty[slot].fail("write", NoSpace("full"))
    with pytest.raises(NoSpace):
        await stage.write(8192, b"n" * 4096)
    assert not stage.faults.failed
    assert stage.faults.wanted
    seen = await stage.read(8192, 4096)
    for at in range(0, 4096, BLOCK):
        assert seen[at : at + BLOCK] in (oracle[8192 + at : 8192 + at + BLOCK], b"n" * BLOCK)
    for policy in ("round-robin", "nearest", "adaptive") * 3:
        stage.engine.policies.read_policy = policy
        assert await stage.read(8192, 4096) == seen, "a block never flips"
        assert (await stage.read(0, stage.size))[8192 : 8192 + 4096] == seen
    await stage.sync()
    oracle[8192 : 8192 + 4096] = seen
    stage.check_copies(oracle)
    assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_write_that_is_given_up_leaves_no_block_that_flips(shape):
    for number in range(len(set_up(shape).places(0))):
        stage = set_up(shape)
        oracle = await stage.fill()
        slot, _where = stage.places(8192)[number]
        gate = trio.Event()
        stage.faulty[slot].block("write", gate)
        with trio.move_on_after(0):
            await stage.write(8192, b"n" * 4096)
        assert stage.engine.sync.needed
        stage.engine.policies.read_policy = "round-robin"
        seen = [await stage.read(8192, 4096) for _again in range(5)]
        assert len(set(seen)) == 1
        await stage.sync()
        oracle[8192 : 8192 + 4096] = seen[0]
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_was_seen_of_a_half_done_write_outlasts_the_copy_that_it_was_seen_on(shape):
    stage = set_up(shape)
    await stage.fill()
    fixed, *others = [slot for slot, _where in stage.places(8192)]
    for slot in others:
        stage.faulty[slot].block("write", trio.Event())
    with trio.move_on_after(0):
        await stage.write(8192, b"n" * 4096)
    assert await stage.read(8192, 4096) == b"n" * 4096
    await stage.lose(fixed)
    assert await stage.read(8192, 4096) == b"n" * 4096
    assert not stage.engine.sync.suspects


@pytest.mark.parametrize("policy", ["adaptive", "round-robin", "nearest"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_block_does_not_flip_while_it_is_written(shape, policy):
    """Once somebody has seen the new contents, nobody sees the old ones, whichever copy is late."""
    for number in range(len(set_up(shape).places(0))):
        stage = set_up(shape)
        stage.engine.policies.read_policy = policy
        oracle = await stage.fill()
        gate = trio.Event()
        slot, _where = stage.places(4096)[number]
        stage.faulty[slot].block("write", gate)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.write, 4096, b"n" * 4096)
            await trio.testing.wait_all_tasks_blocked()
            seen = [await stage.read(4096, 4096) for _again in range(4)]
            seen += [(await stage.read(0, stage.size))[4096:8192] for _again in range(4)]
            assert len(set(seen)) == 1
            gate.set()
        oracle[4096:8192] = b"n" * 4096
        stage.check_copies(oracle)


# --- unproven copies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_after_an_unclean_stop_one_copy_is_right_and_becomes_all_of_them(shape):
    source = random.Random(f"{shape}")
    stage = set_up(shape)
    oracle = await stage.fill()
    for _flip in range(12):
        offset = source.randrange(0, stage.size, BLOCK)
        stage.spoil(offset, source.choice(stage.places(offset))[0])
    stage.engine.sync.position = 0
    seen = await stage.read(0, stage.size)
    for policy in ("round-robin", "nearest", "adaptive") * 2:
        stage.engine.policies.read_policy = policy
        assert await stage.read(0, stage.size) == seen
        for at in range(0, stage.size, 4096):
            assert await stage.read(at, 4096) == seen[at : at + 4096]
    await stage.sync()
    stage.check_copies(seen)
    assert len({bytes(seen), bytes(oracle)}) == 2, "some fixed copy was among those that were spoilt"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_an_unproven_fixed_copy_that_stumbles_once_is_still_the_one_that_counts(shape):
    stage = set_up(shape)
    await stage.fill()
    fixed, where = stage.places(0)[0]
    for slot, _where in stage.places(0)[1:]:
        stage.spoil(0, slot)
    stage.engine.sync.position = 0
    seen = await stage.read(0, BLOCK)
    stage.faulty[fixed].fail("read", MediaError("a moment of weakness"), within=(DATA + where, DATA + where + 1))
    assert await stage.read(0, BLOCK) == seen
    stage.faulty[fixed].fail("read", MediaError("a moment of weakness"), within=(DATA + where, DATA + where + 1))
    await stage.sync()
    assert await stage.read(0, BLOCK) == seen


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_an_unproven_fixed_copy_that_is_lost_hands_on_to_the_next_for_good(shape):
    for error in (MediaError("bad sector"), TransportError("gone")):
        stage = set_up(shape)
        oracle = await stage.fill()
        fixed, where = stage.places(0)[0]
        stage.engine.sync.position = 0
        stage.faulty[fixed].fail("read", error, forever=True, within=(DATA + where, DATA + where + 1))
        assert await stage.read(0, stage.size) == oracle
        await stage.sync()
        assert not stage.engine.sync.needed
        stage.faulty[fixed].heal()
        stage.check_copies(oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_only_one_member_holds_needs_no_proof(shape):
    stage = set_up(shape)
    await stage.fill()
    stage.engine.sync.position = 0
    for gone in survivable(shape, shape.members - 1)[-1]:
        await stage.lose(gone)
    lone = all(
        sum(stage.engine.members[slot].active for slot, _where in stage.places(at)) == 1
        for at in range(0, stage.size, 4096)
    )
    assert stage.engine.can_sync != lone
    assert stage.engine.sync.needed != lone


async def test_errors_of_no_kind_that_is_known_are_not_swallowed():
    stage = set_up(MIRRORS[0])
    stage.faulty[0].fail("read", ZeroDivisionError("a bug"), forever=True)
    stage.faulty[1].fail("read", ZeroDivisionError("a bug"), forever=True)
    with pytest.raises(ZeroDivisionError):
        await stage.engine.read(0, [bytearray(BLOCK)], BLOCK)
    stage.faulty[0].fail("write", DeviceError("neither"), forever=True)
    await stage.write(0, bytes(BLOCK))
    assert [member.slot for member in stage.faults.failed] == [0]
