"""Bands: stripes with parity worked on many at a time, as much of them as fits the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from types import TracebackType
from typing import NamedTuple

from orionfs.array.layout import Row, StripedLayout
from orionfs.array.stripe import solve
from orionfs.buffers import POOL
from orionfs.kernels.galois import syndromes
from orionfs.kernels.parity import nonzero_rows, rows, xor, xor_into
from orionfs.units import KIB

#: Bytes of each member in a band.
_SIZE = 256 * KIB


class Band(NamedTuple):
    """The bytes [low, high) of the data areas: *width* bytes of each stripe from *first* on, a whole chunk or less."""

    first: int
    low: int
    high: int
    width: int

    @property
    def height(self) -> int:
        """How many stripes have a part in it."""
        return (self.high - self.low) // self.width

    def stripes(self) -> Iterator[Band]:
        """Its stripes one by one."""
        for index in range(self.height):
            low = self.low + index * self.width
            yield Band(self.first + index, low, low + self.width, self.width)


def bands(chunk: int, first: int, end: int) -> Iterator[Band]:
    """The stripes [first, end), with chunks of *chunk* bytes (a power of two), as bands."""
    if chunk < _SIZE:
        step = _SIZE // chunk
        for number in range(first, end, step):
            yield Band(number, number * chunk, min(number + step, end) * chunk, chunk)
        return
    for number in range(first, end):
        for low in range(number * chunk, (number + 1) * chunk, _SIZE):
            yield Band(number, low, low + _SIZE, _SIZE)


class Room:
    """Memory for one band after the other: what each member holds, and P and Q as they should be, or how they differ.

    A context: the memory goes back when it ends.
    """

    def __init__(self, layout: StripedLayout, members: int, stripes: int) -> None:
        """For bands of at most so many *stripes*."""
        self._layout = layout
        self._members = members
        self._size = min(stripes * layout.chunk, _SIZE)
        self._views: list[memoryview] = []

    def __enter__(self) -> Room:
        self._views += [POOL.take(self._size) for _ in range(self._members + self._layout.parities)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for view in self._views:
            POOL.give(view)

    def of(self, slot: int, band: Band) -> memoryview:
        """Where the part of the member in *slot* belongs."""
        return self._views[slot][: band.high - band.low]

    def check(self, number: int, band: Band) -> memoryview:
        """Where P (0) or Q (1) is computed."""
        return self._views[self._members + number][: band.high - band.low]

    def recover(self, band: Band, lost: Collection[int], wanted: int) -> None:
        """Compute what the member in slot *wanted*, one of the *lost*, has to hold, from what the others hold.

        The data that are lost must be recoverable everywhere in the band.
        """
        if self._layout.parities == 1:
            xor(self.of(wanted, band), [self.of(slot, band) for slot in range(self._members) if slot != wanted])
            return
        for first, place in self._kinds(band):
            chunks = {
                slot: rows(self.of(slot, band), band.width, first, self._layout.period)
                for slot in (*place.data, place.parity, place.q)
                if slot in place.data or slot == wanted or slot not in lost
            }
            solve(place, chunks, [slot for slot in lost if slot in place.data or slot == wanted])

    def compare(self, band: Band) -> tuple[set[int], set[int]]:
        """Where P and where Q is not what the data ask for: indexes of stripes of the band.

        The places where they are computed then have the differences.
        """
        p = self.check(0, band)
        if self._layout.parities == 1:
            xor(p, [self.of(slot, band) for slot in range(self._members)])
            return set(nonzero_rows(p, band.width)), set()
        q, step = self.check(1, band), self._layout.period
        for first, place in self._kinds(band):
            p_rows, q_rows = rows(p, band.width, first, step), rows(q, band.width, first, step)
            data = [rows(self.of(slot, band), band.width, first, step) for slot in place.data]
            syndromes(p_rows, q_rows, data, place.exponents)
            xor_into(p_rows, [rows(self.of(place.parity, band), band.width, first, step)])
            xor_into(q_rows, [rows(self.of(place.q, band), band.width, first, step)])
        return set(nonzero_rows(p, band.width)), set(nonzero_rows(q, band.width))

    def _kinds(self, band: Band) -> Iterator[tuple[int, Row]]:
        """The stripes of the band sorted by where their chunks lie: the index of the first of each kind."""
        for index in range(min(self._layout.period, band.height)):
            yield index, self._layout.row(band.first + index)
