"""PartialParityLog: records before stripes, groups, members that come and go, and replay."""

import random
from collections import Counter

import pytest
import trio

from orionfs.array.member import Member
from orionfs.array.ppl_area import PplArea, read_record
from orionfs.array.ppl_format import HEADER_SIZE, UNLOGGED, UNPROVEN, Entry, encode_header
from orionfs.errors import IntegrityError, MediaError, NoSpace
from orionfs.kernels.checksums import crc32c
from orionfs.testing.ram import RamDevice

from .ppl_kit import DATA, KIB, MIB, PLACE, SIGNATURE, Stack, consistent, ram, raw, record_on, superblock

# --- records ---------------------------------------------------------------------------------------------------------


async def test_a_record_is_durable_on_the_parity_member_before_the_stripe_is_touched():
    stack, devices = ram()
    await stack.log.start()
    events = []
    for slot, device in enumerate(devices):
        original = device.child.try_write

        def spy(offset, buffers, slot=slot, original=original):
            events.append((slot, "log" if offset < DATA else "data"))
            return original(offset, buffers)

        device.child.try_write = spy
        flush = device.child.flush

        async def flushed(slot=slot, flush=flush):
            events.append((slot, "flush"))
            await flush()

        device.child.flush = flushed
    await stack.write(4 * KIB, b"\x11" * 4096)
    # Row 0: data in 0, 1, 2, parity in 3.
    assert events[:2] == [(3, "log"), (3, "flush")]
    assert sorted(events[2:]) == [(1, "data"), (3, "data")]
    record = record_on(devices[3])
    assert record.entries[0][:4] == (8, 4096, 4096, 3)
    assert raw(devices[3])[PLACE + record.at + 4096 : PLACE + record.at + 8192] == bytes(4096)
    del events[:]
    await stack.write(0, b"\x22" * 4096)
    assert sorted(events[:2]) == [(1, "flush"), (3, "flush")], "what the last record protects"
    assert events[2:4] == [(3, "log"), (3, "flush")]
    record = record_on(devices[3])
    assert raw(devices[3])[PLACE + record.at + 4096 : PLACE + record.at + 8192] == b"\x11" * 4096


async def test_what_a_flush_has_made_durable_is_not_flushed_again():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x22" * 4096)
    assert await stack.log.flush() == []
    before = [device.calls["flush"] for device in devices]
    await stack.write(0, b"\x33" * 4096)
    assert [device.calls["flush"] - count for device, count in zip(devices, before, strict=True)] == [0, 0, 0, 1]


