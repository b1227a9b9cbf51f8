"""RAID 10 layouts: where the copies of each chunk lie.  Pure arithmetic, no I/O.

Everything is in bytes, or in chunks and rows of chunks; a member offset counts from the start of the member's data
area.  The formulas are those of Linux MD (``__raid10_find_phys`` in drivers/md/raid10.c).  Three ways to place copies,
which MD's number of the layout holds as ``near | far << 8 | offset << 16``:

- *near*: side by side in one row, going on at the start of the next row where the members end;
- *far*: each in a zone of its own, a far-th of the member, moved on by one member from zone to zone;
- *offset*: as far, but each row is followed at once by its copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orionfs.array.layout import Layout

_OFFSET = 1 << 16


class CopyCounts(NamedTuple):
    """What MD's number of a RAID 10 layout says: copies of a kind, and whether the far ones are in offset layout."""

    near: int
    far: int
    offset: bool

    @property
    def copies(self) -> int:
        """Copies of each chunk."""
        return self.near * self.far

    @property
    def number(self) -> int:
        """MD's number."""
        return self.near | self.far << 8 | self.offset << 16


def split_layout(number: int) -> CopyCounts:
    """The parts of MD's layout *number*.  Raises ValueError if there is no such layout, or it has far sets."""
    counts = CopyCounts(number & 0xFF, number >> 8 & 0xFF, bool(number & _OFFSET))
    if number != counts.number or not counts.copies:
        raise ValueError(f"{number:#x} is no layout of copies")
    return counts


class Place(NamedTuple):
    """Where one copy of a chunk lies, relative to its base: the slot, bytes to add, and which far copy it is."""

    slot: int
    delta: int
    zone: int


class Held(NamedTuple):
    """A part of a member's data area, and what it holds: *length* bytes at *offset* there, from *at* of the array."""

    at: int
    offset: int
    length: int


def copy_slots(number: int, members: int) -> set[frozenset[int]]:
    """The sets of slots that hold a chunk, for layout *number* over *members* members."""
    near, far, _offset = split_layout(number)
    return {
        frozenset((first + step) % members for step in range(near * far))
        for first in {chunk * near % members for chunk in range(members)}
    }


def margin_without(number: int, members: int, gone: frozenset[int]) -> int:
    """How many more members may go, whichever they are, when those in the slots *gone* have; -1: data are lost."""
    return min(len(slots - gone) for slots in copy_slots(number, members)) - 1


class Raid10Layout(Layout):
    """Chunks with several copies each.

    A chunk belongs to one of a few *groups*, which repeat: all chunks of a group have their copies in the same slots,
    at the same distance from the chunk's *base*.  ``groups`` lists the places of each, the first copy first.
    """

    def __init__(self, chunk: int, members: int, component_size: int, number: int) -> None:
        """*component_size* bytes of each of *members* members are used, or a little less.

        Raises ValueError for a layout *number* that there is not, or not for so many members.
        """
        self.near, self.far, self.offset = split_layout(number)
        self.copies = self.near * self.far
        if self.copies > members:
            raise ValueError(f"{self.copies} copies do not fit on {members} members")
        if self.offset and members % self.near:
            raise ValueError("near copies that wrap would lie where offset copies are")
        self.chunk = chunk
        self.members = members
        #: Rows of different chunks; each is there ``far`` times.
        self.logical_rows = component_size // chunk // self.far
        #: Rows of a member that hold something.
        self.rows = self.logical_rows * self.far
        self.chunks = self.logical_rows * members // self.near
        self.size = self.chunks * chunk
        #: Rows from one far copy to the next.
        self.stride = 1 if self.offset else self.logical_rows
        self._pace = self.far if self.offset else 1
        self.groups = tuple(tuple(self._places(dev)) for dev in range(members))

    def _places(self, dev: int) -> Iterator[Place]:
        for zone in range(self.far):
            for step in range(self.near):
                wraps, slot = divmod(dev + step, self.members)
                yield Place((slot + zone * self.near) % self.members, (wraps + zone * self.stride) * self.chunk, zone)

    def find(self, offset: int) -> tuple[int, int, int]:
        """(group, base, run) of array byte *offset*, and how many bytes follow it in its chunk.

        The copies of the byte lie at ``base + place.delta`` for each place of the group.
        """
        chunk = self.chunk
        number, within = divmod(offset, chunk)
        row, dev = divmod(number * self.near, self.members)
        return dev, row * self._pace * chunk + within, chunk - within

    def locate(self, offset: int) -> tuple[int, int, int]:
        group, base, run = self.find(offset)
        slot, delta, _zone = self.groups[group][0]
        return slot, base + delta, run

    def chunk_at(self, slot: int, row: int) -> int | None:
        """The chunk that has a copy in *row* of the member in *slot*; None if nothing is there."""
        logical, zone = self._logical(row)
        number = (logical * self.members + (slot - zone * self.near) % self.members) // self.near
        return number if zone < self.far and number < self.chunks else None

    def _logical(self, row: int) -> tuple[int, int]:
        """(logical row, zone) of a member's *row*."""
        if self.offset:
            return divmod(row, self.far)
        zone, logical = divmod(row, self.stride) if self.stride else (self.far, 0)
        return logical, zone

    def held(self, slot: int, low: int, high: int) -> Iterator[Held]:
        """What the bytes [low, high) of a member's data area hold, chunk by chunk; the rest of them is not used."""
        chunk = self.chunk
        while low < high:
            row, within = divmod(low, chunk)
            take = min(chunk - within, high - low)
            number = self.chunk_at(slot, row)
            if number is not None:
                yield Held(number * chunk + within, low, take)
            low += take

    def spans(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The bytes [low, high) of a data area cut into runs whose :meth:`reach` is short: where far zones begin."""
        zone = self.stride * self.chunk
        while low < high:
            cut = high if self.offset or not zone else min(high, (low // zone + 1) * zone)
            yield low, cut
            low = cut

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """The smallest range of array bytes, in whole chunks, with all that any member holds in [low, high).

        The bytes must lie in one far zone (see :meth:`spans`).  Empty if nothing is there.
        """
        first = self._logical(low // self.chunk)[0] * self.members // self.near
        last = self._logical((high - 1) // self.chunk)[0] + 1
        end = min(-(-last * self.members // self.near), self.chunks)
        return min(first, end) * self.chunk, end * self.chunk

    # --- logical rows: rows of different chunks --------------------------------------------------------------------

    def logical_range(self, low: int, high: int) -> tuple[int, int]:
        """The logical rows, [first, end), in which the array bytes [low, high) have any of their near copies."""
        first = low // self.chunk * self.near // self.members
        return first, ((high - 1) // self.chunk * self.near + self.near - 1) // self.members + 1

    def end_before(self, logical: int) -> int:
        """How many array bytes there are whose near copies all lie before row *logical*."""
        return min(logical * self.members // self.near, self.chunks) * self.chunk

    def areas(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The rows of a member, [start, stop), that hold the logical rows [first, end), in as many runs as it takes."""
        if self.offset:
            yield first * self.far, end * self.far
            return
        for zone in range(self.far):
            yield first + zone * self.stride, end + zone * self.stride

    def safe_end(self, row: int, logical: int) -> int:
        """Up to which row, in the zone of *row*, a member holds only chunks with all near copies before *logical*."""
        zone = self._logical(row)[1]
        if self.members % self.near:
            logical -= 1  # a chunk may go on in the next row
        return logical * self.far if self.offset else logical + zone * self.stride
