"""Layouts: which member holds a byte of the array, and where.  Pure arithmetic, no I/O.

Everything is in bytes; a member offset counts from the start of the member's data area.  The formulas are those of
Linux MD (drivers/md/raid0.c, raid5.c, md-linear.c).
"""

from __future__ import annotations

import abc
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: RAID 5 layouts by their MD number; RAID 6 has them too, with Q behind P.
LEFT_ASYMMETRIC, RIGHT_ASYMMETRIC, LEFT_SYMMETRIC, RIGHT_SYMMETRIC, PARITY_FIRST, PARITY_LAST = range(6)

#: RAID 6 layouts of the DDF standard, which number the chunks for Q in another way.
DDF_ZERO_RESTART, DDF_N_RESTART, DDF_N_CONTINUE = 8, 9, 10

#: RAID 6 layouts that are a RAID 5 on all members but the last, which holds every Q: their MD number is that of the
#: RAID 5 layout and this.
Q_LAST = 16

#: RAID 0 layouts by their MD number: they differ only when the members do.
RAID0_ORIGINAL, RAID0_ALTERNATE = 1, 2


class Piece(NamedTuple):
    """*length* bytes of a request, at *at* in its buffers, that lie at *offset* of the member in *slot*."""

    slot: int
    offset: int
    at: int
    length: int


class Layout(abc.ABC):
    """Maps array addresses to one data place each."""

    size: int

    @abc.abstractmethod
    def locate(self, offset: int) -> tuple[int, int, int]:
        """(slot, member offset, run): the place of array byte *offset*, and how many bytes follow it there."""

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """The range cut where the member changes, in array order."""
        at = 0
        while at < length:
            slot, where, run = self.locate(offset + at)
            take = min(run, length - at)
            yield Piece(slot, where, at, take)
            at += take


