"""Every level is a device like any other: the conformance suite runs on it, whole, degraded and nested."""

from __future__ import annotations

import pytest

from orionfs.array.levels import LEVELS
from orionfs.testing.conformance import check_device
from tests.arrays.kit import SHAPES, format_members, ram_members, reopened, start

#: The layouts of RAID 6 differ in nothing that shows here.
ENOUGH = [shape for shape in SHAPES if shape[0] != "raid6" or shape[1] in ("left-symmetric", "ddf-zero-restart")]


async def formatted(level, members, layout="", **options):
    ram = ram_members([2 << 20] * members, **options)
    await format_members(ram, level, layout)
    return ram


@pytest.mark.parametrize("always_wait", [False, True], ids=["inline", "waiting"])
@pytest.mark.parametrize(("level", "layout", "members"), ENOUGH)
async def test_a_whole_array_conforms(level, layout, members, always_wait):
    ram = await formatted(level, members, layout, always_wait=always_wait)

    async def make():
        ram[:] = reopened(ram)
        return await start(ram)

    await check_device(make, reopen=make, requests=40)


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("level", ["raid1", "raid4", "raid5", "raid6"])
async def test_a_degraded_array_conforms(level, gone):
    media = await formatted(level, max(3, LEVELS[level].minimum_members))

    async def make():
        media[:] = reopened(media)
        return await start([None if slot == gone else device for slot, device in enumerate(media)])

    await check_device(make, reopen=make, requests=40)


async def test_an_array_of_arrays_conforms():
    media = [await formatted("raid1", 2) for _ in range(3)]
    for pair in media:
        pair[:] = [type(device)(device.name, 3 << 20) for device in pair]
        await format_members(pair, "raid1")
    inner = [await start(reopened(pair)) for pair in media]
    await format_members(inner, "raid5")
    for pair, mirror in zip(media, inner, strict=True):
        pair[:] = [member.present for member in mirror._members]

    async def make():
        for pair in media:
            pair[:] = reopened(pair)
        return await start([await start(pair) for pair in media])

    for mirror in inner:
        await mirror.aclose()
    await check_device(make, reopen=make, requests=40)
