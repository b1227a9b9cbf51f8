"""Signatures: recognizing what a device already holds, before anything is made of it.

A short list of what people keep on devices, with the offsets that libblkid and file(1) know; an unknown format is not
noticed.
"""

from __future__ import annotations

from typing import NamedTuple

from orionfs.array.superblock_io import find_other_version
from orionfs.device import StorageDevice
from orionfs.units import KIB


class Signature(NamedTuple):
    """*magic* at byte *offset* means *noun*."""

    noun: str
    offset: int
    magic: bytes


#: In the order in which they are looked for; the first that fits is the answer.
SIGNATURES = (
    Signature("an MD superblock", 4096, b"\xfc\x4e\x2b\xa9"),
    Signature("a LUKS header", 0, b"LUKS\xba\xbe"),
    Signature("an LVM physical volume", 512, b"LABELONE"),
    Signature("an LVM physical volume", 0, b"LABELONE"),
    Signature("a Btrfs filesystem", 64 * KIB + 64, b"_BHRfS_M"),
    Signature("an XFS filesystem", 0, b"XFSB"),
    Signature("an ext2, ext3 or ext4 filesystem", KIB + 56, b"\x53\xef"),
    Signature("an F2FS filesystem", KIB, b"\x10\x20\xf5\xf2"),
    Signature("an NTFS filesystem", 3, b"NTFS    "),
    Signature("an ISO 9660 filesystem", 32 * KIB + 1, b"CD001"),
    Signature("swap space", 4096 - 10, b"SWAPSPACE2"),
    Signature("a qcow2 image", 0, b"QFI\xfb"),
    Signature("a GPT partition table", 512, b"EFI PART"),
    Signature("a GPT partition table", 4096, b"EFI PART"),
    Signature("a boot sector or partition table", 510, b"\x55\xaa"),
)
_HEAD = 128 * KIB


async def find_signature(device: StorageDevice) -> str:
    """What *device* holds, as a noun with its article; empty if nothing is recognized."""
    head = bytearray(min(_HEAD, device.geometry.size))
    await device.read(0, [head])
    for noun, offset, magic in SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return noun
    version = await find_other_version(device)
    return f"an MD superblock of version {version}" if version else ""
