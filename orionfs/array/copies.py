"""Levels that keep copies, RAID 1 and RAID 10: reads from one good copy, writes to all.

While copies may differ (after an unclean stop, a write that failed halfway, or while one is under way) every read of a
block comes from one fixed copy, so that a block never flips between two values.  Everywhere else a policy chooses.

The array is cut into *units*, which are locked by writers and by whoever compares or mends.  Whoever reads takes no
lock until something goes wrong.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

from orionfs.array.engine import Engine, Faults
from orionfs.array.layout import Layout, Piece
from orionfs.array.member import Member
from orionfs.array.raid10_layout import Held, Place
from orionfs.array.read_policy import CopyChoice, Readable, RoundRobin, make_choice
from orionfs.array.transfer import Failure, Transfer, join, plan, read_all, write_all, zero_all
from orionfs.buffers import Buffer, total_length, window
from orionfs.errors import IntegrityError, MediaError, NoSpace, OrionError, ReadOnly
from orionfs.rangelock import RangeLock
from orionfs.units import KIB

#: The largest unit, in bytes of the array.
UNIT = 64 * KIB
#: Where no copy can be read as a whole, each may still give some blocks of this size.
_BLOCK = 4 * KIB


class Segment(NamedTuple):
    """*length* bytes of a request, at *at* in its buffers, whose copies lie at *base* plus the deltas of a *group*."""

    group: int
    base: int
    at: int
    length: int


class Source(NamedTuple):
    """Where a member holds something."""

    member: Member
    offset: int


_Act = Callable[[Sequence[Member], list[Transfer]], Awaitable[list[Failure]]]


class CopiesEngine(Engine):
    """The data path.  *groups* lists, for each kind of chunk, where its copies are; the first one first."""

    redundant = True

    def __init__(
        self,
        members: Sequence[Member],
        layout: Layout,
        faults: Faults,
        groups: Sequence[tuple[Place, ...]],
        unit: int,
    ) -> None:
        super().__init__(members, layout, faults, unit)
        self.sync.unit_count = self.sync.position = -(-layout.size // unit)
        self.rebuild_unit = unit
        self._groups = groups
        self._lock = RangeLock()
        self._policy = ""
        self._choice: CopyChoice = RoundRobin()
        self._stumbled: tuple[int, Place] | None = None
        #: How many writes are under way, so that copies may differ for a moment.
        self._changing = 0
        self.member_changed()

    # --- where things are ------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def _find(self, offset: int) -> tuple[int, int, int]:
        """(group, base, run) of array byte *offset*, and how many bytes follow it there."""

    @abc.abstractmethod
    def _held(self, slot: int, low: int, high: int) -> Iterator[Held]:
        """What the bytes [low, high) of the data area of the member in *slot* hold, in parts as short as a unit."""

    def _segments(self, offset: int, length: int) -> Iterator[Segment]:
        """The range cut where the places change."""
        at = 0
        while at < length:
            group, base, run = self._find(offset + at)
            take = min(run, length - at)
            yield Segment(group, base, at, take)
            at += take

    def member_changed(self) -> None:
        members = self.members
        self._readable: list[Readable] = []
        self._targets: list[tuple[Place, ...]] = []
        for group in self._groups:
            active = [place for place in group if members[place.slot].active]
            eager = [place for place in active if not members[place.slot].write_mostly]
            self._readable.append(Readable.of(eager or active))
            kept = [place for place in group if members[place.slot].active or members[place.slot].state == "rebuilding"]
            self._targets.append(tuple(kept))
        several = any(len(kept) > 1 for kept in self._targets)
        self._several = several or any(member.copy is not None for member in members)
        if not self._several:
            self.sync.settle()  # a lone copy agrees with itself

    @property
    def can_sync(self) -> bool:
        return self._several

    def _sources(self, offset: int, length: int) -> list[Source]:
        """Every member that has all of a part of one chunk, the copies being made included; the fixed copy first."""
        group, base, _run = self._find(offset)
        first = self._readable[group].places
        rest = [place for place in self._groups[group] if place not in first]
        found = [Source(self.members[place.slot], base + place.delta) for place in (*first, *rest)]
        found += [Source(member.copy, where) for member, where in found if member.copy is not None]
        return [source for source in found if source.offset + length <= source.member.valid]

    def _units(self, offset: int, length: int) -> tuple[int, int]:
        """The units, [first, end), that hold a part of the range."""
        unit = self.sync.unit_size
        return offset // unit, -(-(offset + length) // unit)

    # --- reads -----------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        group, base, run = self._find(offset)
        if length > run or (self.sync.suspects and self._suspected(offset, length)):
            return False
        place = self._place(group, base, offset, length)
        member = self.members[place.slot]
        where = base + place.delta
        if member.bad and member.bad.touches(where, where + length):
            return False
        try:
            if not member.present.try_read(member.data_offset + where, buffers):
                return False
        except OrionError:
            self._stumbled = offset, place
            return False
        if self._choice.curious:
            self._choice.served(place.slot, where + length)
        return True

    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        if self.sync.suspects and self._suspected(offset, length):
            await self._decide(offset, length)
        group, base, run = self._find(offset)
        if length <= run:
            place = self._stumbled_at(offset) or self._place(group, base, offset, length)
            fixed = place is self._readable[group].places[0]
            low = base + place.delta
            transfers = [Transfer(place.slot, low, low + length, [memoryview(buffer) for buffer in buffers])]
        else:
            fixed = not self._free(offset, length)
            transfers = self._plan_read(offset, buffers, length, fixed=fixed)
        for failure in await read_all(self.members, transfers, self._choice):
            await self._recover(failure)
        if self._changing and not fixed and self._lock.busy(*self._units(offset, length)):
            # A write has begun meanwhile.  What was read may be from a copy that has it already, and the next reader
            # will be served from the fixed one, which may not have it yet.
            for failure in await read_all(self.members, self._plan_read(offset, buffers, length, fixed=True)):
                await self._recover(failure)

    def _suspected(self, offset: int, length: int) -> bool:
        return not self.sync.suspects.isdisjoint(range(*self._units(offset, length)))

    async def _decide(self, offset: int, length: int) -> None:
        """Before somebody sees what a half-done write has left, have all copies agree on it, if that can be done.

        So nobody sees anything else later, even if the fixed copy is lost before the resync comes by.
        """
        if self.read_only or not self._several:
            return
        for unit in sorted(self.sync.suspects.intersection(range(*self._units(offset, length)))):
            try:
                await self.sync_units(unit, 1)
            except OrionError:
                continue  # the resync will meet it too, and report it; until then there is the fixed copy
            self.sync.prove(unit, unit + 1)

    def _stumbled_at(self, offset: int) -> Place | None:
        """The copy that an attempt to read at once has just failed on: it is to be mended, not to be passed by."""
        if self._stumbled is None:
            return None
        (at, place), self._stumbled = self._stumbled, None
        return place if at == offset and self.members[place.slot].active else None

    def _place(self, group: int, base: int, offset: int, length: int) -> Place:
        """The copy to read a part of one chunk from.  Raises MediaError if there is none."""
        readable = self._readable[group]
        places = readable.places
        if len(places) > 1 and (not (self._changing or self.sync.needed) or self._free(offset, length)):
            return self._choose(readable, base)
        if not places:
            raise MediaError("no copy is left to read from")
        return places[0]

    def _free(self, offset: int, length: int) -> bool:
        """Whether all copies of the range are the same, so that any may be read."""
        units = self._units(offset, length)
        return self.sync.trusted(*units) and not (self._changing and self._lock.busy(*units))

    def _choose(self, readable: Readable, base: int) -> Place:
        policy = self.policies.read_policy
        if policy is not self._policy:
            self._policy = policy
            self._choice = make_choice(policy, len(self.members), self.clock)
        return self._choice.choose(readable, base)

    def _plan_read(self, offset: int, buffers: Sequence[Buffer], length: int, *, fixed: bool) -> list[Transfer]:
        """The transfers for a range of several chunks, from the *fixed* copies or else long ones rather than many."""
        pieces: list[Piece] = []
        ends: dict[int, int] = {}
        for group, base, at, take in self._segments(offset, length):
            readable = self._readable[group]
            places = readable.places
            if not places:
                raise MediaError("no copy is left to read from")
            place = places[0]
            if not fixed and len(places) > 1:
                going_on = [each for each in places if ends.get(each.slot) == base + each.delta]
                place = going_on[0] if going_on else self._choose(readable, base)
            where = base + place.delta
            ends[place.slot] = where + take
            pieces.append(Piece(place.slot, where, at, take))
        return plan(pieces, buffers)

    async def _recover(self, failure: Failure) -> None:
        """Serve a read that failed from other copies, unit by unit, under their locks."""
        failure.member.counters.read_errors += 1
        for part, views in self._parts(failure):
            first, end = self._units(part.at, part.length)
            if not self._lock.try_acquire(first, end):
                await self._lock.acquire(first, end)
            try:
                await self._serve(failure, part, views)
            finally:
                self._lock.release(first, end)

    def _parts(self, failure: Failure) -> Iterator[tuple[Held, list[memoryview]]]:
        """What was to be read by a transfer that failed, and where it was to go."""
        transfer = failure.transfer
        for part in self._held(failure.member.slot, transfer.offset, transfer.end):
            yield part, window(transfer.buffers, part.offset - transfer.offset, part.length)

    async def _serve(self, failure: Failure, part: Held, views: list[memoryview]) -> None:
        """Fill *views* with what a member could not be read for; mend the member, or fail it.

        The caller holds the lock.  Raises the member's error if no other copy has it.
        """
        transfer, error, bad = failure
        sources = self._sources(part.at, part.length)
        own = next((source for source in sources if source.member is bad), None)
        # Where copies may differ, nobody shall see another value without need: the fixed copy gets another chance.  And
        # the trouble of a transfer of many parts may lie in another one.
        again = _of_medium(error)
        if own is not None and self.sync.trusted(*self._units(part.at, part.length)):
            again = again and part.length < transfer.end - transfer.offset
            sources.sort(key=lambda source: source is not own)
        failed: list[tuple[Source, OrionError]] = []
        for source in sources:
            trouble = error if source is own and not again else await _read_one(source, part.length, views)
            if trouble is None:
                break
            if source is not own:
                source.member.counters.read_errors += 1
            failed.append((source, trouble))
        else:
            if not await self._serve_blocks(sources, part.length, views):
                raise error
        if own is not None and own is not source and all(own is not each for each, _trouble in failed):
            failed.append((own, error))
        for each, trouble in failed:
            await self._mend(each, trouble, part.length, views)

    async def _serve_blocks(self, sources: list[Source], length: int, views: list[memoryview]) -> bool:
        """Fill *views* block by block, each from whichever of *sources* can be read; False if that cannot be done."""
        for at in range(0, length, _BLOCK):
            take = min(_BLOCK, length - at)
            block = window(views, at, take)
            for member, offset in sources:
                if await _read_one(Source(member, offset + at), take, block) is None:
                    break
            else:
                return False
        return True

    async def _mend(self, source: Source, error: OrionError, length: int, views: list[memoryview]) -> None:
        """Write what a member could not be read for to it, if it was the medium, or else fail it."""
        member, offset = source
        if not _of_medium(error):
            await self.faults.member_failed(member, error)
            return
        if self.read_only:
            return
        for failure in await write_all([member], [Transfer(0, offset, offset + length, views)]):
            failure.member.counters.write_errors += 1
            if isinstance(failure.error, NoSpace | ReadOnly):
                return  # it stays as bad as it was
            await self.faults.member_failed(failure.member, failure.error)
        if member.active:
            await self.faults.read_corrected(member)

    async def _read_held(self, crew: Sequence[Member], transfers: list[Transfer]) -> None:
        """Read from *crew*, by their indexes in it, for somebody who holds the locks; what fails comes from others."""
        for failure in await read_all(crew, transfers):
            failure.member.counters.read_errors += 1
            for part, views in self._parts(failure):
                await self._serve(failure, part, views)

    # --- writes ----------------------------------------------------------------------------------------------------

    # Not coroutines themselves: that is one frame less in the way of every small write.

    def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> Coroutine[Any, Any, None]:
        return self._put(offset, [memoryview(buffer) for buffer in buffers], length, write_all)

    def write_zeroes(self, offset: int, length: int) -> Coroutine[Any, Any, None]:
        return self._put(offset, [], length, zero_all)

    async def _put(self, offset: int, views: list[memoryview], length: int, act: _Act) -> None:
        """Do *act*, a write, on every copy of the range."""
        unit = self.sync.unit_size
        first, end = offset // unit, -(-(offset + length) // unit)
        if not self._lock.try_acquire(first, end):
            await self._lock.acquire(first, end)
        self._changing += 1
        try:
            transfers = self._plan_write(offset, views, length)
            try:
                failures = await act(self.members, transfers)
            except BaseException:
                self._suspect(first, end)
                raise
            if failures:
                await self._settle(failures, first, end)
        finally:
            self._changing -= 1
            self._lock.release(first, end)

    def _plan_write(self, offset: int, views: list[memoryview], length: int) -> list[Transfer]:
        group, base, run = self._find(offset)
        if length <= run:
            self._check_written(group)
            low, high = base, base + length
            return [Transfer(slot, low + delta, high + delta, views) for slot, delta, _zone in self._targets[group]]
        segments = list(self._segments(offset, length))
        pieces: list[Piece] = []
        for number in range(len(self._groups[0])):  # the same copy of all chunks, for they are often neighbors
            for group, base, at, take in segments:
                self._check_written(group)
                for slot, delta, _zone in self._targets[group][number : number + 1]:
                    pieces.append(Piece(slot, base + delta, at, take))
        return join(plan(pieces, views))

    def _check_written(self, group: int) -> None:
        if not self._readable[group].places:
            raise MediaError("no copy is left to write to")

    async def _settle(self, failures: Sequence[Failure], first: int, end: int) -> None:
        """A write is done when every copy that failed it is recorded as failed and one copy has it."""
        full: OrionError | None = None
        for _transfer, error, member in failures:
            member.counters.write_errors += 1
            if isinstance(error, NoSpace) and member.active:
                full = error
            else:
                await self.faults.member_failed(member, error)
        if full is not None:
            self._suspect(first, end)
            raise full

    def _suspect(self, first: int, end: int) -> None:
        if self._several:
            self.sync.suspect(first, end)
            self.faults.sync_wanted()

    # --- facts -----------------------------------------------------------------------------------------------------

    def _data_pieces(self, offset: int, length: int) -> Iterator[Piece]:
        for group, base, at, take in self._segments(offset, length):
            places = self._readable[group].places or self._groups[group]
            yield Piece(places[0].slot, base + places[0].delta, at, take)


def _of_medium(error: OrionError) -> bool:
    """Whether rewriting may mend it."""
    return isinstance(error, MediaError | IntegrityError)


async def _read_one(source: Source, length: int, views: list[memoryview]) -> OrionError | None:
    """Read from one member; the error, if that fails."""
    member, offset = source
    failures = await read_all([member], [Transfer(0, offset, offset + length, views)])
    return failures[0].error if failures else None