class LinearLayout(Layout):
    """Members one after the other."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._starts: list[int] = []
        self._sizes = tuple(sizes)
        self.size = 0
        for size in sizes:
            self._starts.append(self.size)
            self.size += size

    def locate(self, offset: int) -> tuple[int, int, int]:
        slot = bisect_right(self._starts, offset) - 1
        where = offset - self._starts[slot]
        return slot, where, self._sizes[slot] - where


class MirrorLayout(Layout):
    """Every member holds everything; the data place is slot 0 by convention."""

    def __init__(self, size: int) -> None:
        self.size = size

    def locate(self, offset: int) -> tuple[int, int, int]:
        return 0, offset, self.size - offset


class Row(NamedTuple):
    """One stripe: the slots of its data chunks in array order, and of its parity chunks P and Q (-1: there is none).

    Q is the sum of the data chunks, each times 2 to the power of its exponent; *exponents* are in the order of *data*.
    """

    data: tuple[int, ...]
    parity: int
    q: int = -1
    exponents: tuple[int, ...] = ()


class StripedLayout(Layout):
    """Chunks dealt out over the members, row by row; rows repeat with a :attr:`period`.

    :attr:`parities` is the number of chunks of a row that hold no data: 0, 1 (P) or 2 (P and Q).
    """

    def __init__(self, chunk: int, rows: Sequence[Row], row_count: int) -> None:
        self.chunk = chunk
        self.columns = len(rows[0].data)
        self.parities = (rows[0].parity >= 0) + (rows[0].q >= 0)
        self.row_count = row_count
        self.row_width = chunk * self.columns
        self.size = self.row_width * row_count
        self.period = len(rows)
        self._rows = tuple(rows)

    def row(self, number: int) -> Row:
        """The members of stripe *number*."""
        return self._rows[number % self.period]

    def locate(self, offset: int) -> tuple[int, int, int]:
        chunk = self.chunk
        number, within = divmod(offset, chunk)
        row, column = divmod(number, self.columns)
        return self._rows[row % self.period].data[column], row * chunk + within, chunk - within


class ZonedStripes(Layout):
    """RAID 0 over members of different sizes: a strip zone for each size, over the members that reach it."""

    def __init__(self, chunk: int, sizes: Sequence[int], layout: int) -> None:
        rounded = [size - size % chunk for size in sizes]
        self._starts: list[int] = []
        self._zones: list[tuple[int, StripedLayout]] = []
        self.size = 0
        member_start = 0
        for member_end in sorted(set(rounded)):
            slots = [slot for slot, size in enumerate(rounded) if size > member_start]
            if member_end == member_start or not slots:
                continue
            # Layout 1 numbers chunks from the start of the array, layout 2 from the start of the zone.
            turn = self.size // chunk % len(slots) if layout == RAID0_ORIGINAL else 0
            striped = StripedLayout(
                chunk, [Row(tuple(slots[turn:] + slots[:turn]), -1)], (member_end - member_start) // chunk
            )
            self._starts.append(self.size)
            self._zones.append((member_start, striped))
            self.size += striped.size
            member_start = member_end

    def locate(self, offset: int) -> tuple[int, int, int]:
        index = bisect_right(self._starts, offset) - 1
        member_start, striped = self._zones[index]
        slot, where, run = striped.locate(offset - self._starts[index])
        return slot, member_start + where, run


def raid0_layout(chunk: int, sizes: Sequence[int], layout: int) -> Layout:
    """RAID 0 over members with *sizes* bytes of data each."""
    rows = {size // chunk for size in sizes}
    if len(rows) == 1:
        return StripedLayout(chunk, [Row(tuple(range(len(sizes))), -1)], rows.pop())
    return ZonedStripes(chunk, sizes, layout)


def raid4_layout(chunk: int, members: int, component_size: int) -> StripedLayout:
    """RAID 4: the parity is on the last of *members* members; *component_size* bytes of each are used."""
    return StripedLayout(chunk, [raid5_row(members, 0, PARITY_LAST)], component_size // chunk)


def raid5_layout(chunk: int, members: int, component_size: int, layout: int) -> StripedLayout:
    """RAID 5 in one of MD's six layouts; *component_size* bytes of each of *members* members are used."""
    rows = [raid5_row(members, number, layout) for number in range(members)]
    return StripedLayout(chunk, rows, component_size // chunk)


def raid6_layout(chunk: int, members: int, component_size: int, layout: int) -> StripedLayout:
    """RAID 6 in one of MD's fourteen layouts; *component_size* bytes of each of *members* members are used."""
    period = members - 1 if layout >= Q_LAST else members
    rows = [raid6_row(members, number, layout) for number in range(period)]
    return StripedLayout(chunk, rows, component_size // chunk)


def raid5_row(members: int, number: int, layout: int) -> Row:
    """Where MD puts the chunks of stripe *number* (raid5_compute_sector in drivers/md/raid5.c)."""
    turn = number % members
    last = members - 1
    parity = {
        LEFT_ASYMMETRIC: last - turn,
        RIGHT_ASYMMETRIC: turn,
        LEFT_SYMMETRIC: last - turn,
        RIGHT_SYMMETRIC: turn,
        PARITY_FIRST: 0,
        PARITY_LAST: last,
    }[layout]
    if layout in (LEFT_SYMMETRIC, RIGHT_SYMMETRIC):
        data = tuple((parity + 1 + column) % members for column in range(last))
    else:
        data = tuple(slot for slot in range(members) if slot != parity)
    return Row(data, parity)


def raid6_row(members: int, number: int, layout: int) -> Row:
    """Where MD puts the chunks of stripe *number* (the level 6 part of raid5_compute_sector)."""
    if layout >= Q_LAST:
        row = raid5_row(members - 1, number, layout - Q_LAST)
        return Row(row.data, row.parity, members - 1, _walk(members, row.data, members - 1))
    turn = number % members
    last = members - 1
    parity = {
        LEFT_ASYMMETRIC: last - turn,
        RIGHT_ASYMMETRIC: turn,
        LEFT_SYMMETRIC: last - turn,
        RIGHT_SYMMETRIC: turn,
        PARITY_FIRST: 0,
        PARITY_LAST: last - 1,
        DDF_ZERO_RESTART: turn,
        DDF_N_RESTART: last - (number + 1) % members,
        DDF_N_CONTINUE: last - turn,
    }[layout]
    q = (parity - 1 if layout == DDF_N_CONTINUE else parity + 1) % members
    if layout in (LEFT_SYMMETRIC, RIGHT_SYMMETRIC):
        data = tuple((parity + 2 + column) % members for column in range(members - 2))
    elif layout == DDF_N_CONTINUE:
        data = tuple((parity + 1 + column) % members for column in range(members - 2))
    else:
        data = tuple(slot for slot in range(members) if slot not in (parity, q))
    if layout in (DDF_ZERO_RESTART, DDF_N_RESTART, DDF_N_CONTINUE):
        # DDF numbers the members themselves, P and Q included.
        return Row(data, parity, q, data)
    return Row(data, parity, q, _walk(members, data, q))


def _walk(members: int, data: tuple[int, ...], q: int) -> tuple[int, ...]:
    """MD's exponents: it numbers the data chunks as it meets them, walking upwards from the member behind Q."""
    order = sorted(data, key=lambda slot: (slot - q) % members)
    return tuple(order.index(slot) for slot in data)
