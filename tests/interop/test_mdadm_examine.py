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
SHAPES = [
    (level, layout, members)
    for level, members in (("linear", 2), ("raid0", 3), ("raid1", 2), ("raid5", 4))
    for layout in LEVELS[level].layouts
]


def examine(path):
    """The lines of ``mdadm --examine`` as a dictionary; it fails if mdadm complains in any way."""
    done = subprocess.run(["mdadm", "--examine", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    pairs = (line.split(" : ", 1) for line in done.stdout.splitlines() if " : " in line)
    return {key.strip(): value.strip() for key, value in pairs}


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
        assert seen.get("Layout", "") == layout
        assert seen.get("Chunk Size") == ("64K" if rules.chunked else None)
        if level in ("raid1", "raid5"):
            component = (64 - 8 * (members - 1)) * MIB - MIB
            size = component * (members - 1 if level == "raid5" else 1)
            assert seen["Array Size"].startswith(f"{size // 1024} KiB")
