"""Holes: where members have never stored anything, so that background jobs need not look."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from orionfs.array.member import Member
from orionfs.extents import Kind
from orionfs.units import KIB, MIB

#: How much is taken to be in use because what is before it is.
_SHORTEST, _LONGEST = 64 * KIB, 8 * MIB


async def hole_length(members: Sequence[Member], start: int, end: int) -> int:
    """How many bytes from *start* of their data areas, up to *end*, no one of *members* has stored anything in."""
    nearest = end
    for member in members:
        base = member.data_offset
        reach = min(nearest, member.data_size) - start
        if reach <= 0:
            continue
        async with aclosing(member.present.extents(base + start, reach)) as extents:
            async for extent in extents:
                if extent.kind is Kind.DATA:
                    nearest = min(nearest, extent.offset - base)
                    break
    return max(nearest - start, 0)


class Lookout:
    """When a job that goes through an array should look for holes again.

    Looking takes as long as moving hundreds of KiB, so the longer it has found no hole, the rarer it is.  What is moved
    in vain because of that is at most 8 MiB between two looks.
    """

    __slots__ = ("_next", "_stretch")

    def __init__(self) -> None:
        self._next = 0
        self._stretch = 0

    def due(self, position: int) -> bool:
        """Whether to look at *position*; those of one pass only grow."""
        return position >= self._next

    def saw(self, position: int, *, hole: bool) -> None:
        """There is a *hole* at *position*, or none."""
        self._stretch = 0 if hole else min(max(2 * self._stretch, _SHORTEST), _LONGEST)
        self._next = position + self._stretch
