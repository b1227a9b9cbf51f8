"""Bytewise: any offset and length, without ever undoing what somebody else writes."""

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from orionfs.errors import MediaError, OutOfRange
from orionfs.extents import Extent, Kind
from orionfs.layers.bytewise import Bytewise
from orionfs.testing.conformance import check_device
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB

SIZE = 16 * 512


def make(**options):
    faulty = FaultyDevice(RamDevice("ram", SIZE, **options))
    return Bytewise(faulty), faulty, faulty.child


@pytest.mark.parametrize("always_wait", [False, True])
@pytest.mark.parametrize("block", [512, 4096])
async def test_the_contract_holds_for_any_offset(always_wait, block):
    async def opened():
        return Bytewise(RamDevice("ram", MIB + block, block, always_wait=always_wait))

    await check_device(opened, any_offset=True)


@pytest.mark.parametrize("always_wait", [False, True])
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 512), (1, 1), (511, 2), (0, 100), (412, 100), (100, 1000), (512, 513), (0, SIZE)]
)
async def test_a_write_changes_its_bytes_and_no_others(always_wait, offset, length):
    device, _, ram = make(always_wait=always_wait)
    ram.data[:] = expected = bytearray(range(256)) * (SIZE // 256)
    data = bytes([7]) * length
    if not device.try_write(offset, [data[:1], data[1:]]):
        await device.write(offset, [data[:1], data[1:]])
    expected[offset : offset + length] = data
    assert ram.data == expected
    found = bytearray(length)
    if not device.try_read(offset, [found]):
        await device.read(offset, [found])
    assert found == data


async def test_whole_blocks_are_written_without_a_read():
    device, faulty, _ = make()
    await device.write(512, [bytes(1024)])
    assert device.try_write(512, [bytes(1024)])
    assert faulty.calls == {"write": 2}


async def test_only_the_blocks_at_the_edges_are_read():
    device, faulty, _ = make()
    sizes = []
    read = faulty.read

    async def watch(offset, buffers):
        sizes.append((offset, sum(map(len, buffers))))
        await read(offset, buffers)

    faulty.read = watch
    await device.write(500, [bytes(2000)])
    assert sizes == [(0, 512), (2048, 512)]
    assert faulty.calls == {"read": 2, "write": 1}


async def test_two_writers_of_one_block_both_succeed():
    device, _, ram = make(always_wait=True)
    async with trio.open_nursery() as nursery:
        for index in range(256):
            nursery.start_soon(device.write, 2 * index, [bytes([index, index])])
    assert ram.data[:512] == bytes(index for index in range(256) for _ in range(2))


async def test_a_whole_block_waits_for_the_modification_of_a_part():
    device, faulty, ram = make()
    gate = trio.Event()
    faulty.block("write", gate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.write, 100, [b"part"])
        await trio.testing.wait_all_tasks_blocked()
        assert not device.try_write(0, [b"\xff" * 512])
        assert not device.try_write(300, [b"other part"])
        assert device.try_write(512, [b"\xee" * 512]), "the next block is free"
        nursery.start_soon(device.write, 0, [b"\xff" * 512])
        await trio.testing.wait_all_tasks_blocked()
        assert ram.data[:512] == bytes(512)
        gate.set()
    assert ram.data[:1024] == b"\xff" * 512 + b"\xee" * 512, "the later write is the one that stays"


@pytest.mark.parametrize("operation", ["write", "write_zeroes", "discard"])
async def test_the_modification_of_a_part_waits_for_whole_blocks(operation):
    device, faulty, ram = make()
    ram.data[:1024] = b"\xff" * 1024
    gate = trio.Event()
    faulty.block(operation, gate)
    async with trio.open_nursery() as nursery:
        if operation == "write":
            nursery.start_soon(device.write, 0, [bytes(1024)])
        else:
            nursery.start_soon(getattr(device, operation), 0, 1024)
        await trio.testing.wait_all_tasks_blocked()
        assert not device.try_write(100, [b"part"])
        nursery.start_soon(device.write, 100, [b"part"])
        await trio.testing.wait_all_tasks_blocked()
        assert faulty.calls["read"] == 0, "what it read now would be old"
        gate.set()
    if operation != "discard":
        assert ram.data[:1024] == bytes(100) + b"part" + bytes(920)
    assert ram.data[100:104] == b"part"


async def test_a_cancelled_modification_leaves_the_block_to_others():
    device, faulty, ram = make()
    gate = trio.Event()
    faulty.block("read", gate)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(device.write, 100, [b"part"])
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert ram.data == bytes(SIZE)
    assert device.try_write(0, [b"\xff" * 512])
    await device.write(1, [b"a"])


@pytest.mark.parametrize("operation", ["read", "write"])
async def test_a_failed_modification_changes_nothing_and_is_told(operation):
    device, faulty, ram = make()
    faulty.fail(operation, MediaError("gone"), nth=1)
    with pytest.raises(MediaError):
        await device.write(100, [b"part"])
    assert ram.data == bytes(SIZE)
    assert device.try_write(100, [b"part"])


async def test_zeroing_reaches_every_byte_and_punches_the_whole_blocks():
    device, faulty, ram = make()
    ram.data[:] = b"\xff" * SIZE
    await device.write_zeroes(100, 2000)
    assert ram.data == b"\xff" * 100 + bytes(2000) + b"\xff" * (SIZE - 2100)
    assert faulty.calls["write_zeroes"] == 1
    await device.write_zeroes(2200, 3)
    assert ram.data[2199:2204] == b"\xff\0\0\0\xff"
    assert faulty.calls["write_zeroes"] == 1


async def test_a_discard_spares_the_blocks_that_it_covers_in_part():
    device, faulty, _ = make()
    seen = []

    async def discard(offset, length):
        seen.append((offset, length))

    faulty.discard = discard
    await device.discard(100, 2000)
    await device.discard(100, 800)
    assert seen == [(512, 1536)]


async def test_extents_are_cut_to_the_range():
    device, faulty, _ = make()

    async def extents(offset, length):
        for start in range(offset, offset + length, 512):
            yield Extent(start, 512, Kind.HOLE if start == 512 else Kind.DATA)

    faulty.extents = extents
    assert [extent async for extent in device.extents(500, 600)] == [
        Extent(500, 12, Kind.DATA),
        Extent(512, 512, Kind.HOLE),
        Extent(1024, 76, Kind.DATA),
    ]


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 1), (-1, 2), (SIZE - 1, 2), (SIZE + 5, 0)])
async def test_what_is_outside_is_refused(offset, length):
    device, _, ram = make()
    for request in (
        device.write(offset, [bytes(length)]),
        device.read(offset, [bytearray(length)]),
        device.write_zeroes(offset, length),
        device.discard(offset, length),
    ):
        with pytest.raises(OutOfRange):
            await request
    assert ram.data == bytes(SIZE)


writes = st.lists(
    st.tuples(
        st.integers(0, 3000), st.integers(1, 1500), st.integers(1, 255), st.sampled_from(["write", "zero", "try"])
    ),
    max_size=12,
)


@given(writes, st.booleans())
def test_disjoint_writes_in_flight_together_are_all_there(plan, always_wait):
    """Whatever runs at once, each byte is from the one write that covered it."""
    expected = bytearray(SIZE)
    taken = bytearray(SIZE)
    disjoint = []
    for offset, length, value, how in plan:
        if any(taken[offset : offset + length]):
            continue
        taken[offset : offset + length] = b"x" * length
        expected[offset : offset + length] = bytes([0 if how == "zero" else value]) * length
        disjoint.append((offset, length, value, how))

    async def main():
        device, _, ram = make(always_wait=always_wait)

        async def run(offset, length, value, how):
            if how == "zero":
                await device.write_zeroes(offset, length)
            elif how == "write" or not device.try_write(offset, [bytes([value]) * length]):
                await device.write(offset, [bytes([value]) * length])

        async with trio.open_nursery() as nursery:
            for item in disjoint:
                nursery.start_soon(run, *item)
        assert ram.data == expected

    trio.run(main)
