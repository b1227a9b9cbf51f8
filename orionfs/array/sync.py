"""SyncState: how much of an array's redundancy can be believed.

A *unit* is the smallest piece whose redundancy is checked as a whole: a stripe of a parity array, 64 KiB of a mirror.
After an unclean stop everything from some unit on is unproven; after a write that failed halfway, single units are.
"""

from __future__ import annotations


class SyncState:
    """Which units are proven to agree with their redundancy."""

    __slots__ = ("position", "suspects", "unit_count", "unit_size")

    def __init__(self, unit_size: int, unit_count: int) -> None:
        self.unit_size = unit_size
        self.unit_count = unit_count
        #: Units below it are in sync; ``unit_count`` when all are.
        self.position = unit_count
        #: Single units that a failed or cancelled write left half done.
        self.suspects: set[int] = set()

    @property
    def needed(self) -> bool:
        """Whether anything is unproven."""
        return self.position < self.unit_count or bool(self.suspects)

    def trusted(self, first: int, end: int) -> bool:
        """Whether the redundancy of the units [first, end) may be used to reconstruct data."""
        if end > self.position:
            return False
        return not self.suspects or self.suspects.isdisjoint(range(first, end))

    def suspect(self, first: int, end: int) -> None:
        """The units [first, end) may be half written."""
        self.suspects.update(range(first, end))

    def checkpoint(self) -> int:
        """Bytes of member data below which everything is in sync: what the superblock may record."""
        lowest = min(self.suspects, default=self.unit_count)
        return min(self.position, lowest) * self.unit_size
