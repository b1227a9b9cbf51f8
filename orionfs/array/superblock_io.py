"""Reading and writing superblocks on devices."""

from __future__ import annotations

import struct

from orionfs.array.superblock import (
    MAGIC,
    OFFSET,
    SIZE,
    NoSuperblock,
    Superblock,
    TruncatedMember,
    UnsupportedVersion,
)
from orionfs.device import StorageDevice
from orionfs.units import KIB, SECTOR, round_down

_MAGIC = struct.pack("<I", MAGIC)


async def read_superblock(device: StorageDevice) -> Superblock:
    """The MD 1.2 superblock of *device*.

    Raises a :class:`~orionfs.array.superblock.SuperblockError` if there is none that can be used, or the device's own
    error if it cannot be read.  The messages begin with a verb: put the member's label in front.
    """
    size = device.geometry.size
    if size < OFFSET + SIZE:
        raise TruncatedMember(
            f"is {size} bytes long, too short to hold an MD superblock", hint="check that it is the right file"
        )
    block = bytearray(SIZE)
    await device.read(OFFSET, [block])
    try:
        return Superblock.parse(block, size)
    except NoSuperblock:
        version = await find_other_version(device)
        if version:
            raise UnsupportedVersion(
                f"holds MD metadata of version {version}, and OrionFS uses version 1.2 only",
                hint="assemble this array with mdadm",
            ) from None
        raise


async def write_superblock(device: StorageDevice, superblock: Superblock) -> None:
    """Store *superblock* on *device*, in one sector if it fits; durable after the next flush."""
    length = superblock.length(device.geometry.logical_block)
    await device.write(OFFSET, [superblock.encode()[:length]])


async def find_other_version(device: StorageDevice) -> str:
    """Which MD metadata other than 1.2 there is on *device*: ``0.90``, ``1.0``, ``1.1``, or nothing.

    1.1 lies at the start, 1.0 at least 8 KiB before the end, 0.90 in the last whole 64 KiB.
    """
    size = device.geometry.size
    places = {
        "1.1": 0,
        "1.0": round_down(size - 8 * KIB, 8 * SECTOR),
        "0.90": round_down(size, 64 * KIB) - 64 * KIB,
    }
    block = bytearray(4096)
    for version, place in places.items():
        if not 0 <= place <= size - len(block):
            continue
        await device.read(place, [block])
        if block[:4] == _MAGIC:
            (major,) = struct.unpack_from("<I", block, 4)
            if major == (0 if version == "0.90" else 1):
                return version
    return ""
