"""The journal at work: what it logs, when that is durable and in place, and what happens when members fail."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from orionfs.array.journal import IDLE_S, Journal
from orionfs.array.journal_format import HEADER_SPACE, minimum_ring, parse_header
from orionfs.errors import MediaError, NoSpace, Refused
from orionfs.units import KIB, SECTOR

from .journal_kit import BLOCK, CHUNK, GAP, Shape
from .journal_stage import Stage


@pytest.fixture
async def stage():
    stage = Stage()
    await stage.begin()
    return stage


@asynccontextmanager
async def running(journal: Journal):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.run)
        yield
        nursery.cancel_scope.cancel()


# --- logging, flushing, draining -------------------------------------------------------------------------------------


async def test_a_small_write_is_logged_on_two_members_and_served_from_memory(stage):
    await stage.write((0, 3, 7), (2, 3, 9))
    assert stage.on_disk(0, 3) == stage.on_disk(2, 3) == 0
    assert (await stage.seen(0, 3), await stage.seen(2, 3)) == (7, 9)
    assert not stage.members[0].plain(3 * BLOCK, 4 * BLOCK)
    assert stage.members[0].plain(4 * BLOCK, 5 * BLOCK)
    assert await stage.logged(1) == await stage.logged(0) == [(0, 3, 7), (2, 3, 9)]
    assert stage.journal.describe()["members"] == ["d0", "d1"]
    assert stage.journal.describe()["used"] == 2 * BLOCK + SECTOR
    assert not stage.put_calls


async def test_a_drain_puts_the_newest_in_place_and_empties_the_log(stage):
    for byte in (1, 2, 3):
        await stage.write((0, 3, byte), (2, 3, byte + 10))
    await stage.write((1, 4, 5))
    before = [device.counters.writes for device in stage.ram]
    await stage.journal.drain()
    assert [stage.on_disk(slot, 3) for slot in range(4)] == [3, 0, 13, 0]
    assert stage.on_disk(1, 4) == 5
    assert stage.ram[2].counters.writes - before[2] == 1
    assert stage.journal.empty
    assert stage.members[0].pending is None
    assert await stage.logged() == []
    assert await stage.seen(0, 3) == 3


async def test_nothing_is_in_place_before_the_log_is_durable_nor_forgotten_before_it_is_in_place(stage):
    await stage.write((0, 3, 7))
    order = []
    for slot, device in enumerate(stage.faulty):
        for name in ("write", "flush", "try_write"):
            setattr(device, name, _noted(order, slot, name, getattr(device, name)))
    await stage.journal.drain()
    data = stage.shape.data_offset
    in_place = order.index((0, "try_write", data + 3 * BLOCK))
    assert {(0, "flush", None), (1, "flush", None)} <= set(order[:in_place])
    assert (0, "flush", None) in order[in_place:]
    headers = [at for at, (_slot, kind, place) in enumerate(order) if kind == "try_write" and GAP <= place < data]
    assert len(headers) == 2
    assert order.index((0, "flush", None), in_place) < min(headers)
    assert {(0, "flush", None), (1, "flush", None)} <= set(order[max(headers) :])


def _noted(order: list[Any], slot: int, name: str, call: Any) -> Any:
    def noted(*arguments: Any) -> Any:
        order.append((slot, name, arguments[0] if arguments else None))
        return call(*arguments)

    return noted


async def test_a_flush_makes_all_members_durable_but_nothing_in_place(stage):
    await stage.write((0, 3, 7))
    before = [device.flushes for device in stage.ram]
    assert await stage.journal.flush() == []
    assert all(device.flushes > flushes for device, flushes in zip(stage.ram, before, strict=True))
    assert stage.on_disk(0, 3) == 0


async def test_what_is_written_during_a_drain_stays_pending(stage):
    await stage.write((0, 3, 1))
    gate = trio.Event()
    stage.faulty[0].block("flush", gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.journal.drain)
        await trio.testing.wait_all_tasks_blocked()
        await stage.write((0, 3, 2))
        gate.set()
    assert stage.on_disk(0, 3) == 1
    assert await stage.seen(0, 3) == 2
    assert await stage.logged() == [(0, 3, 2)]
    await stage.journal.drain()
    assert stage.on_disk(0, 3) == 2


async def test_neighbors_go_in_place_in_one_write(stage):
    for block in (3, 2, 4, 5):
        await stage.write((1, block, block))
    before = stage.ram[1].counters.writes
    await stage.journal.drain()
    assert [stage.on_disk(1, block) for block in (2, 3, 4, 5)] == [2, 3, 4, 5]
    assert stage.ram[1].counters.writes - before == 2  # and a header


async def test_write_through_is_in_place_when_it_returns(stage):
    stage.policies.change("write_policy", "through")
    await stage.write((0, 3, 7))
    assert stage.on_disk(0, 3) == 7
    assert stage.journal.empty


# --- whole stripes ---------------------------------------------------------------------------------------------------


async def test_whole_stripes_go_past_the_log(stage):
    await stage.write_row(1, 5)
    assert stage.on_disk(3, 2) == 5
    assert stage.journal.empty
    assert await stage.journal.flush() == []


async def test_a_whole_stripe_over_a_record_that_lives_is_logged(stage):
    await stage.write((0, 2, 1))
    await stage.write_row(1, 5)
    assert not stage.put_calls
    assert await stage.seen(0, 2) == 5
    assert (0, 2, 5) in await stage.logged()
    await stage.journal.drain()
    await stage.write_row(1, 6)
    assert len(stage.put_calls) == 1
    assert stage.on_disk(0, 2) == 6


async def test_whole_stripes_are_logged_if_the_policy_says_so(stage):
    stage.policies.change("whole_stripes", "journal")
    await stage.write_row(1, 5)
    assert not stage.put_calls
    assert stage.on_disk(3, 2) == 0
    assert len(await stage.logged()) == 8 // 2 * 2


async def test_a_request_is_taken_apart_by_stripes(stage):
    partial = [(slot, 5, 9) for slot in range(2)]
    whole = [(slot, block, 7) for slot in range(4) for block in (2, 3)]
    await stage.write(*partial, *whole, whole=1)
    assert [stage.on_disk(slot, 3) for slot in range(4)] == [7] * 4
    assert await stage.logged() == [(0, 5, 9), (1, 5, 9)]


async def test_settling_puts_only_what_touches_the_stripes_in_place(stage):
    await stage.write((0, 6, 1))
    await stage.journal.settle(0, 3)
    assert stage.on_disk(0, 6) == 0
    await stage.journal.settle(3, 4)
    assert stage.on_disk(0, 6) == 1


# --- space -----------------------------------------------------------------------------------------------------------


async def test_a_full_ring_drains_itself_and_wraps(stage):
    for number in range(100):
        await stage.write((number % 4, number % 16, number))
        assert stage.journal.describe()["used"] <= stage.shape.ring
    for number in range(84, 100):
        assert await stage.seen(number % 4, number % 16) == number
    assert not stage.failed
    pieces = await stage.logged()
    assert pieces[-1] == (3, 3, 99)


async def test_many_writers_share_a_full_ring():
    stage = Stage(always_wait=True)
    await stage.begin()

    async def writer(slot: int) -> None:
        for number in range(30):
            await stage.write((slot, number % 16, number + slot))

    async with trio.open_nursery() as nursery:
        for slot in range(4):
            nursery.start_soon(writer, slot)
    await stage.journal.drain()
    for slot in range(4):
        for number in range(14, 30):
            assert stage.on_disk(slot, number % 16) == number + slot


async def test_the_stripe_cache_bounds_what_is_pending():
    stage = Stage(Shape(4, 1, rows=8, ring=3 << 20))
    await stage.begin()
    stage.policies.stripe_cache = 20 * KIB
    for number in range(20):
        await stage.write((0, number % 16, number))
        assert stage.journal.describe()["used"] <= 20 * KIB


async def test_a_write_larger_than_a_record_is_several(stage):
    blocks = [(slot, block, slot + block) for slot in range(4) for block in range(16)]
    await stage.write(*blocks)
    for slot, block, byte in blocks:
        assert await stage.seen(slot, block) == byte
    verdict = await stage.found()
    assert len(verdict.records) > 1
    for record in verdict.records:  # parity is true in each by itself: all members, the same addresses
        places = {(at, len(data)) for _slot, at, data in record.pieces}
        assert len(record.pieces) == 4 * len(places)
    await stage.journal.drain()
    assert all(stage.on_disk(slot, block) == byte for slot, block, byte in blocks)


async def test_devices_of_4k_blocks():
    stage = Stage(logical_block=4096)
    await stage.begin()
    await stage.write((0, 3, 7), (2, 3, 9))
    assert stage.journal.describe()["used"] == 3 * BLOCK
    assert await stage.logged() == [(0, 3, 7), (2, 3, 9)]
    await stage.journal.drain()
    assert stage.on_disk(0, 3) == 7


# --- members that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False])
async def test_a_log_member_that_fails_is_done_without(inline):
    stage = Stage(always_wait=not inline)
    await stage.begin()
    await stage.write((0, 3, 1))
    stage.faulty[1].fail("write", MediaError("broken"), forever=True)
    await stage.write((0, 4, 2), (2, 4, 3))
    assert stage.failed == ["d1"]
    assert await stage.logged() == [(0, 3, 1), (0, 4, 2), (2, 4, 3)]
    await stage.write((0, 5, 4))
    header = (await stage.found()).header
    assert [place.device_uuid for place in header.logs] == [stage.members[0].superblock.device_uuid]
    assert stage.members[1].superblock.device_uuid not in header.witness
    assert (await stage.found()).disowned == ("d1",)
    await stage.journal.drain()
    assert [stage.on_disk(0, block) for block in (3, 4, 5)] == [1, 2, 4]


async def test_a_failed_flush_of_the_log_is_the_callers_to_record(stage):
    await stage.write((0, 3, 1))
    stage.faulty[1].fail("flush", MediaError("broken"), forever=True)
    failures = await stage.journal.flush()
    assert [member.label for member, _error in failures] == ["d1"]
    assert not stage.failed
    await stage.member_failed(*failures[0])
    assert await stage.journal.flush() == []
    assert await stage.logged() == [(0, 3, 1)]


async def test_a_flush_without_space_is_a_failed_member(stage):
    await stage.write((0, 3, 1))
    stage.faulty[1].fail("flush", NoSpace("full"))
    ((member, error),) = await stage.journal.flush()
    assert member.label == "d1"
    assert isinstance(error, MediaError)


async def test_a_member_that_cannot_take_what_was_pending_fails(stage):
    await stage.write((2, 3, 1), (3, 3, 2))
    stage.faulty[2].fail("write", MediaError("broken"), forever=True)
    await stage.journal.drain()
    assert stage.failed == ["d2"]
    assert stage.on_disk(3, 3) == 2
    assert stage.journal.empty


async def test_what_cannot_be_put_in_place_at_all_stays_in_the_log(stage):
    await stage.write((2, 3, 1), (3, 3, 2))
    for slot in (2, 3):
        stage.faulty[slot].fail("write", MediaError("broken"), forever=True)
    with pytest.raises(MediaError):
        await stage.journal.drain()
    assert await stage.logged() == [(2, 3, 1), (3, 3, 2)]
    assert await stage.seen(3, 3) == 2


async def test_a_header_that_a_member_does_not_take_fails_it_and_the_drain_goes_on(stage):
    await stage.write((2, 3, 1))
    stage.faulty[1].fail("write", MediaError("broken"), forever=True)
    await stage.journal.drain()
    assert stage.failed == ["d1"]
    assert stage.on_disk(2, 3) == 1
    assert (await stage.found()).records == ()


async def test_witness_leaves_failures_to_its_caller(stage):
    await stage.write((2, 3, 1))
    stage.faulty[1].fail("write", MediaError("broken"), forever=True)
    ((member, _error),) = await stage.journal.witness({}, 9, 9)
    assert member.label == "d1"
    assert not stage.failed


# --- no space --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("full", [(0,), (1,), (0, 1)])
async def test_no_space_for_a_record_leaves_nothing_pending_and_the_log_sound(full, inline):
    stage = Stage(always_wait=not inline)
    await stage.begin()
    await stage.write((0, 3, 1))
    for slot in full:
        stage.faulty[slot].fail("write", NoSpace("full"))
    with pytest.raises(NoSpace):
        await stage.write((0, 3, 2), (0, 4, 3))
    assert (await stage.seen(0, 3), await stage.seen(0, 4)) == (1, 0)
    await stage.write((0, 5, 4))
    assert await stage.logged() == await stage.logged(1) == await stage.logged(0) == [(0, 3, 1), (0, 5, 4)]
    await stage.journal.drain()
    assert [stage.on_disk(0, block) for block in (3, 4, 5)] == [1, 0, 4]
    assert (await stage.found()).header.voids == ()


async def test_many_records_may_be_given_up(stage):
    for number in range(80):
        stage.faulty[1].fail("write", NoSpace("full"))
        with pytest.raises(NoSpace):
            await stage.write((0, 3, number))
    await stage.write((0, 5, 4))
    assert await stage.logged() == [(0, 5, 4)]


async def test_records_in_flight_wait_for_the_one_that_was_given_up():
    stage = Stage(always_wait=True)
    await stage.begin()
    await stage.write((0, 1, 1))
    stage.faulty[0].fail("write", NoSpace("full"))
    errors = []

    async def write(block: int) -> None:
        try:
            await stage.write((0, block, block))
        except NoSpace:
            errors.append(block)

    async with trio.open_nursery() as nursery:
        for block in (3, 4, 5, 6):
            nursery.start_soon(write, block)
    assert len(errors) == 1
    assert {piece[1] for piece in await stage.logged()} == {1, 3, 4, 5, 6} - set(errors)


async def test_no_space_in_place_keeps_everything_and_is_tried_again(stage):
    await stage.write((2, 3, 1))
    data = stage.shape.data_offset
    stage.faulty[2].fail("write", NoSpace("full"), forever=True, within=(data, data + 8 * CHUNK))
    with pytest.raises(NoSpace):
        await stage.journal.drain()
    assert not stage.failed
    assert await stage.journal.flush() == []  # it is durable where it is
    assert await stage.seen(2, 3) == 1
    full = 0
    for number in range(40):
        try:
            await stage.write((2, 4 + number % 4, number))
        except NoSpace:
            full += 1
    assert full
    stage.faulty[2].heal()
    await stage.journal.drain()
    assert stage.on_disk(2, 3) == 1


# --- background ------------------------------------------------------------------------------------------------------


async def test_what_is_idle_is_put_in_place(stage, autojump_clock):
    async with running(stage.journal):
        await stage.write((2, 3, 1))
        await trio.sleep(0.9 * IDLE_S)
        assert stage.on_disk(2, 3) == 0
        await trio.sleep(0.2 * IDLE_S)
        assert stage.on_disk(2, 3) == 1
        assert stage.journal.empty


async def test_while_writes_go_on_the_log_is_made_durable(stage, autojump_clock):
    async with running(stage.journal):
        for number in range(4):
            await stage.write((2, 3, number))
            await trio.sleep(0.7 * IDLE_S)
        assert stage.ram[0].flushes > 2
        assert stage.on_disk(2, 3) == 0
        assert stage.journal._durable > 1


async def test_half_a_ring_is_reason_to_drain(stage, autojump_clock):
    async with running(stage.journal):
        for number in range(7):
            await stage.write((2, number, number), (3, number, number))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.on_disk(2, 5) == 5


async def test_trouble_is_reported_once_and_goes_away(stage, autojump_clock):
    data = stage.shape.data_offset
    stage.faulty[2].fail("write", NoSpace("no space left"), forever=True, within=(data, data + 8 * CHUNK))
    async with running(stage.journal):
        await stage.write((2, 3, 1))
        await trio.sleep(5 * IDLE_S)
        assert stage.reports == ["no space left"]
        assert stage.journal.describe()["trouble"] == "no space left"
        stage.faulty[2].heal()
        await trio.sleep(2 * IDLE_S)
        assert stage.journal.trouble == ""
        assert stage.on_disk(2, 3) == 1


# --- who carries it --------------------------------------------------------------------------------------------------


async def test_a_member_that_came_back_carries_a_copy_again(stage, autojump_clock):
    async with running(stage.journal):
        await stage.write((2, 3, 1))
        await stage.member_failed(stage.members[0], MediaError("gone"))
        await stage.journal.member_changed()
        await stage.write((2, 4, 2))
        assert stage.journal.describe()["members"] == ["d1"]
        stage.members[0].admit()
        await stage.journal.member_changed()
        await trio.sleep(0.1)
        assert stage.journal.describe()["members"] == ["d1", "d0"]
        await stage.write((2, 5, 3))
    assert [stage.on_disk(2, block) for block in (3, 4, 5)] == [1, 2, 0]


async def test_when_all_log_members_are_gone_others_take_over():
    stage = Stage()
    stage.bearable = 2  # as when a rebuild has just ended
    await stage.begin()
    await stage.write((3, 3, 1))
    for slot in (0, 1):
        await stage.member_failed(stage.members[slot], MediaError("gone"))
    await stage.write((3, 4, 2))
    assert stage.on_disk(3, 3) == 1
    assert stage.journal.describe()["members"] == ["d2"]


async def test_no_room_is_a_refusal_with_a_way_out():
    small = Shape(4, 1, rows=8, ring=minimum_ring(4) // 4096 * 4096)
    stage = Stage(small)
    with pytest.raises(Refused, match=r"room before the data of 2 members, and 0 have it.*resync"):
        (await stage.begin()).check()
    stage = Stage(Shape(4, 1, rows=8, ring=-(-minimum_ring(4) // 4096) * 4096))
    (await stage.begin()).check()
    await stage.write(*[(slot, block, slot) for slot in range(4) for block in range(2)])
    await stage.journal.drain()
    assert stage.on_disk(3, 1) == 3


async def test_discarding_leaves_no_journal_behind(stage):
    await stage.write((2, 3, 1))
    await stage.journal.discard()
    assert stage.on_disk(2, 3) == 1
    for device in stage.ram:
        assert parse_header(device.data[GAP : GAP + HEADER_SPACE // 2]) is None
    assert (await stage.found()).reason == "there is no journal"


async def test_for_reading_nothing_is_ever_written(stage):
    await stage.write((2, 3, 1))
    found = await stage.found()
    before = [bytes(device.data) for device in stage.ram]
    await stage.begin(found=found, read_only=True)
    assert await stage.seen(2, 3) == 1
    await stage.journal.start()
    await stage.journal.drain()
    assert await stage.journal.flush() == []
    assert [bytes(device.data) for device in stage.ram] == before
