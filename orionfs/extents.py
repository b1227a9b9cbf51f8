"""Extents: which parts of a range hold data, read as zeros, or are not allocated at all."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Kind(enum.Enum):
    """What is known of an extent without reading it."""

    DATA = "data"  # may hold anything
    ZERO = "zero"  # reads as zeros, but space is allocated for it
    HOLE = "hole"  # reads as zeros and takes no space


class Extent(NamedTuple):
    """*length* bytes from *offset* that are of one *kind*."""

    offset: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        """First byte after the extent."""
        return self.offset + self.length


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbors of one kind.  *extents* must be in order and without gaps; empty ones vanish."""
    pending: Extent | None = None
    for extent in extents:
        if extent.length == 0:
            continue
        if pending is not None and pending.kind is extent.kind and pending.end == extent.offset:
            pending = Extent(pending.offset, pending.length + extent.length, pending.kind)
            continue
        if pending is not None:
            yield pending
        pending = extent
    if pending is not None:
        yield pending


def overlaps(start: int, end: int, other_start: int, other_end: int) -> bool:
    """Whether the half-open ranges [start, end) and [other_start, other_end) share a byte."""
    return start < other_end and other_start < end
