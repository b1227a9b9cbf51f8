"""Creation: bitmaps, partial parity logs, room for a journal, spares and flags."""

import pytest

from orionfs.array.bitmap import Bitmap
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.placement import bitmap_place, free_gap, ppl_place
from orionfs.array.ppl_format import Record, last_record, signature_of
from orionfs.array.superblock import FEATURE_BITMAP, FEATURE_PPL, OFFSET, ROLE_SPARE
from orionfs.array.superblock_io import read_superblock
from orionfs.array.verdict import Candidate, judge
from orionfs.array.write_intent import find_bitmap
from orionfs.environment import Environment
from orionfs.errors import ConfigError
from orionfs.testing.ram import RamDevice

KIB, MIB = 1 << 10, 1 << 20
REDUNDANT = [name for name in ("raid1", "raid4", "raid5", "raid6", "raid10") if name in LEVELS]


def spec_of(level, **options):
    rules = LEVELS[level]
    return MdSpec(rules.md_level, "host:vault", chunksize=128 if rules.chunked else 0, **options)


async def create(spec, count=4, size=8 * MIB, fill=b"\xa5", **options):
    devices = [RamDevice(f"d{number}", size, **options) for number in range(count)]
    for device in devices:
        device.data[:] = fill * size
    superblocks = await create_array(devices, spec=spec, environment=Environment(), freshly_made=False, replace=True)
    assert [await read_superblock(device) for device in devices] == superblocks
    return devices, superblocks


def expected_content(device, superblock, *areas):
    """Zeros, but for the superblock, the empty bad-block log and *areas*."""
    content = bytearray(device.geometry.size)
    log = OFFSET + superblock.bblog_offset * 512
    for place, data in [(OFFSET, superblock.encode()[:512]), (log, b"\xff" * 4096), *areas]:
        assert not any(content[place : place + len(data)]), "areas overlap"
        content[place : place + len(data)] = data
    return content


@pytest.mark.parametrize("level", REDUNDANT)
async def test_a_new_bitmap_says_that_all_is_in_sync(level):
    devices, superblocks = await create(spec_of(level, bitmap=True))
    first = superblocks[0]
    assert first.feature_map == FEATURE_BITMAP
    assert (first.bitmap_offset, first.bblog_offset) == (8, 16)
    size = first.size
    if level == "raid10":
        size = first.size * 2
    for device, superblock in zip(devices, superblocks, strict=True):
        place, space = bitmap_place(superblock)
        assert (place, space) == (8192, 4096)
        image = bytes(device.data[place : place + space])
        bitmap = Bitmap.parse(image)
        assert bitmap == Bitmap(superblock.set_uuid, 1, 1, size, 64 * KIB)
        assert not list(bitmap.dirty_chunks())
        assert image[bitmap.length() :] == b"\xff" * (4096 - bitmap.length())
        assert device.data == expected_content(device, superblock, (place, image))
    found = await find_bitmap(
        [(device.name, superblock, device) for device, superblock in zip(devices, superblocks, strict=True)],
        freshest=first,
        sync_size=size,
    )
    assert not found.stale
    assert found.notices == ()


async def test_the_smallest_array_has_a_bitmap_too():
    devices, superblocks = await create(MdSpec(1, "v", bitmap=True), count=2, size=MIB + 4 * KIB)
    assert superblocks[0].size == 8
    assert free_gap(superblocks[0]) == (32, 2016)
    assert Bitmap.parse(bytes(devices[0].data[8192:12288])).chunks == 1


async def test_the_chunk_of_the_bitmap_may_be_chosen():
    devices, _superblocks = await create(spec_of("raid5", bitmap=True, bitmap_chunk=4 * KIB))
    assert Bitmap.parse(bytes(devices[0].data[8192:12288])).chunksize == 4 * KIB


async def test_a_new_partial_parity_log_is_empty_on_every_member():
    devices, superblocks = await create(spec_of("raid5", consistency="ppl"))
    for device, superblock in zip(devices, superblocks, strict=True):
        assert superblock.feature_map == FEATURE_PPL
        assert (superblock.ppl_offset, superblock.ppl_size) == (8, 2048)
        assert (superblock.bblog_offset, superblock.data_offset) == (2056, 4096)
        place, size = ppl_place(superblock)
        assert (place, size) == (8192, MIB)
        area = bytes(device.data[place : place + size])
        assert last_record(area, signature_of(superblock.set_uuid)) == Record(0, 4096, 0, ())
        assert not any(area[4096:])
        assert device.data == expected_content(device, superblock, (place, area))


@pytest.mark.parametrize("level", ["raid4", "raid5", "raid6"])
@pytest.mark.parametrize("bitmap", [False, True])
async def test_there_is_room_for_a_journal(level, bitmap):
    _devices, superblocks = await create(spec_of(level, bitmap=bitmap, consistency="journal"), size=2 * MIB)
    assert free_gap(superblocks[0]) == (32, 2016)
    assert superblocks[0].feature_map == (FEATURE_BITMAP if bitmap else 0)


