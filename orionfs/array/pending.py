"""Pending: what one member will hold and its device does not hold yet, because a journal has not put it in place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TypeAlias

#: Where it ends, its bytes, and the sequence of the record that it came with.  A plain tuple: one is made for each
#: member of each small write.
_Segment: TypeAlias = tuple[int, memoryview, int]


class Pending:
    """Segments that do not overlap, in order of their addresses, which are bytes of the member's data area.

    They are views of memory that nobody changes, so what :meth:`over` and :meth:`snapshot` return stays as it is.
    """

    __slots__ = ("_newest", "_segments", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._segments: list[_Segment] = []
        self._newest = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def over(self, offset: int, end: int) -> Sequence[tuple[int, memoryview]]:
        """Part of :class:`~orionfs.array.member.Overlay`."""
        starts = self._starts
        if not starts:
            return ()
        segments = self._segments
        index = bisect_right(starts, offset)
        if index and segments[index - 1][0] > offset:
            index -= 1
        elif index == len(starts) or starts[index] >= end:
            return ()
        found = []
        for at in range(index, bisect_left(starts, end, index)):
            start, (stop, data, _sequence) = starts[at], segments[at]
            if start < offset or stop > end:
                low, high = max(start, offset), min(stop, end)
                found.append((low, data[low - start : high - start]))
            else:
                found.append((start, data))
        return found

    def add(self, offset: int, data: memoryview, sequence: int) -> None:
        """From now on [offset, offset + len(data)) is to hold *data*, whatever it was to hold before.

        Nobody changes *data* from here on.
        """
        starts, segments = self._starts, self._segments
        end = offset + len(data)
        if sequence > self._newest:
            self._newest = sequence
        low = bisect_right(starts, offset)
        if low and segments[low - 1][0] > offset:
            low -= 1
        elif low == len(starts) or starts[low] >= end:
            starts.insert(low, offset)
            segments.insert(low, (end, data, sequence))
            return
        high = bisect_left(starts, end, low)
        new_starts, new_segments = [offset], [(end, data, sequence)]
        first, last = starts[low], starts[high - 1]
        if first < offset:
            _end, old, old_sequence = segments[low]
            new_starts.insert(0, first)
            new_segments.insert(0, (offset, old[: offset - first], old_sequence))
        last_end, old, old_sequence = segments[high - 1]
        if last_end > end:
            new_starts.append(end)
            new_segments.append((last_end, old[end - last :], old_sequence))
        starts[low:high] = new_starts
        segments[low:high] = new_segments

    def snapshot(self) -> list[tuple[int, _Segment]]:
        """All of it, in order: where each segment begins, and (end, data, sequence)."""
        return list(zip(self._starts, self._segments, strict=True))

    def forget(self, limit: int) -> None:
        """What came with a record before *limit* is in place now."""
        if self._newest < limit:
            self._starts, self._segments = [], []
            return
        kept = [index for index, segment in enumerate(self._segments) if segment[2] >= limit]
        self._starts = [self._starts[index] for index in kept]
        self._segments = [self._segments[index] for index in kept]