async def test_parts_of_chunks_and_whole_stripes_have_the_entries_that_the_kernel_expects():
    stack, devices = ram()
    await stack.log.start()
    # Row 1: data in 3, 0, 1 at array bytes 12 KiB on, parity in 2.
    await stack.write(12 * KIB + 1024, b"\x11" * 6144)
    first, second, third = record_on(devices[2]).entries
    assert first[:4] == ((16 * KIB) // 512, 1024, 1024, 2)
    assert second[:4] == ((12 * KIB + 1024) // 512, 2048, 4096, 2)
    assert third[:4] == ((12 * KIB + 3072) // 512, 1024, 1024, 2)
    await stack.write(12 * KIB, b"\x22" * 12 * KIB)
    (entry,) = record_on(devices[2]).entries
    assert entry == Entry(24, 0, 12 * KIB, 2, 0)
    await stack.write(12 * KIB + 512, b"\x33" * (12 * KIB - 512))
    assert [entry.pp_size for entry in record_on(devices[2]).entries] == [512, 0], (
        "all chunks from the second sector on"
    )
    assert consistent(devices, 256 * KIB)


async def test_writers_at_the_same_time_share_records_and_flushes():
    stack, devices = ram()
    for device in devices:
        device.inline = False
    await stack.log.start()
    gate = trio.Event()
    for device in devices:
        device.block("flush", gate, forever=True)
    before = [device.calls["flush"] for device in devices]
    async with trio.open_nursery() as nursery:
        for row in range(16):
            nursery.start_soon(stack.write, row * 12 * KIB, b"\x11" * 4096)
        await trio.testing.wait_all_tasks_blocked()
        for device in devices:
            device.heal()
        gate.set()
    assert stack.log.describe()["groups"] <= 2
    assert max(device.calls["flush"] - count for device, count in zip(devices, before, strict=True)) <= 3
    assert consistent(devices, 256 * KIB)


async def test_a_request_that_is_too_large_for_a_record_takes_several():
    stack, devices = ram(3, 4 * MIB, chunk=16 * KIB, area=20 * KIB)
    await stack.log.start()
    await stack.write(512, b"\x11" * (3 * MIB))
    assert await stack.read(512, 3 * MIB) == b"\x11" * (3 * MIB)
    assert consistent(devices, 4 * MIB)
    groups = stack.log.describe()["groups"]
    await stack.write(0, b"\x22" * 16 * KIB)
    assert stack.log.describe()["groups"] == groups + 2, "12 KiB of partial parity fit into a record"
    assert await stack.read(0, 17 * KIB) == b"\x22" * 16 * KIB + b"\x11" * KIB
    assert consistent(devices, 4 * MIB)
    stack, devices = ram(3, 4 * MIB, chunk=4 * KIB)
    await stack.log.start()
    await stack.write(0, b"\x22" * (4 * MIB))
    assert stack.log.describe()["groups"] == 2, "512 stripes, a third of them on each member, 147 in a record"
    assert consistent(devices, 4 * MIB)


async def test_records_go_around_the_area():
    stack, devices = ram(area=24 * KIB)
    await stack.log.start()
    places = Counter()
    for number in range(40):
        await stack.write(0, bytes([number]) * 4096)
        record = record_on(devices[3], 24 * KIB)
        assert record.entries[0].data_sector == 0
        places[record.at] += 1
    assert set(places) == {4 * KIB, 12 * KIB}
    assert (await stack.log.load()) == []
    assert stack.log.usable


# --- members ---------------------------------------------------------------------------------------------------------


async def test_without_its_parity_member_a_stripe_needs_no_record():
    stack, _devices = ram()
    await stack.log.start()
    stack.members[3].lose("gone")
    stack.engine.member_changed()
    await stack.write(0, b"\x11" * 4096)
    assert stack.log.describe()["records"] == 0
    await stack.write(12 * KIB, b"\x11" * 4096)
    assert stack.log.describe()["records"] == 1


@pytest.mark.parametrize("operation", ["write", "flush"])
async def test_a_member_that_does_not_take_its_record_is_lost_and_the_write_goes_on(operation):
    stack, devices = ram()
    await stack.log.start()
    devices[3].fail(operation, lambda: MediaError("broken"), forever=True)
    await stack.write(0, b"\x11" * 4096)
    assert stack.faults.lost == ["d3"]
    assert await stack.read(0, 4096) == b"\x11" * 4096


async def test_without_space_for_its_record_a_write_fails_and_nothing_is_written():
    stack, devices = ram()
    await stack.log.start()
    devices[3].fail("write", lambda: NoSpace("full"), within=(0, DATA))
    with pytest.raises(NoSpace, match="full"):
        await stack.write(0, b"\x11" * 4096)
    assert not any(raw(devices[0])[DATA:])
    assert stack.faults.lost == []
    await stack.write(0, b"\x11" * 4096)
    assert record_on(devices[3]).entries[1:] == (), "the stripe is what it was, and nobody suspects it"


@pytest.mark.parametrize("forever", [False, True])
async def test_a_stripe_that_is_half_written_for_want_of_space_still_agrees_with_its_parity(forever):
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x11" * 12 * KIB)
    devices[3].fail("write", lambda: NoSpace("full"), within=(DATA, DATA + 1), forever=forever)
    with pytest.raises(NoSpace, match="full"):
        await stack.write(4 * KIB, b"\x22" * 4096)
    assert raw(devices[1])[DATA] == 0x22, "half of it was written"
    assert stack.engine.sync.suspects == {0}, "the engine cannot know"
    assert consistent(devices, 256 * KIB) == (not forever)
    await stack.write(12 * KIB, b"\x33" * 4096)
    assert record_on(devices[2]).entries[1:] == ((UNPROVEN,) if forever else (UNLOGGED,))
    if not forever:
        await stack.log.settle(0, 1)
        assert record_on(devices[0]).entries == (UNLOGGED,)
        await stack.log.drain()
        assert record_on(devices[0]).entries == (UNPROVEN,), "nobody has told what has become of it"


async def test_what_is_on_record_is_carried_out_even_if_the_request_is_cancelled():
    stack, devices = ram()
    await stack.log.start()
    devices[1].inline = False
    gate = trio.Event()
    devices[1].block("write", gate)
    scope = trio.CancelScope()

    async def doomed():
        with scope:
            await stack.write(4 * KIB, b"\x22" * 4096)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(doomed)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert await stack.read(4 * KIB, 4096) == b"\x22" * 4096
    assert consistent(devices, 256 * KIB)
    assert not stack.engine.sync.needed


async def test_records_go_to_a_copy_too_which_may_take_over_at_any_time():
    stack, devices = ram()
    await stack.log.start()
    device = RamDevice("copy", DATA + 256 * KIB)
    raw(device)[PLACE : PLACE + 64 * KIB] = b"\xa5" * 64 * KIB
    copy = Member(3, "copy", device, superblock(256 * KIB, 64 * KIB), "spare")
    copy.fill(0, "replacing")
    stack.members[3].copy = copy
    await stack.log.member_changed()
    assert record_on(device).entries == ()
    assert not any(raw(device)[PLACE + 4 * KIB : PLACE + 64 * KIB]), "older records must not follow"
    copy.valid = 4 * KIB
    await stack.write(0, b"\x11" * 4096)
    assert record_on(device).entries == record_on(devices[3]).entries != ()
    await stack.write(4 * 12 * KIB, b"\x11" * 4096)
    assert record_on(device).entries != record_on(devices[3]).entries, "the copy does not reach so far"


async def test_a_member_that_comes_back_gets_an_empty_log():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x11" * 4096)
    member = stack.members[3]
    member.lose("gone")
    await stack.log.member_changed()
    assert record_on(devices[3]).entries
    member.fill(0)
    await stack.log.member_changed()
    assert record_on(devices[3]).entries == ()


async def test_what_is_in_the_log_of_a_member_that_holds_nothing_yet_means_nothing():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(4 * KIB, b"\x22" * 4096)
    raw(devices[1])[PLACE : PLACE + 64 * KIB] = b"\xa5" * 64 * KIB
    again = Stack(devices, 256 * KIB)
    again.members[1].fill(0)
    again.engine.member_changed()
    assert await again.log.load() == []
    assert again.log.usable
    replayed = await again.log.replay()
    assert (replayed.entries, replayed.mismatches) == (1, 0)
    await again.log.start()
    assert record_on(devices[1]).entries == ()


async def test_a_cancelled_leader_leaves_the_group_to_another():
    stack, devices = ram()
    for device in devices:
        device.inline = False
    await stack.log.start()
    gate = trio.Event()
    devices[3].block("write", gate)
    scope = trio.CancelScope()

    async def doomed():
        with scope:
            await stack.write(12 * KIB, b"\x22" * 4096)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stack.write, 0, b"\x11" * 4096)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(doomed)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(stack.write, 24 * KIB, b"\x33" * 4096)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert scope.cancelled_caught
    assert await stack.read(0, 36 * KIB) == (b"\x11" * 4096).ljust(24 * KIB, b"\0") + (b"\x33" * 4096).ljust(
        12 * KIB, b"\0"
    )
    await stack.log.drain()
    assert stack.log.describe()["groups"] == 2


async def test_an_impossible_area_is_refused():
    stack, devices = ram(area=8 * KIB)
    with pytest.raises(IntegrityError, match="no place for its partial parity log"):
        await stack.log.start()
    assert await read_record(devices[0], stack.members[0].superblock, SIGNATURE) == (None, bytearray())


# --- what has no record ----------------------------------------------------------------------------------------------


async def test_stripes_that_are_zeroed_whole_are_announced_until_they_are_done():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x11" * 4096)
    await stack.engine.write_zeroes(0, 24 * KIB)
    assert all(record_on(device).entries == (UNLOGGED,) for device in devices)
    assert stack.log.describe()["resync_after_a_cut"]
    await stack.write(0, b"\x22" * 4096)
    assert record_on(devices[3]).entries[1:] == (UNLOGGED,)
    await stack.log.drain()
    assert all(record_on(device).entries == () for device in devices)
    assert not stack.log.describe()["resync_after_a_cut"]


async def test_a_drain_does_not_end_what_is_still_being_zeroed():
    stack, devices = ram()
    await stack.log.start()
    gate = trio.Event()
    devices[2].block("write_zeroes", gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stack.engine.write_zeroes, 0, 24 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        await stack.log.drain()
        assert all(record_on(device).entries == (UNLOGGED,) for device in devices)
        gate.set()
    await stack.log.drain()
    assert all(record_on(device).entries == () for device in devices)


async def test_records_say_that_parity_is_not_proven_as_long_as_it_is_not():
    stack, devices = ram()
    stack.engine.sync.position = 0
    await stack.log.start()
    assert all(record_on(device).entries == (UNPROVEN,) for device in devices)
    await stack.write(0, b"\x11" * 4096)
    assert record_on(devices[3]).entries[1:] == (UNPROVEN,)
    assert not stack.log.usable
    stack.engine.sync.believed = True
    await stack.write(0, b"\x11" * 4096)
    assert record_on(devices[3]).entries[1:] == (UNLOGGED,)
    stack.engine.sync.settle()
    await stack.log.drain()
    assert all(record_on(device).entries == () for device in devices)
    assert stack.log.usable


# --- replay ----------------------------------------------------------------------------------------------------------


async def test_parity_is_renewed_from_a_record_and_nothing_else_is():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x11" * 12 * KIB * 4)
    await stack.log.drain()
    await stack.write(4 * KIB, b"\x22" * 4096)
    raw(devices[3])[DATA : DATA + 4096] = b"\xee" * 4096  # as if the parity had not been written
    raw(devices[2])[DATA + 4096] ^= 1  # wrong for another reason, in the next stripe
    again = Stack(devices, 256 * KIB)
    replayed, notices = await again.start()
    assert notices == []
    assert replayed == (1, 0, 0, False, False, ())
    assert replayed.believed
    assert replayed.proven
    assert raw(devices[3])[DATA : DATA + 4096] == b"\x22" * 4096
    assert raw(devices[2])[DATA + 4096] == 0x11 ^ 1


async def test_an_entry_whose_data_are_not_there_is_passed_over():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(0, b"\x11" * 12 * KIB)
    await stack.log.drain()
    await stack.write(4 * KIB, b"\x22" * 4096)
    before = bytes(raw(devices[3])[DATA:])
    again = Stack(devices, 256 * KIB, missing=(1,))
    replayed, _notices = await again.start()
    assert replayed.proven
    assert bytes(raw(devices[3])[DATA:]) == before
    again = Stack(devices, 256 * KIB, missing=(0,))
    raw(devices[3])[DATA : DATA + 4096] = b"\xee" * 4096
    area = PplArea(again.members[3], SIGNATURE)
    await area.load()
    assert area.last.entries == (), "the start has ended it"
    assert again.log.usable is False, "nothing loaded yet"


@pytest.mark.parametrize("spoil", ["header", "parity", "parity slot", "unreadable area", "unreadable data"])
async def test_what_cannot_be_believed_is_counted_and_not_used(spoil):
    stack, devices = ram()
    await stack.log.start()
    await stack.write(4 * KIB, b"\x22" * 4096)
    at = PLACE + record_on(devices[3]).at
    good = bytes(raw(devices[3])[DATA : DATA + 4096])
    match spoil:
        case "header":
            raw(devices[3])[PLACE + 600] ^= 1
        case "parity":
            raw(devices[3])[at + HEADER_SIZE] ^= 1
        case "parity slot":
            record = record_on(devices[3])
            header = encode_header(SIGNATURE, record.generation, [record.entries[0]._replace(parity_disk=2)])
            raw(devices[3])[at : at + HEADER_SIZE] = header
        case "unreadable area":
            devices[3].fail("read", lambda: MediaError("bad"), within=(0, DATA), forever=True)
        case "unreadable data":
            devices[1].fail("read", lambda: MediaError("bad"), within=(DATA, DATA + 1), forever=True)
    again = Stack(devices, 256 * KIB)
    await again.log.load()
    replayed = await again.log.replay()
    assert (replayed.entries, replayed.torn, replayed.mismatches) == ((0, 1, 0) if spoil == "parity" else (0, 0, 1))
    assert not replayed.proven
    assert replayed.believed == (spoil == "parity"), "a torn record is one whose stripes were not being written yet"
    assert raw(devices[3])[DATA : DATA + 4096] == good


@pytest.mark.parametrize("mark", [UNLOGGED, UNPROVEN])
async def test_what_the_log_announced_is_not_proven_by_it(mark):
    stack, devices = ram()
    await stack.log.start()
    if mark == UNLOGGED:
        await stack.log.settle(5, 6)
    else:
        stack.engine.sync.position = 0
    await stack.write(4 * KIB, b"\x22" * 4096)
    again = Stack(devices, 256 * KIB)
    await again.log.load()
    assert again.log.usable == (mark == UNLOGGED)
    replayed = await again.log.replay()
    assert replayed.entries == 1
    assert (replayed.unlogged, replayed.unproven) == (mark == UNLOGGED, mark == UNPROVEN)
    assert not replayed.proven
    assert replayed.believed == (mark == UNLOGGED)


async def test_logs_of_the_kernel_are_taken_over_and_ended():
    """Two records with rising generations, no first record of our kind, whatever lies behind them."""
    stack, devices = ram()
    pattern = random.Random(1).randbytes(4096)
    for slot, device in enumerate(devices):
        records = encode_header(SIGNATURE, 40 + slot, []) + encode_header(SIGNATURE, 50, [])
        if slot == 3:
            entry = Entry(0, 4096, 4096, 3, crc32c(bytes(4096)))
            records = encode_header(SIGNATURE, 43, [entry]) + bytes(4096)
            raw(device)[DATA : DATA + 4096] = b"\xee" * 4096
        raw(device)[PLACE : PLACE + len(records)] = records
    raw(devices[0])[DATA : DATA + 4096] = pattern
    replayed, notices = await stack.start()
    assert notices == []
    assert replayed.proven
    assert raw(devices[3])[DATA : DATA + 4096] == pattern
    records = [record_on(device) for device in devices]
    assert all(record.entries == () for record in records)
    assert min(record.generation for record in records) > 50
    for _ in range(20):  # around the area, over what the kernel left at its start
        await stack.write(0, pattern)
    assert record_on(devices[3]).entries[0].data_sector == 0


async def test_a_member_that_does_not_take_its_parity_is_reported():
    stack, devices = ram()
    await stack.log.start()
    await stack.write(4 * KIB, b"\x22" * 4096)
    devices[3].fail("write", lambda: MediaError("broken"), within=(DATA, DATA + 1))
    again = Stack(devices, 256 * KIB)
    await again.log.load()
    replayed = await again.log.replay()
    assert [(member.label, error.message) for member, error in replayed.failures] == [("d3", "broken")]
    assert not replayed.proven
