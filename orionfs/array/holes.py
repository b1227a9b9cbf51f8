"""Holes: where members have never stored anything, so that background jobs need not look."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from orionfs.array.member import Member
from orionfs.extents import Kind


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
