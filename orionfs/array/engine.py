"""Engine: how one family of levels turns requests on the array into transfers on its members.

An engine knows layouts, redundancy and what to do when a member fails a request.  It knows nothing of superblocks or of
clean and dirty: that is the array's part, which it reaches through :class:`Faults`.
"""

from __future__ import annotations

import abc
from bisect import bisect_left
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from orionfs.array.holes import hole_length
from orionfs.array.layout import Layout, Piece
from orionfs.array.member import Member
from orionfs.array.policies import Policies
from orionfs.array.sync import SyncState
from orionfs.array.transfer import Failure, Transfer, plan, read_all, write_all, zero_all
from orionfs.buffers import Buffer
from orionfs.clock import Clock, SystemClock
from orionfs.errors import DeviceError, OrionError
from orionfs.extents import Extent, Kind
from orionfs.units import GIB


class Faults(Protocol):
    """What an engine tells its array."""

    async def member_failed(self, member: Member, error: OrionError) -> None:
        """The member (or the copy that is made of one) did not carry out a request that it must.

        On record durably when this returns.  Raises :class:`~orionfs.errors.MediaError` if the array cannot go on
        without it.
        """

    async def read_corrected(self, member: Member) -> None:
        """A place that could not be read has been rewritten from redundancy; too many of them fail the member."""

    def sync_wanted(self) -> None:
        """There are new suspect units."""


class StripeLog(Protocol):
    """What stands between a parity engine and its members, so that no cut leaves a stripe half written.

    A journal or a PPL.  The engine calls it under the locks of the stripes concerned.
    """

    async def write(
        self, transfers: list[Transfer], rows: Sequence[RowWrite], put: Callable[[list[Transfer]], Awaitable[None]]
    ) -> None:
        """Write *transfers*, all that *rows* need, such that every cut leaves them recoverable.

        When this returns a kill does not lose them.  It may put them in place later, through *put*, which writes,
        records failed members and raises what the request has to be failed with; until then they are in the members'
        ``pending``, which :func:`~orionfs.array.transfer.read_all` sees.
        """

    async def settle(self, first: int, end: int) -> None:
        """Return when nothing of the stripes [first, end) is pending, nor would be put in place by a replay.

        For whoever is about to write in place without :meth:`write`.
        """


class Cell(NamedTuple):
    """New data for the bytes [low, high) of the chunk in one column of a stripe."""

    column: int
    low: int
    high: int
    data: memoryview


class RowWrite(NamedTuple):
    """What a request changes in stripe *row*: the *cells*, and the parity over the bytes [low, high) of its chunk.

    *parity* is the new P over that span; None if its member is not there.  A whole stripe has no cells, 0 and the chunk
    size as span, and None.
    """

    row: int
    cells: tuple[Cell, ...]
    low: int
    high: int
    parity: memoryview | None


class TargetFailed(DeviceError):
    """The member that is being filled did not take what was written to it."""


class Mismatch(NamedTuple):
    """A place where redundancy does not agree: *offset* and *length* are sync addresses.

    *slots* are the members that do not agree with the others, one if it is known which is wrong; empty if nobody can
    tell.  *repaired*: it agrees now.  *by_rule*: not because the wrong copy was known, but because one had to win.
    """

    offset: int
    length: int
    slots: tuple[int, ...]
    repaired: bool = False
    by_rule: bool = False


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
        #: A parity engine writes through it; None: in place, with nothing but the dirty mark to say so.
        self.log: StripeLog | None = None
        #: What may be chosen and changed at any time, and what time it is: set by whoever builds the array.
        self.policies = Policies()
        self.clock: Clock = SystemClock()
        #: Whether nothing may be written at all, not even to mend what cannot be read.
        self.read_only = False

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """The part of :meth:`StorageDevice.try_read` that pays: one buffer, one healthy member."""
        if len(buffers) != 1:
            return False
        slot, where, run = self.layout.locate(offset)
        if len(buffers[0]) > run:
            return False
        member = self.members[slot]
        if not member.plain(where, where + len(buffers[0])):
            return False
        return member.present.try_read(member.data_offset + where, buffers)

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

    def member_changed(self) -> None:  # noqa: B027 - a level without redundancy has nothing to note
        """A member has come, gone, or got a copy: ``valid``, ``active`` or ``copy`` of some member has another value.

        Not called for each step of a rebuild, only at its beginning and end.
        """

    # --- redundancy ------------------------------------------------------------------------------------------------
    #
    # Two address spaces.  *Sync addresses* are what a resync, a scrub and the bits of a bitmap count: bytes of member
    # data at every level but RAID 10, where they are bytes of the array.  *Member addresses* are bytes of one member's
    # data area: what a rebuild counts.

    #: What a rebuild fills: the bytes [0, rebuild_end) of a member's data area, in multiples of rebuild_unit.
    rebuild_unit = 0
    rebuild_end = 0

    def sync_range(self, offset: int, length: int) -> tuple[int, int]:
        """The sync addresses whose redundancy a write of the array's bytes [offset, offset + length) changes."""
        return offset, offset + length

    def sync_ranges_of(self, slot: int, low: int, high: int) -> Sequence[tuple[int, int]]:
        """The sync addresses that have a part in the bytes [low, high) of the data area of the member in *slot*."""
        return [(low, high)]

    async def unused(self, low: int, high: int) -> int:
        """How many bytes from the sync address *low* on, up to *high*, no member has ever stored anything for."""
        return await hole_length([member for member in self.members if member.active], low, high)

    async def unused_of(self, slot: int, low: int, high: int) -> int:
        """How many bytes from *low* on, up to *high*, of the data area of the member in *slot* would be zeros.

        Because no other member has ever stored anything that a rebuild would make them from.
        """
        return await hole_length([member for member in self.members if member.active], low, high)

    async def sync_units(self, first: int, count: int) -> None:
        """Make the redundancy of *count* units agree with their data; under the locks that writes take."""
        raise AssertionError("this level has nothing to sync")

    async def scrub_units(self, first: int, count: int, *, repair: bool) -> list[Mismatch]:
        """Compare the redundancy of *count* units; what does not agree.  Under the locks that writes take.

        With *repair*, mend what can be mended without guessing, or by the rule that the level has for guessing.
        Raises what a read raises that redundancy cannot stand in for.
        """
        raise AssertionError("this level has nothing to scrub")

    async def rebuild(self, target: Member, low: int, high: int) -> None:
        """Fill the bytes [low, high) of *target*'s data area from the others and set its ``valid`` to *high*.

        *target* is a member of this engine that is not active, or the copy that is made of one; *low* is its ``valid``;
        all multiples of ``rebuild_unit`` but for the end.  Under the locks that writes take, held until ``valid`` is
        set.  Raises :class:`TargetFailed` if *target* cannot be written, else what a read raises; ``valid`` is then as
        it was.
        """
        raise AssertionError("this level has nothing to rebuild from")

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
            pieces = list(self._data_pieces(offset, step))
            data = {slot: await self._data_of(slot, low, high) for slot, (low, high) in _reach(pieces).items()}
            for piece in pieces:
                for extent in _cut(piece, data[piece.slot], offset):
                    yield extent
            offset += step
            length -= step

    def _data_pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Where the data of the range are, once each."""
        return self.layout.pieces(offset, length)

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
        for _transfer, _error, member in failures:
            counters = member.counters
            if operation == "read":
                counters.read_errors += 1
            else:
                counters.write_errors += 1
        if failures:
            raise failures[0].error
