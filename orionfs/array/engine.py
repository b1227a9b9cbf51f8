"""Engine: how one family of levels turns requests on the array into transfers on its members.

An engine knows layouts, redundancy and what to do when a member fails a request.  It knows nothing of superblocks or of
clean and dirty: that is the array's part, which it reaches through :class:`Faults`.
"""

from __future__ import annotations

import abc
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Protocol

from orionfs.array.layout import Layout, Piece
from orionfs.array.member import Member
from orionfs.array.sync import SyncState
from orionfs.array.transfer import Failure, plan, read_all, write_all, zero_all
from orionfs.buffers import Buffer
from orionfs.errors import OrionError
from orionfs.extents import Extent, Kind
from orionfs.units import GIB


class Faults(Protocol):
    """What an engine tells its array."""

    async def member_failed(self, slot: int, error: OrionError) -> None:
        """The member did not carry out a request that it must: record that durably before this returns.

        Raises :class:`~orionfs.errors.MediaError` if the array cannot go on without it.
        """

    def sync_wanted(self) -> None:
        """There are new suspect units."""


class Engine(abc.ABC):
    """The data path of an array.  Requests are checked already: aligned, inside the array, not empty."""

    #: Whether losing a member can be survived, which is also whether clean and dirty mean anything.
    redundant = False

    def __init__(self, members: Sequence[Member], layout: Layout, faults: Faults, unit_size: int = 1 << 16) -> None:
        self.members = members
        self.layout = layout
        self.faults = faults
        self.sync = SyncState(unit_size, 0)
        self.stripe_width = 0
        self.full_stripe_writes = 0
        self.partial_stripe_writes = 0
        self.stripe_reads = 0

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """The part of :meth:`StorageDevice.try_read` that pays: one buffer, one healthy member."""
        if len(buffers) != 1:
            return False
        slot, where, run = self.layout.locate(offset)
        if len(buffers[0]) > run:
            return False
        member = self.members[slot]
        return member.active and member.present.try_read(member.data_offset + where, buffers)

    @abc.abstractmethod
    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        """Fill *buffers* from any copy that can be trusted."""

    @abc.abstractmethod
    async def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        """Store to every active member concerned, redundancy included."""

    @abc.abstractmethod
    async def write_zeroes(self, offset: int, length: int) -> None:
        """Zero the range, redundancy included, releasing space where that is possible."""

    async def discard(self, offset: int, length: int) -> None:
        """Release what can be released without breaking redundancy."""
        await self.write_zeroes(offset, length)

    @property
    def can_sync(self) -> bool:
        """Whether there are members enough to prove redundancy with."""
        return False

    def member_lost(self, slot: int) -> None:  # noqa: B027 - a level without redundancy has nothing to note
        """The member in *slot* has just become inactive."""

    async def sync_units(self, first: int, count: int) -> None:
        """Make the redundancy of *count* units agree with their data; under the locks that writes take."""
        raise AssertionError("this level has nothing to sync")

    # --- facts -----------------------------------------------------------------------------------------------------

    def allocated(self) -> int:
        """Bytes of array data that take space on the members."""
        return sum(member.present.allocated() for member in self.members if member.active)

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        """The range as extents, mapped from those of the members."""
        pending: Extent | None = None
        async for extent in self._extents(offset, length):
            if pending is not None and pending.kind is extent.kind:
                pending = Extent(pending.offset, pending.length + extent.length, pending.kind)
                continue
            if pending is not None:
                yield pending
            pending = extent
        if pending is not None:
            yield pending

    async def _extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        while length:
            step = min(length, GIB)
            pieces = list(self.layout.pieces(offset, step))
            data = {slot: await self._data_of(slot, low, high) for slot, (low, high) in _reach(pieces).items()}
            for piece in pieces:
                for extent in _cut(piece, data[piece.slot], offset):
                    yield extent
            offset += step
            length -= step

    async def _data_of(self, slot: int, low: int, high: int) -> list[tuple[int, int]]:
        """The parts of [low, high) of a member's data area that may hold something other than zeros."""
        member = self.members[slot]
        if not member.active:
            return [(low, high)]
        base = member.data_offset
        return [
            (extent.offset - base, extent.end - base)
            async for extent in member.present.extents(base + low, high - low)
            if extent.kind is Kind.DATA
        ]


def _reach(pieces: Sequence[Piece]) -> dict[int, tuple[int, int]]:
    """For each slot the smallest range of its data area that holds all its *pieces*."""
    reach: dict[int, tuple[int, int]] = {}
    for slot, where, _at, length in pieces:
        low, high = reach.get(slot, (where, where))
        reach[slot] = min(low, where), max(high, where + length)
    return reach


def _cut(piece: Piece, data: Sequence[tuple[int, int]], base: int) -> Iterator[Extent]:
    """*piece* as extents of the array, given the parts of its member that hold *data*, in order."""
    at, end = piece.offset, piece.offset + piece.length
    shift = base + piece.at - piece.offset
    index = max(bisect_left(data, (at, at)) - 1, 0)
    while at < end and index < len(data):
        low, high = data[index]
        index += 1
        if high <= at:
            continue
        if low >= end:
            break
        if low > at:
            yield Extent(at + shift, low - at, Kind.HOLE)
            at = low
        yield Extent(at + shift, min(high, end) - at, Kind.DATA)
        at = min(high, end)
    if at < end:
        yield Extent(at + shift, end - at, Kind.HOLE)


class MappedEngine(Engine):
    """Levels without redundancy: linear and RAID 0.  A member that fails a request fails the request."""

    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        transfers = plan(self.layout.pieces(offset, length), buffers)
        self._raise(await read_all(self.members, transfers), "read")

    async def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        transfers = plan(self.layout.pieces(offset, length), buffers)
        self._raise(await write_all(self.members, transfers), "write")

    async def write_zeroes(self, offset: int, length: int) -> None:
        transfers = plan(self.layout.pieces(offset, length), ())
        self._raise(await zero_all(self.members, transfers), "write")

    def _raise(self, failures: list[Failure], operation: str) -> None:
        for transfer, _error in failures:
            counters = self.members[transfer.slot].counters
            if operation == "read":
                counters.read_errors += 1
            else:
                counters.write_errors += 1
        if failures:
            raise failures[0].error
