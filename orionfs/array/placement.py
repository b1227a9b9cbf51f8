"""Placement: where mdadm puts things on a new member.  Pure arithmetic in sectors of 512 bytes.

Any placement without overlaps is legal.  That of mdadm 4.2 (super1.c) is followed to the sector, so that a member of
ours is one that ``mdadm --create`` could have made, with the same capacity and the same room for bitmaps and reshapes.
"""

from __future__ import annotations

from orionfs.units import MIB, SECTOR, round_down, round_up

#: The bad-block log of a new member, and where it lies (from the superblock) if there is nothing before it.
BBLOG_SIZE = 8
BBLOG_OFFSET = 8

_ALIGNMENT = MIB // SECTOR
#: Superblock and bad-block log and what is before them.
_FIXED_SPACE = 24
_LARGEST_HEADROOM = 128 * MIB // SECTOR
_200_GIB = (200 << 30) // SECTOR
_8_GIB = (8 << 30) // SECTOR


def bitmap_space(sectors: int) -> int:
    """Room that mdadm keeps free for a write-intent bitmap over *sectors*."""
    if sectors < 128:
        return 0
    if sectors - 128 >= _200_GIB:
        return 256
    if sectors - 8 > _8_GIB:
        return 128
    return 8


def data_offset(device_size: int, chunksize: int) -> int:
    """First data sector of a member of *device_size* sectors in an array with *chunksize* sectors (0: no chunk).

    mdadm computes it from the first member and uses it for all.
    """
    headroom = _LARGEST_HEADROOM
    # Room for moving the data in a reshape: a thousandth of the device, but at least a few chunks.
    while headroom * 1024 > device_size and (chunksize == 0 or headroom // 2 >= 4 * (chunksize // 2)):
        headroom //= 2
    return round_up(_FIXED_SPACE + bitmap_space(device_size) + headroom, _ALIGNMENT)


def bblog_offset(size: int) -> int:
    """Sectors from the superblock to the bad-block log of an array with component *size* (0 for RAID 0 and linear)."""
    return BBLOG_OFFSET + bitmap_space(size)


def component_size(available: int, chunksize: int, logical_block: int = SECTOR) -> int:
    """Sectors of each member that a redundant array uses when the smallest has *available* behind its data offset.

    Whole chunks; without a chunk whole KiB, as mdadm counts, and whole logical blocks (in bytes).
    """
    return round_down(available, chunksize or max(2, logical_block // SECTOR))
