"""Creation: what is written, what is refused, and what a power cut leaves."""

import itertools

import pytest
import trio

from orionfs.array.creation import MdSpec, create_array
from orionfs.array.signatures import SIGNATURES, find_signature
from orionfs.array.superblock import OFFSET, ROLE_SPARE, SIZE, Superblock, SuperblockError
from orionfs.array.superblock_io import read_superblock
from orionfs.array.verdict import Candidate, judge
from orionfs.environment import Environment
from orionfs.errors import ConfigError, MediaError, OrionError, Refused
from orionfs.testing.crash import choices
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import run

MIB = 1 << 20
RAID5 = MdSpec(5, "host:vault", chunksize=128)
SPECS = {
    "linear": MdSpec(-1, "l"),
    "raid0": MdSpec(0, "s", chunksize=128),
    "raid1": MdSpec(1, "m"),
    "raid5": RAID5,
}


def devices(count=3, size=4 * MIB, fill=b"", **options):
    made = [RamDevice(f"d{index}", size, **options) for index in range(count)]
    for device in made:
        device.data[:] = (fill * size)[:size] or bytes(size)
    return made


def verdict_of(members):
    candidates = []
    for index, content in enumerate(members):
        try:
            found = Superblock.parse(content)
            candidates.append(Candidate(f"d{index}", superblock=found))
        except SuperblockError as error:
            candidates.append(Candidate.without(f"d{index}", 0, error))
    return judge("vault", candidates)


@pytest.mark.parametrize("level", SPECS)
@pytest.mark.parametrize("freshly_made", [False, True])
async def test_new_members_agree_and_hold_zeros(level, freshly_made):
    members = devices(fill=b"" if freshly_made else b"\xa5")
    written = await create_array(members, spec=SPECS[level], environment=Environment(), freshly_made=freshly_made)
    read = [await read_superblock(device) for device in members]
    assert read == written
    for slot, (device, superblock) in enumerate(zip(members, read, strict=True)):
        assert superblock.role == superblock.dev_number == slot
        assert superblock.is_clean
        assert superblock.events == 1
        assert superblock.data_offset == 2048
        assert superblock.data_size == 6144
        assert superblock.size == (6144 if level in ("raid1", "raid5") else 0)
        assert superblock.feature_map == (0x1000 if level == "raid0" else 0)
        log = OFFSET + superblock.bblog_offset * 512
        expected = bytearray(4 * MIB)
        expected[OFFSET : OFFSET + SIZE] = superblock.encode()
        expected[log : log + 4096] = b"\xff" * 4096
        assert device.data == expected
        assert device.flushes >= 1
    assert len({superblock.set_uuid for superblock in read}) == 1
    assert len({superblock.device_uuid for superblock in read}) == len(read)
    assert len({(superblock.ctime, superblock.utime) for superblock in read}) == 1
    assert judge("vault", [Candidate(str(index), superblock=item) for index, item in enumerate(read)]).empty == ()


async def test_the_first_member_places_the_data_of_all():
    members = [*devices(1, 64 * MIB), *devices(1, 40 * MIB + 1536), *devices(1, 41 * MIB)]
    superblocks = await create_array(members, spec=RAID5, environment=Environment(), freshly_made=True)
    assert [superblock.data_offset for superblock in superblocks] == [2048] * 3
    assert [superblock.data_size for superblock in superblocks] == [129024, 79875, 81920]
    assert [superblock.size for superblock in superblocks] == [79872] * 3


async def test_members_with_large_blocks_are_used_in_whole_blocks():
    members = devices(2, 4 * MIB + 4096, logical_block=4096)
    superblocks = await create_array(members, spec=SPECS["raid1"], environment=Environment(), freshly_made=True)
    assert superblocks[0].size == 6144 + 8
    assert await read_superblock(members[1]) == superblocks[1]


@pytest.mark.parametrize(
    ("spec", "count", "size", "says"),
    [
        (MdSpec(6, "v", chunksize=128), 3, 4 * MIB, "raid6 takes 4 to 255"),
        (MdSpec(5, "v", chunksize=128), 1, 4 * MIB, "raid5 takes 2 to"),
        (MdSpec(1, "v"), 1, 4 * MIB, "raid1 takes 2 to"),
        (MdSpec(5, "v", chunksize=100), 3, 4 * MIB, "50 KiB is not a power of two"),
        (MdSpec(5, "v", chunksize=4), 3, 4 * MIB, "2 KiB is not a power of two of at least 4 KiB"),
        (MdSpec(0, "v"), 3, 4 * MIB, "0 B is not a power of two"),
        (MdSpec(1, "v", chunksize=128), 2, 4 * MIB, "raid1 has no chunk"),
        (MdSpec(5, "v", 9, 128), 3, 4 * MIB, "raid5 has no layout 9"),
        (MdSpec(0, "v", 0, 128), 3, 4 * MIB, "raid0 has no layout 0"),
        (MdSpec(10, "v", 0x103, 128), 2, 4 * MIB, "2 members cannot hold the 3 copies of layout n3"),
        (MdSpec(10, "v", 0x202, 128), 4, 4 * MIB, "raid10 has no layout 514"),
        (MdSpec(1, "x" * 33), 2, 4 * MIB, "32 bytes"),
        (
            MdSpec(5, "v", chunksize=128),
            3,
            MIB,
            "d0 has 1 MiB, and with the data at 1 MiB a member needs at least 1.1 MiB",
        ),
        (MdSpec(5, "v", chunksize=1 << 21), 3, 4 * MIB, "needs at least"),
    ],
)
async def test_what_cannot_be_an_array_is_refused_and_nothing_is_written(spec, count, size, says):
    members = devices(count, size, fill=b"\xa5")
    with pytest.raises(ConfigError, match=says) as caught:
        await create_array(members, spec=spec, environment=Environment(), freshly_made=False, replace=True)
    assert caught.value.hint
    assert all(device.data == b"\xa5" * size for device in members)


