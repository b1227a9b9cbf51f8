"""Random requests on every level agree with a plain byte string, whole and with any member that may be missing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.units import KIB, MIB
from tests.arrays.kit import REDUNDANT, SHAPES, make, read, reopened, running, start, survivable

BLOCK = 512
#: Members of 64 stripes, for what is tried many times over.
SMALL = MIB + 256 * KIB


def requests(size: int, seed: int, count: int):
    """Requests that favor what is hard: chunk and stripe edges, single blocks, spans of many stripes."""
    source = random.Random(seed)
    for _ in range(count):
        kind = source.choice(["write"] * 6 + ["zero", "discard", "flush"])
        length = source.choice([BLOCK, BLOCK * source.randint(1, 16), 4096, 4096 * source.randint(1, 40)])
        length = min(length, size)
        offset = source.randrange(0, size - length + 1, BLOCK)
        if source.random() < 0.4:
            offset -= offset % 4096
        yield kind, offset, length, source


async def apply(array, oracle: bytearray, seed: int, count: int) -> None:
    size = len(oracle)
    for kind, offset, length, source in requests(size, seed, count):
        if kind == "write":
            data = source.randbytes(length)
            cut = source.randrange(0, length + 1, BLOCK)
            await array.write(offset, [data[:cut], data[cut:]] if 0 < cut < length else [data])
            oracle[offset : offset + length] = data
        elif kind == "zero":
            await array.write_zeroes(offset, length)
            oracle[offset : offset + length] = bytes(length)
        elif kind == "discard":
            before = oracle[offset : offset + length]
            await array.discard(offset, length)
            after = await read(array, offset, length)
            for at in range(0, length, BLOCK):
                block = after[at : at + BLOCK]
                assert block in (before[at : at + BLOCK], bytes(BLOCK))
            oracle[offset : offset + length] = after
        else:
            await array.flush()


async def check(array, oracle: bytearray) -> None:
    whole = await read(array, 0, len(oracle))
    if whole != oracle:
        wrong = next(at for at in range(0, len(oracle), BLOCK) if whole[at : at + BLOCK] != oracle[at : at + BLOCK])
        pytest.fail(f"first wrong block at {wrong} of {len(oracle)}")


@pytest.mark.parametrize("wait", [False, True], ids=["inline", "waiting"])
@pytest.mark.parametrize(("level", "layout", "members"), SHAPES)
async def test_random_requests_agree_with_a_byte_string(level, layout, members, wait):
    array, _faulty, ram = await make(level, members, layout=layout, always_wait=wait)
    oracle = bytearray(array.geometry.size)
    async with running(array):
        await apply(array, oracle, seed=members, count=120)
        await check(array, oracle)
    again = await start(reopened(ram))
    assert again.state == "clean"
    await check(again, oracle)
    await again.aclose()


@pytest.mark.parametrize(("level", "layout", "members"), REDUNDANT)
async def test_any_survivable_set_of_members_may_be_missing(level, layout, members):
    array, _faulty, ram = await make(level, members, layout=layout, size=SMALL)
    oracle = bytearray(array.geometry.size)
    async with running(array):
        await apply(array, oracle, seed=7, count=60)
    for number, gone in enumerate(survivable(level, layout, members)):
        degraded = await start(reopened(ram, without=gone))
        assert degraded.state == "degraded"
        expected = bytearray(oracle)
        async with running(degraded):
            await check(degraded, expected)
            await apply(degraded, expected, seed=number, count=20)
            await check(degraded, expected)


@pytest.mark.parametrize(("level", "layout", "members"), REDUNDANT)
async def test_members_may_fail_between_any_two_writes(level, layout, members):
    for number, gone in enumerate(survivable(level, layout, members)):
        if len(gone) > 1 and number % 4:
            continue  # a part of the pairs is enough here: the engines try them all
        array, faulty, ram = await make(level, members, layout=layout, size=SMALL)
        oracle = bytearray(array.geometry.size)
        async with running(array):
            await apply(array, oracle, seed=1, count=20)
            for slot in gone:
                faulty[slot].fail("write", OSErrorAsMedia(), forever=True)
                await apply(array, oracle, seed=2, count=40 // len(gone))
            assert array.state == "degraded"
            await check(array, oracle)
        survivors = await start(reopened(ram))  # the failed members are back, with their old data
        assert [slot for slot, state in enumerate(survivors.describe().details["slots"]) if state == "_"] == list(gone)
        await check(survivors, oracle)
        await survivors.aclose()


def OSErrorAsMedia():
    from orionfs.errors import MediaError

    return MediaError("the disk does not write any more")


@given(
    sizes=st.lists(st.integers(600, 900), min_size=2, max_size=5),
    layout=st.sampled_from(["original", "alternate"]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_raid0_over_unequal_members(sizes, layout, seed):
    import trio

    async def scenario() -> None:
        array, _faulty, _ram = await make("raid0", len(sizes), layout=layout, sizes=[size * 4096 for size in sizes])
        oracle = bytearray(array.geometry.size)
        async with running(array):
            await apply(array, oracle, seed, 25)
            await check(array, oracle)

    trio.run(scenario)


async def test_whole_stripes_are_written_without_reads():
    array, _faulty, _ram = await make("raid5", 4, chunk=16384)
    async with running(array):
        width = array.geometry.stripe_width
        await array.write(0, [random.randbytes(width * 5)])
        assert array.describe().details["full_stripe_writes"] == 5
        assert array.describe().details["stripe_reads"] == 0
        await array.write(512, [random.randbytes(512)])
        assert array.describe().details["stripe_reads"] == 2, "read-modify-write: old data and old parity"
        await array.write(0, [random.randbytes(16384 * 2)])
        assert array.describe().details["stripe_reads"] == 3, "reconstruct-write: the one chunk that stays"


async def test_extents_of_a_new_array_are_holes_and_of_a_written_one_are_not():
    array, _faulty, _ram = await make("raid5", 3)
    extents = [extent async for extent in array.extents(0, array.geometry.size)]
    assert sum(extent.length for extent in extents) == array.geometry.size
    await array.aclose()
