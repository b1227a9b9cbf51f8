"""Placement: where mdadm puts things on a new member.  Pure arithmetic in sectors of 512 bytes.

Any placement without overlaps is legal.  That of mdadm 4.2 (super1.c) is followed to the sector, so that a member of
ours is one that ``mdadm --create`` could have made, with the same capacity and the same room for bitmaps and reshapes.
"""

from __future__ import annotations

from orionfs.array.superblock import (
    FEATURE_BITMAP,
    FEATURE_MULTIPLE_PPLS,
    FEATURE_PPL,
    OFFSET,
    SIZE,
    Superblock,
)
from orionfs.units import MIB, SECTOR, round_down, round_up

#: The bad-block log of a new member, and where it lies (from the superblock) if there is nothing before it.
BBLOG_SIZE = 8
BBLOG_OFFSET = 8

#: The PPL of a new member.
PPL_SIZE = 2048
#: From the superblock to the bitmap or the PPL, whichever there is.
LOG_OFFSET = 8

#: The most that mdadm makes of a bitmap.
_LARGEST_BITMAP = 256

_SUPERBLOCK = OFFSET // SECTOR
#: Logs begin and end at pages.
_PAGE = 8
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


def data_offset(device_size: int, chunksize: int, *, ppl: bool = False) -> int:
    """First data sector of a member of *device_size* sectors in an array with *chunksize* sectors (0: no chunk).

    mdadm computes it from the first member and uses it for all.
    """
    headroom = _LARGEST_HEADROOM
    # Room for moving the data in a reshape: a thousandth of the device, but at least a few chunks.
    while headroom * 1024 > device_size and (chunksize == 0 or headroom // 2 >= 4 * (chunksize // 2)):
        headroom //= 2
    logs = PPL_SIZE if ppl else bitmap_space(device_size)
    return round_up(_FIXED_SPACE + logs + headroom, _ALIGNMENT)


def bblog_offset(size: int, *, bitmap_length: int = 0, ppl: bool = False) -> int:
    """Sectors from the superblock to the bad-block log of an array with component *size* (0 for RAID 0 and linear).

    Behind the bitmap of *bitmap_length* bytes or the PPL, if there is one, else behind the room for a bitmap.
    """
    if ppl:
        return LOG_OFFSET + PPL_SIZE
    if bitmap_length:
        return LOG_OFFSET + round_up(-(-bitmap_length // SECTOR), _PAGE)
    return BBLOG_OFFSET + bitmap_space(size)


def component_size(available: int, chunksize: int, logical_block: int = SECTOR, far: int = 1) -> int:
    """Sectors of each member that a redundant array uses when the smallest has *available* behind its data offset.

    Whole chunks, of RAID 10 as many as divide by its *far* copies; without a chunk whole KiB, as mdadm counts, and
    whole logical blocks (in bytes).
    """
    return round_down(available, chunksize * far or max(2, logical_block // SECTOR))


def bitmap_place(superblock: Superblock) -> tuple[int, int]:
    """(place, space) in bytes: where the bitmap of that member lies, and how much it may take before something else.

    No space if the superblock places it outside the room before the data, or on something else.
    """
    start = _SUPERBLOCK + superblock.bitmap_offset
    return start * SECTOR, _space_from(superblock, start) * SECTOR


def ppl_place(superblock: Superblock) -> tuple[int, int]:
    """(place, size) in bytes: where the PPL of that member lies.

    The size is 0 if the superblock places it outside the room before the data, or on something else.
    """
    start, size = _SUPERBLOCK + superblock.ppl_offset, superblock.ppl_size
    return start * SECTOR, size * SECTOR if size <= _space_from(superblock, start) else 0


def _space_from(superblock: Superblock, start: int) -> int:
    """How many sectors there are from *start* on before something else than a log of stripes begins."""
    end = _SUPERBLOCK + superblock.length() // SECTOR
    ends = [superblock.data_offset]
    for low, high in [(_SUPERBLOCK, end), *_bad_block_log(superblock)]:
        if low <= start < high:
            return 0
        if low > start:
            ends.append(low)
    return max(min(ends) - start, 0) if start >= 0 else 0


def free_gap(superblock: Superblock, bitmap_length: int = 0) -> tuple[int, int]:
    """(start, length) in sectors of the longest stretch between superblock and data that nothing of MD is in.

    Clear of the bad-block log, of a PPL, and of a bitmap: of the room that mdadm keeps for one, whether there is one or
    not, of the *bitmap_length* bytes that the one at hand takes, and, as its superblock does not tell, of the most that
    mdadm makes if nothing ends it before.  In whole pages; the length is 0 if there is no such stretch.
    """
    used = [(0, (OFFSET + SIZE) // SECTOR), *_bad_block_log(superblock)]
    features = superblock.feature_map
    room = max(bitmap_space(superblock.size), -(-bitmap_length // SECTOR))
    if features & (FEATURE_PPL | FEATURE_MULTIPLE_PPLS):
        start = _SUPERBLOCK + superblock.ppl_offset
        used.append((start, start + superblock.ppl_size))
    else:
        start = _SUPERBLOCK + (superblock.bitmap_offset if features & FEATURE_BITMAP else LOG_OFFSET)
        used.append((start, start + room))
        if features & FEATURE_BITMAP:
            ends = [low for low, _high in _bad_block_log(superblock) if low > start]
            used.append((start, min([start + _LARGEST_BITMAP, *ends])))
    best = (0, 0)
    at = 0
    for low, high in [*sorted(used), (superblock.data_offset, superblock.data_offset)]:
        start = round_up(at, _PAGE)
        length = round_down(max(min(low, superblock.data_offset) - start, 0), _PAGE)
        if length > best[1]:
            best = (start, length)
        at = max(at, high)
    return best


def _bad_block_log(superblock: Superblock) -> list[tuple[int, int]]:
    """Where the bad-block log lies, if there is one: first sector and the one behind it."""
    if not superblock.bblog_size or not superblock.bblog_offset:
        return []
    start = _SUPERBLOCK + superblock.bblog_offset
    return [(start, start + superblock.bblog_size)]