async def test_spares_take_no_slot():
    devices, superblocks = await create(spec_of("raid5", spares=2, bitmap=True), count=5)
    assert {superblock.raid_disks for superblock in superblocks} == {3}
    assert [superblock.role for superblock in superblocks] == [0, 1, 2, ROLE_SPARE, ROLE_SPARE]
    assert [superblock.dev_number for superblock in superblocks] == [0, 1, 2, 3, 4]
    assert superblocks[0].dev_roles[:6] == [0, 1, 2, ROLE_SPARE, ROLE_SPARE, ROLE_SPARE]
    verdict = judge(
        "vault", [Candidate(device.name, 0, item) for device, item in zip(devices, superblocks, strict=True)]
    )
    assert verdict.empty == ()
    assert [item.state for item in verdict.set_aside] == ["spare", "spare"]
    assert Bitmap.parse(bytes(devices[4].data[8192:12288])).uuid == superblocks[0].set_uuid


async def test_the_smallest_device_decides_even_if_it_is_a_spare():
    devices = [RamDevice("d0", 8 * MIB), RamDevice("d1", 8 * MIB), RamDevice("s", 4 * MIB)]
    spec = spec_of("raid1", spares=1)
    superblocks = await create_array(devices, spec=spec, environment=Environment(), freshly_made=True)
    assert {superblock.size for superblock in superblocks} == {6144}


async def test_many_spares_still_have_their_entries():
    _devices, superblocks = await create(spec_of("raid1", spares=127), count=129, size=2 * MIB)
    assert superblocks[0].max_dev == 384


async def test_write_mostly_is_a_flag_of_the_member():
    _devices, superblocks = await create(spec_of("raid1", write_mostly={1, 3}))
    assert [superblock.devflags for superblock in superblocks] == [0, 1, 0, 1]


async def test_everything_fits_blocks_of_4_kib():
    devices, superblocks = await create(spec_of("raid5", bitmap=True), logical_block=4096)
    assert Bitmap.parse(bytes(devices[0].data[8192:12288])).chunks
    devices, superblocks = await create(spec_of("raid5", consistency="ppl"), logical_block=4096)
    assert ppl_place(superblocks[0])[0] == 8192


@pytest.mark.skipif("raid10" not in LEVELS, reason="needs level raid10")
@pytest.mark.parametrize(
    ("layout", "count", "size", "array"),
    [(0x102, 3, 22528, 33792), (0x301, 4, 22464, 29952), (0x10301, 4, 22464, 29952), (0x201, 4, 22528, 45056)],
)
async def test_raid10_uses_as_many_chunks_as_divide_by_the_far_copies(layout, count, size, array):
    spec = MdSpec(10, "t", layout, 64, bitmap=True)
    devices, superblocks = await create(spec, count, size=12 * MIB)
    assert superblocks[0].size == size
    assert Bitmap.parse(bytes(devices[0].data[8192:12288])).sync_size == array


@pytest.mark.parametrize(
    ("spec", "count", "says"),
    [
        (spec_of("raid0", bitmap=True), 3, "raid0 has no redundancy, so a write-intent bitmap would be of no use"),
        (spec_of("linear", spares=1), 3, "linear has no redundancy, so a spare would be of no use"),
        (spec_of("raid6", consistency="ppl"), 4, "only raid5 can have a partial parity log, not raid6"),
        (spec_of("raid1", consistency="ppl"), 2, "only raid5 can have a partial parity log, not raid1"),
        (spec_of("raid5", consistency="ppl", bitmap=True), 3, "there can be no write-intent bitmap"),
        (spec_of("raid5", bitmap=True, bitmap_chunk=2 * KIB), 3, "bitmap chunk of 2 KiB is not a power of two"),
        (spec_of("raid5", bitmap=True, bitmap_chunk=12 * KIB), 3, "bitmap chunk of 12 KiB is not a power of two"),
        (spec_of("raid5", bitmap=True, bitmap_chunk=1 << 32), 3, "bitmap chunk of 4 GiB is not a power of two"),
        (spec_of("raid5", write_mostly={1}), 3, "only members of raid1 can be write-mostly"),
        (spec_of("raid1", write_mostly={3}), 3, "a member that is not there cannot be write-mostly"),
        (spec_of("raid5", spares=2), 3, "raid5 takes 2 to 1920 members, not 1 and 2 spares"),
        (spec_of("raid6", spares=1), 4, "raid6 takes 4 to 255 members, not 3 and 1 spares"),
    ],
)
async def test_what_cannot_be_is_refused_and_nothing_is_written(spec, count, says):
    devices = [RamDevice(f"d{number}", 8 * MIB) for number in range(count)]
    with pytest.raises(ConfigError, match=says) as caught:
        await create_array(devices, spec=spec, environment=Environment(), freshly_made=False)
    assert caught.value.hint
    assert not any(device.counters.writes for device in devices)


async def test_a_bitmap_that_is_too_fine_for_its_place_is_refused():
    devices = [RamDevice(f"d{number}", 130 * MIB) for number in range(2)]
    spec = MdSpec(1, "v", bitmap=True, bitmap_chunk=4 * KIB)
    with pytest.raises(ConfigError, match=r"chunks of 4 KiB takes 4\.3 KiB, and there is room for 4 KiB") as caught:
        await create_array(devices, spec=spec, environment=Environment(), freshly_made=True)
    assert "leave the chunk out" in caught.value.hint


async def test_too_little_room_for_a_journal_is_refused(monkeypatch):
    monkeypatch.setattr("orionfs.array.placement.free_gap", lambda superblock, length: (32, 511))
    with pytest.raises(ConfigError, match=r"only 255\.5 KiB left .* too little for a journal") as caught:
        await create(spec_of("raid5", consistency="journal"))
    assert "ppl" in caught.value.hint
