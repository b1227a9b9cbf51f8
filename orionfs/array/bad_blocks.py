"""Bad blocks: what a member holds no good data for, and the log on its medium that remembers it.

The log is one page of 64-bit words, ``sector << 10 | length`` in units of ``1 << bblog_shift`` sectors from the start
of the member; all ones end it.  The order means nothing.  Source: the kernel's drivers/md/md.c (super_1_load and
super_1_sync).  The member's superblock has the feature bit 0x8 while the log is not empty, and without it the log is
not read.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import trio

from orionfs.array.superblock import FEATURE_BAD_BLOCKS, OFFSET, Superblock
from orionfs.device import StorageDevice
from orionfs.errors import IntegrityError, MediaError
from orionfs.units import SECTOR

#: The most that the kernel reads, and all that anybody makes.
LOG_SIZE = 4096
_UNUSED = 2**64 - 1
#: The most units that one word stands for.
_LONGEST = 512
_LENGTH_BITS = 10
#: A unit of more than 32 MiB is no shift that anybody has chosen.
_LARGEST_SHIFT = 16


def decode_log(raw: bytes | bytearray | memoryview, shift: int) -> list[tuple[int, int]]:
    """The ranges [low, high) in *raw*, in sectors of the member, in the order of the words; they may overlap."""
    found: list[tuple[int, int]] = []
    for (word,) in struct.iter_unpack("<Q", bytes(raw[: len(raw) // 8 * 8])):
        if word == _UNUSED:
            break
        start, length = word >> _LENGTH_BITS, word & (1 << _LENGTH_BITS) - 1
        if length:
            found.append((start << shift, start + length << shift))
    return found


def encode_log(ranges: Iterable[tuple[int, int]], shift: int, size: int = LOG_SIZE) -> bytes:
    """A log of *size* bytes with *ranges* [low, high), sectors of the member that rise, widened to whole units.

    Raises ValueError if they do not fit.
    """
    words: list[int] = []
    done = 0
    for low, high in ranges:
        start, end = max(low >> shift, done), -(-high >> shift)
        while start < end:
            length = min(end - start, _LONGEST)
            words.append(start << _LENGTH_BITS | length)
            start += length
        done = max(done, end)
    if len(words) * 8 > size:
        raise ValueError(f"{len(words)} words do not fit into a log of {size} bytes")
    return struct.pack(f"<{len(words)}Q", *words).ljust(size, b"\xff")


class BadBlocks:
    """The bad blocks of one member.  Addresses are bytes of its data area; ranges are half open.

    The list in memory is what counts while the array runs; :meth:`store` makes the medium say the same.  It may hold
    more than the log has room for: then :meth:`store` fails, and the member has to be given up.
    """

    def __init__(self, superblock: Superblock) -> None:
        """Without any, for the member of *superblock*; raises IntegrityError if that places the log where it cannot be.

        A member without a log may have none: :meth:`store` then fails as soon as there is one.
        """
        self._base = superblock.data_offset
        self._end = superblock.data_size * SECTOR
        self._shift = superblock.bblog_shift
        self._size = superblock.bblog_size * SECTOR if superblock.bblog_offset else 0
        self._place = OFFSET + superblock.bblog_offset * SECTOR
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._lock = trio.Lock()
        #: Whether the medium says something else.
        self.changed = False
        if self._size:
            end = self._place + self._size
            overlaps = self._place < OFFSET + superblock.length() and end > OFFSET
            if self._size > LOG_SIZE or self._shift > _LARGEST_SHIFT or self._place < 0 or overlaps:
                raise _misplaced(superblock)
            if end > superblock.data_offset * SECTOR and self._place < self._base * SECTOR + self._end:
                raise _misplaced(superblock)

    @classmethod
    async def load(cls, device: StorageDevice, superblock: Superblock) -> BadBlocks:
        """Those that the log on *device* lists.  Raises as the constructor, or the device's error."""
        bad = cls(superblock)
        if superblock.feature_map & FEATURE_BAD_BLOCKS and bad._size:
            raw = bytearray(bad._size)
            await device.read(bad._place, [raw])
            for low, high in decode_log(raw, bad._shift):
                bad._insert((low - bad._base) * SECTOR, (high - bad._base) * SECTOR)
        return bad

    # --- the list --------------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self._starts)

    def ranges(self) -> list[tuple[int, int]]:
        """All of them, in order, disjoint and with gaps between them."""
        return list(zip(self._starts, self._ends, strict=True))

    def touches(self, offset: int, end: int) -> bool:
        """Whether [offset, end) has any of them."""
        index = bisect_right(self._ends, offset)
        return index < len(self._starts) and self._starts[index] < end

    def add(self, offset: int, end: int) -> None:
        """[offset, end) has no good data."""
        if self._insert(offset, end):
            self.changed = True

    def forget(self, offset: int, end: int) -> None:
        """[offset, end) has been written: it is good again."""
        starts, ends = self._starts, self._ends
        first, last = bisect_right(ends, offset), bisect_left(starts, end)
        if first >= last or offset >= end:
            return
        left = [(starts[first], offset)] if starts[first] < offset else []
        right = [(end, ends[last - 1])] if end < ends[last - 1] else []
        self._replace(first, last, left + right)
        self.changed = True

    def _insert(self, offset: int, end: int) -> bool:
        """Add a range, as far as it lies in the data area; whether that changed anything."""
        offset, end = max(offset, 0), min(end, self._end)
        if offset >= end:
            return False
        first, last = bisect_left(self._ends, offset), bisect_right(self._starts, end)
        if first < last:
            if self._starts[first] <= offset and end <= self._ends[first]:
                return False
            offset, end = min(offset, self._starts[first]), max(end, self._ends[last - 1])
        self._replace(first, last, [(offset, end)])
        return True

    def _replace(self, first: int, last: int, ranges: list[tuple[int, int]]) -> None:
        self._starts[first:last] = [low for low, _ in ranges]
        self._ends[first:last] = [high for _, high in ranges]

    # --- the log ---------------------------------------------------------------------------------------------------

    @property
    def feature(self) -> int:
        """What the list adds to the ``feature_map`` of the member's superblock."""
        return FEATURE_BAD_BLOCKS if self._starts else 0

    @property
    def full(self) -> bool:
        """Whether there are more than the log can hold, so that the member has to be given up."""
        try:
            self._encode()
        except ValueError:
            return True
        return False

    async def store(self, device: StorageDevice) -> None:
        """Make the log on *device*, which is the member's, say what the list says now; durable on return.

        What was written over is durable before it leaves the log.  The superblock has to say :attr:`feature`: that it
        is there, after this; that it is not, whenever it suits.  Raises :class:`MediaError` if the log is full, or the
        device's error; ``changed`` is then still set.
        """
        async with self._lock:
            try:
                page = self._encode()
            except ValueError as error:
                raise MediaError(f"has more bad blocks than its log can hold: {error}") from None
            self.changed = False
            stored = False
            try:
                if page:
                    await device.flush()
                    await device.write(self._place, [page])
                    await device.flush()
                stored = True
            finally:
                self.changed = self.changed or not stored

    def _encode(self) -> bytes:
        sectors = [(self._base + low // SECTOR, self._base + -(-high // SECTOR)) for low, high in self.ranges()]
        return encode_log(sectors, self._shift, self._size)


def _misplaced(superblock: Superblock) -> IntegrityError:
    return IntegrityError(
        f"has a superblock that claims a bad-block log of {superblock.bblog_size} sectors,"
        f" {superblock.bblog_offset} sectors from itself and in units of 2^{superblock.bblog_shift} sectors",
        hint="remove it with mdadm --assemble --update=force-no-bbl",
    )
