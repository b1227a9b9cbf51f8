"""SyncState: how much of an array's redundancy can be believed.

A *unit* is the smallest piece whose redundancy is checked as a whole: a stripe of a parity array, 64 KiB of a mirror.
After an unclean stop everything from some unit on is unproven; after a write that failed halfway, single units are.
"""

from __future__ import annotations


class SyncState:
    """Which units are proven to agree with their redundancy."""

    __slots__ = ("believed", "position", "suspects", "unit_count", "unit_size", "unproven")

    def __init__(self, unit_size: int, unit_count: int) -> None:
        self.unit_size = unit_size
        self.unit_count = unit_count
        #: Units below it are in sync; ``unit_count`` when all are.
        self.position = unit_count
        #: Single units that a failed or cancelled write left half done.
        self.suspects: set[int] = set()
        #: Units that a bitmap lists after an unclean stop.
        self.unproven: set[int] = set()
        #: Whether a log was replayed after the unclean stop.  What is unproven then can only be stripes that were being
        #: written as a whole, so that the redundancy of everything else may be used.
        self.believed = False

    @property
    def needed(self) -> bool:
        """Whether anything is unproven."""
        return self.position < self.unit_count or bool(self.suspects) or bool(self.unproven)

    def trusted(self, first: int, end: int) -> bool:
        """Whether the redundancy of the units [first, end) may be used to reconstruct data."""
        if self.suspects and not self.suspects.isdisjoint(range(first, end)):
            return False
        if self.believed:
            return True
        return end <= self.position and (not self.unproven or self.unproven.isdisjoint(range(first, end)))

    def suspect(self, first: int, end: int) -> None:
        """The units [first, end) may be half written."""
        self.suspects.update(range(first, end))

    def doubt(self, low: int, high: int) -> None:
        """The bytes [low, high) (sync addresses) were marked in a bitmap when the array was not closed properly."""
        self.unproven.update(range(low // self.unit_size, min(-(-high // self.unit_size), self.unit_count)))

    def prove(self, first: int, end: int) -> None:
        """The units [first, end) agree with their redundancy."""
        units = range(first, end)
        self.suspects.difference_update(units)
        self.unproven.difference_update(units)
        if first <= self.position < end:
            self.position = end

    def settle(self) -> None:
        """There is nothing left that could disagree."""
        self.position = self.unit_count
        self.suspects.clear()
        self.unproven.clear()

    def next_run(self, most: int) -> tuple[int, int] | None:
        """The next units to prove, [first, end) with at most *most* of them; those of a resync first."""
        if self.position < self.unit_count:
            return self.position, min(self.position + most, self.unit_count)
        waiting = self.unproven or self.suspects
        if not waiting:
            return None
        first = min(waiting)
        end = first + 1
        while end < first + most and end in waiting:
            end += 1
        return first, end

    def checkpoint(self) -> int:
        """Bytes of sync addresses below which everything is in sync: what the superblock may record."""
        lowest = min(min(self.suspects, default=self.unit_count), min(self.unproven, default=self.unit_count))
        return min(self.position, lowest) * self.unit_size