async def test_blocks_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="blocks of 8 KiB"):
        await create_array(
            devices(logical_block=8192), spec=RAID5, environment=Environment(), freshly_made=True, replace=True
        )


@pytest.mark.parametrize("signature", SIGNATURES, ids=lambda signature: f"{signature.noun} at {signature.offset}")
async def test_what_is_recognized_is_not_overwritten_unless_asked(signature):
    members = devices()
    members[1].data[signature.offset : signature.offset + len(signature.magic)] = signature.magic
    before = bytes(members[1].data)
    with pytest.raises(Refused, match=rf"d1 already holds {signature.noun}.*wipefs"):
        await create_array(members, spec=RAID5, environment=Environment(), freshly_made=False)
    assert bytes(members[1].data) == before
    assert all(not any(members[index].data) for index in (0, 2))
    await create_array(members, spec=RAID5, environment=Environment(), freshly_made=False, replace=True)
    assert await find_signature(members[1]) == "an MD superblock"


@pytest.mark.parametrize(
    ("version", "place", "major"),
    [("1.1", 0, 1), ("1.0", 4 * MIB - 8192, 1), ("0.90", 4 * MIB - 65536, 0)],
)
async def test_other_md_versions_are_recognized(version, place, major):
    (device,) = devices(1)
    device.data[place : place + 8] = b"\xfc\x4e\x2b\xa9" + major.to_bytes(4, "little")
    assert await find_signature(device) == f"an MD superblock of version {version}"
    with pytest.raises(SuperblockError, match=f"MD metadata of version {version}, and OrionFS uses version 1.2 only"):
        await read_superblock(device)


@pytest.mark.parametrize("size", [512, 4096, 8191 // 512 * 512])
async def test_a_member_too_short_for_a_superblock_says_so(size):
    with pytest.raises(SuperblockError, match=f"is {size} bytes long, too short"):
        await read_superblock(RamDevice("d", size))


@pytest.mark.parametrize("operation", ["write_zeroes", "write", "flush"])
async def test_an_error_of_one_member_is_raised_as_it_is_and_leaves_no_array(operation):
    inner = devices(fill=b"\xa5")
    members = [inner[0], FaultyDevice(inner[1]), inner[2]]
    members[1].fail(operation, failure=lambda: MediaError("the medium failed"))
    with pytest.raises(MediaError, match="the medium failed"):
        await create_array(members, spec=RAID5, environment=Environment(), freshly_made=False)
    with pytest.raises(OrionError):
        verdict_of([device.data[OFFSET : OFFSET + SIZE] for device in inner])


@pytest.mark.parametrize("level", SPECS)
@pytest.mark.parametrize("replace", [False, True])
def test_a_power_cut_leaves_the_whole_array_or_none_that_starts(level, replace):
    """Cut at every operation; each un-flushed write kept, lost or torn, on each member on its own."""
    spec = SPECS[level]
    old = RAID5 if level != "raid5" else SPECS["raid1"]
    outcomes = {"whole": 0, "none": 0}
    new_uuid = b""

    async def create(simulation):
        nonlocal new_uuid
        disks[:] = [SimDisk(f"d{index}", 2 * MIB, machine=simulation.machine) for index in range(3)]
        if replace:
            await create_array(disks, spec=old, environment=simulation.environment, freshly_made=True)
        began.append(simulation.machine.operations)
        superblocks = await create_array(
            disks, spec=spec, environment=simulation.environment, freshly_made=not replace, replace=replace
        )
        new_uuid = superblocks[0].set_uuid
        return simulation.machine.operations

    disks, began = [], []
    total = run(1, create).value
    for cut_at in range(began[0] + 1, total + 1):
        result = run(1, create, cut_at=cut_at)
        assert result.power_cut
        for left in after_cut(disks):
            try:
                verdict = verdict_of(left)
            except OrionError:
                outcomes["none"] += 1
                continue
            if verdict.freshest.set_uuid != new_uuid:
                continue  # the old array: it was not forgotten yet, and its data were not touched
            assert verdict.empty == ()
            assert not verdict.dirty
            outcomes["whole"] += 1
    assert outcomes["whole"]
    assert outcomes["none"]


def after_cut(disks):
    """The superblock areas that a cut now may leave, over every combination of a few choices per disk."""
    per_disk = []
    for disk in disks:
        kinds = choices(disk.unflushed, subsets=1)
        per_disk.append({disk.crash(choice).content(OFFSET, SIZE) for choice in kinds})
    return itertools.product(*per_disk)


def test_a_prepared_member_lists_nobody():
    """The first of the two superblocks that a member gets."""
    seen = []

    class Watched(RamDevice):
        async def write(self, offset, buffers):
            if offset == OFFSET:
                seen.append(Superblock.parse(bytes(buffers[0]).ljust(SIZE, b"\0")))
            await super().write(offset, buffers)

    async def main():
        members = [Watched(f"d{index}", 4 * MIB) for index in range(2)]
        await create_array(members, spec=SPECS["raid1"], environment=Environment(), freshly_made=True)

    trio.run(main)
    assert [superblock.events for superblock in seen] == [0, 0, 1, 1]
    assert all(set(superblock.dev_roles) == {ROLE_SPARE} for superblock in seen[:2])
