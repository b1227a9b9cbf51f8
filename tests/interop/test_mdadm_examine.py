"""mdadm on the host reads every member that OrionFS makes."""

import re
import subprocess
from datetime import datetime

import pytest

from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.superblock import format_uuid, unpack_time
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.environment import Environment

pytestmark = pytest.mark.interop

MIB = 1 << 20
MEMBERS = {"linear": 2, "raid0": 3, "raid1": 2, "raid4": 3, "raid5": 4, "raid6": 5, "raid10": 4}
SHAPES = [(level, layout, members) for level, members in MEMBERS.items() for layout in LEVELS[level].layouts]
#: What mdadm calls the copies of RAID 10.
COPIES = {"n": "near", "f": "far", "o": "offset"}


def examine(path, what="--examine"):
    """The lines of ``mdadm --examine`` as a dictionary; it fails if mdadm complains in any way."""
    done = subprocess.run(["mdadm", what, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pairs = (line.split(" : ", 1) for line in done.stdout.splitlines() if " : " in line)
    return {key.strip(): value.strip() for key, value in pairs}


def bitmap_of(path, folder):
    """The bitmap of a member as a file of its own: mdadm looks for one inside of block devices only."""
    with path.open("rb") as member:
        member.seek(8192)
        content = member.read(4096)
    (folder / "bitmap").write_bytes(content)
    return folder / "bitmap"


@pytest.mark.parametrize(("level", "layout", "members"), SHAPES)
async def test_mdadm_examine_of_every_member_is_right(requires, tmp_path, level, layout, members):
    requires("mdadm")
    environment = Environment()
    rules = LEVELS[level]
    devices = []
    for slot in range(members):
        path = tmp_path / f"d{slot}.img"
        await create_file(path, (64 - 8 * slot) * MIB, environment)
        devices.append(await FileDevice.open(path, environment=environment))
    spec = MdSpec(rules.md_level, "host:vault", rules.layouts[layout], 128 if rules.chunked else 0)
    superblocks = await create_array(devices, spec=spec, environment=environment, freshly_made=True)
    for device in devices:
        await device.aclose()

    for slot, superblock in enumerate(superblocks):
        seen = examine(tmp_path / f"d{slot}.img")
        assert seen["Magic"] == "a92b4efc"
        assert seen["Version"] == "1.2"
        assert seen["Feature Map"] == ("0x1000" if level == "raid0" else "0x0")
        assert seen["Array UUID"] == format_uuid(superblock.set_uuid)
        assert seen["Device UUID"] == format_uuid(superblock.device_uuid)
        assert seen["Name"].split()[0] == "host:vault"
        assert seen["Raid Level"] == level
        assert seen["Raid Devices"] == str(members)
        assert seen["Avail Dev Size"].startswith(f"{(64 - 8 * slot) * 2048 - 2048} sectors")
        assert seen["Data Offset"] == "2048 sectors"
        assert seen["Super Offset"] == "8 sectors"
        assert seen["State"] == "clean"
        assert seen["Events"] == "1"
        assert re.fullmatch(r"[0-9a-f]+ - correct", seen["Checksum"])
        assert seen["Device Role"] == f"Active device {slot}"
        assert seen["Array State"].split()[0] == "A" * members
        assert seen["Bad Block Log"].startswith("512 entries available at offset ")
        created = datetime.strptime(seen["Creation Time"], "%a %b %d %H:%M:%S %Y").astimezone()
        assert int(created.timestamp()) == unpack_time(superblock.ctime) // 10**9
        words = f"{COPIES[layout[0]]}={layout[1:]}" if level == "raid10" else layout
        assert seen.get("Layout", "") == words
        assert seen.get("Chunk Size") == ("64K" if rules.chunked else None)
        if rules.tolerates(members):
            component = (64 - 8 * (members - 1)) * MIB - MIB
            size = component * (members - rules.tolerates(members))
            if level == "raid10":
                near, far = (int(layout[1:]), 1) if layout[0] == "n" else (1, int(layout[1:]))
                size = component // (64 << 10) // far * members // near * (64 << 10)
            assert seen["Array Size"].startswith(f"{size // 1024} KiB")


async def made(tmp_path, spec, members=4, size=64 * MIB):
    """Files that *spec* makes members of an array, and their superblocks."""
    environment = Environment()
    paths = [tmp_path / f"d{number}.img" for number in range(members)]
    devices = []
    for path in paths:
        await create_file(path, size, environment)
        devices.append(await FileDevice.open(path, environment=environment))
    superblocks = await create_array(devices, spec=spec, environment=environment, freshly_made=True)
    for device in devices:
        await device.aclose()
    return paths, superblocks


@pytest.mark.parametrize(
    ("level", "size", "bits"),
    [("raid1", 64 * MIB, 252), ("raid5", 64 * MIB, 252), ("raid6", 20 << 30, 320), ("raid4", 3 << 30, 192)],
)
async def test_mdadm_sees_a_bitmap_without_dirt(requires, tmp_path, level, size, bits):
    requires("mdadm")
    rules = LEVELS[level]
    spec = MdSpec(rules.md_level, "host:vault", chunksize=128 if rules.chunked else 0, bitmap=True)
    paths, superblocks = await made(tmp_path, spec, size=size)
    for path, superblock in zip(paths, superblocks, strict=True):
        seen = examine(path)
        assert seen["Feature Map"] == "0x1"
        assert seen["Internal Bitmap"] == "8 sectors from superblock"
        assert re.fullmatch(r"[0-9a-f]+ - correct", seen["Checksum"])
        assert seen["Bad Block Log"] == f"512 entries available at offset {superblock.bblog_offset} sectors"
        bitmap = examine(bitmap_of(path, tmp_path), "--examine-bitmap")
        assert bitmap["UUID"] == seen["Array UUID"]
        assert (bitmap["Events"], bitmap["Events Cleared"], bitmap["State"]) == ("1", "1", "OK")
        assert bitmap["Sync Size"].startswith(f"{superblock.size // 2} ")
        assert bitmap["Bitmap"] == f"{bits} bits (chunks), 0 dirty (0.0%)"


async def test_mdadm_sees_a_partial_parity_log(requires, tmp_path):
    requires("mdadm")
    paths, _superblocks = await made(tmp_path, MdSpec(5, "host:vault", chunksize=128, consistency="ppl"), size=96 * MIB)
    for path in paths:
        seen = examine(path)
        assert seen["Feature Map"] == "0x400"
        assert seen["PPL"] == "2048 sectors at offset 8 sectors from superblock"
        assert seen["Data Offset"] == "4096 sectors"
        assert seen["Bad Block Log"] == "512 entries available at offset 2056 sectors"
        assert re.fullmatch(r"[0-9a-f]+ - correct", seen["Checksum"])


async def test_mdadm_sees_spares_and_flags(requires, tmp_path):
    requires("mdadm")
    paths, _superblocks = await made(tmp_path, MdSpec(1, "host:vault", spares=1, write_mostly={1}))
    seen = [examine(path) for path in paths]
    assert [each["Raid Devices"] for each in seen] == ["3"] * 4
    assert [each["Device Role"] for each in seen] == [*(f"Active device {slot}" for slot in range(3)), "spare"]
    assert [each.get("Flags") for each in seen] == [None, "write-mostly", None, None]
    assert [each["Array State"].split()[0] for each in seen] == ["AAA"] * 4
