"""RAID 10: chunks dealt out over the members, with several copies of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orionfs.array.copies import UNIT
from orionfs.array.copies_upkeep import CopiesUpkeep
from orionfs.array.engine import Faults
from orionfs.array.holes import hole_length
from orionfs.array.member import Member
from orionfs.array.raid10_layout import Held, Raid10Layout


class Raid10Engine(CopiesUpkeep):
    """Any of MD's layouts.  Sync addresses are array addresses; units are chunks, or parts of large ones."""

    layout: Raid10Layout

    def __init__(self, members: Sequence[Member], layout: Raid10Layout, faults: Faults) -> None:
        super().__init__(members, layout, faults, layout.groups, min(layout.chunk, UNIT))
        self.rebuild_end = layout.rows * layout.chunk

    def _find(self, offset: int) -> tuple[int, int, int]:
        return self.layout.find(offset)

    def _held(self, slot: int, low: int, high: int) -> Iterator[Held]:
        unit = self.sync.unit_size
        for at, offset, length in self.layout.held(slot, low, high):
            end = at + length
            while at < end:
                cut = min((at // unit + 1) * unit, end)
                yield Held(at, offset, cut - at)
                offset += cut - at
                at = cut

    def sync_ranges_of(self, slot: int, low: int, high: int) -> Sequence[tuple[int, int]]:
        """The parts of chunks that are there, in order; ask for a few hundred chunks at a time."""
        merged: list[tuple[int, int]] = []
        for at, _offset, length in sorted(self.layout.held(slot, low, min(high, self.rebuild_end))):
            if merged and merged[-1][1] == at:
                merged[-1] = merged[-1][0], at + length
            else:
                merged.append((at, at + length))
        return merged

    def _spans(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        return self.layout.spans(low, high)

    def _reach(self, slot: int, low: int, high: int) -> tuple[int, int]:
        chunk = self.layout.chunk
        if low // chunk == (high - 1) // chunk:  # a part of a large chunk
            held = list(self.layout.held(slot, low, high))
            return (held[0].at, held[-1].at + held[-1].length) if held else (0, 0)
        return self.layout.reach(low, high)

    async def unused(self, low: int, high: int) -> int:
        layout = self.layout
        first, end = layout.logical_range(low, high)
        unused = await self._unused_rows([member for member in self.members if member.active], first, end)
        return max(min(layout.end_before(first + unused), high) - low, 0)

    async def unused_of(self, slot: int, low: int, high: int) -> int:
        layout, chunk = self.layout, self.layout.chunk
        low, high = next(layout.spans(low, high))
        offset, stop = layout.reach(low, high)
        if offset == stop:
            return high - low
        first, end = layout.logical_range(offset, stop)
        sharing = {place.slot for group in layout.groups if any(each.slot == slot for each in group) for place in group}
        members = [member for member in self.members if member.active and member.slot in sharing]
        unused = await self._unused_rows(members, first, end)
        if first + unused == end:
            return high - low
        return max(min(layout.safe_end(low // chunk, first + unused) * chunk, high) - low, 0)

    async def _unused_rows(self, members: Sequence[Member], first: int, end: int) -> int:
        """How many logical rows from *first*, up to *end*, *members* have never stored anything in."""
        chunk = self.layout.chunk
        count = end - first
        for start, stop in self.layout.areas(first, end):
            empty = await hole_length(members, start * chunk, stop * chunk) // chunk
            count = min(count, empty * (end - first) // (stop - start))
        return count

    def allocated(self) -> int:
        active = [member.present.allocated() for member in self.members if member.active]
        if not active:
            return 0
        return sum(active) * len(self.members) // (len(active) * self.layout.copies)
