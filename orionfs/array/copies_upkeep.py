"""Upkeep of copies: making them equal after an unclean stop, comparing them, and making new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from orionfs.array.copies import CopiesEngine, Segment
from orionfs.array.engine import Mismatch, TargetFailed
from orionfs.array.layout import Piece
from orionfs.array.member import Member
from orionfs.array.raid10_layout import Held
from orionfs.array.transfer import Transfer, join, plan, read_all, write_all
from orionfs.buffers import POOL
from orionfs.errors import MediaError, NoSpace, OrionError
from orionfs.kernels.copies import Disagreement, vote
from orionfs.kernels.parity import equal
from orionfs.units import SECTOR


class _Copy(NamedTuple):
    """Where a copy of a segment is: the index of its member in a crew, and the offset in its data area."""

    who: int
    offset: int


class _Lineup(NamedTuple):
    """The copies of one segment, the fixed one first."""

    segment: Segment
    copies: tuple[_Copy, ...]

    @property
    def end(self) -> int:
        """Where the segment ends in the buffers."""
        return self.segment.at + self.segment.length


class CopiesUpkeep(CopiesEngine):
    """What background jobs need.  All of it works under the locks that writes take."""

    # --- resync ----------------------------------------------------------------------------------------------------

    async def sync_units(self, first: int, count: int) -> None:
        """Make every copy what the fixed one is: also in what is filled of members that are being rebuilt."""
        offset, length = self._range_of(first, count)
        if not self._lock.try_acquire(first, first + count):
            await self._lock.acquire(first, first + count)
        good, other = POOL.take(length), POOL.take(length)
        try:
            crew, lineups = self._line_up(offset, length, everyone=True)
            lineups = [lineup for lineup in lineups if len(lineup.copies) > 1]
            await self._read_held(crew, _transfers(lineups, 0, good))
            for number in range(1, max((len(lineup.copies) for lineup in lineups), default=0)):
                behind = [lineup for lineup in lineups if number < len(lineup.copies)]
                wrong = await self._differing(crew, behind, number, good, other)
                if wrong:
                    failures = await write_all(crew, _transfers(wrong, number, good))
                    await self._settle(failures, first, first + count)
        finally:
            POOL.give(good)
            POOL.give(other)
            self._lock.release(first, first + count)

    async def _differing(
        self, crew: Sequence[Member], lineups: list[_Lineup], number: int, good: memoryview, scratch: memoryview
    ) -> list[_Lineup]:
        """Those of *lineups* whose copy *number* is not what is in *good*, or cannot be read."""

        def readable(lineup: _Lineup) -> bool:
            copy = lineup.copies[number]
            return copy.offset + lineup.segment.length <= crew[copy.who].valid

        compared = [lineup for lineup in lineups if readable(lineup)]
        failures = await read_all(crew, _transfers(compared, number, scratch))
        if not failures and len(compared) == len(lineups) and _is_one_run(lineups):
            low, high = lineups[0].segment.at, lineups[-1].end
            if equal(scratch[low:high], good[low:high]):
                return []
        unread = [failure.transfer for failure in failures]

        def differs(lineup: _Lineup) -> bool:
            index, offset = lineup.copies[number]
            if not readable(lineup) or any(each.slot == index and each.offset <= offset < each.end for each in unread):
                return True
            low, high = lineup.segment.at, lineup.end
            return not equal(scratch[low:high], good[low:high])

        return [lineup for lineup in lineups if differs(lineup)]

    # --- scrub -----------------------------------------------------------------------------------------------------

    async def scrub_units(self, first: int, count: int, *, repair: bool) -> list[Mismatch]:
        offset, length = self._range_of(first, count)
        if not self._lock.try_acquire(first, first + count):
            await self._lock.acquire(first, first + count)
        buffers: list[memoryview] = []
        try:
            crew, lineups = self._line_up(offset, length, everyone=False)
            lineups = [lineup for lineup in lineups if len(lineup.copies) > 1]
            for number in range(max((len(lineup.copies) for lineup in lineups), default=0)):
                buffers.append(POOL.take(length))
                compared = [lineup for lineup in lineups if number < len(lineup.copies)]
                await self._read_held(crew, _transfers(compared, number, buffers[-1]))
            if _all_equal(lineups, buffers):
                return []
            guess = not self.sync.trusted(first, first + count)
            found: list[Mismatch] = []
            for lineup in lineups:
                copies = [buffers[number][lineup.segment.at : lineup.end] for number in range(len(lineup.copies))]
                for disagreement in vote(copies, SECTOR, first_wins=guess):
                    found.append(await self._judge(offset, lineup, disagreement, copies, repair=repair))
            return found
        finally:
            for view in buffers:
                POOL.give(view)
            self._lock.release(first, first + count)

    async def _judge(
        self, base: int, lineup: _Lineup, disagreement: Disagreement, copies: list[memoryview], *, repair: bool
    ) -> Mismatch:
        """What is wrong in one run of sectors of a segment; with *repair*, put right what can be."""
        low, high = disagreement.first * SECTOR, disagreement.end * SECTOR
        wrong = [lineup.copies[number] for number in disagreement.wrong]
        repaired = False
        if repair:
            targets = {(copy.who, copy.offset) for copy in wrong}
            segment = lineup.segment
            for slot, delta, _zone in self._targets[segment.group]:
                if not self.members[slot].active:  # it may have been filled from the one that was wrong
                    targets.add((slot, segment.base + delta))
            good = copies[disagreement.winner][low:high]
            transfers = [Transfer(slot, where + low, where + high, [good]) for slot, where in sorted(targets)]
            repaired = await self._rewrite(transfers)
        return Mismatch(
            base + lineup.segment.at + low,
            high - low,
            tuple(sorted(copy.who for copy in wrong)) if disagreement.sure else (),
            repaired,
            repaired and not disagreement.sure,
        )

    async def _rewrite(self, transfers: list[Transfer]) -> bool:
        """Write for a repair; whether everybody has it."""
        failures = await write_all(self.members, transfers)
        for _transfer, error, member in failures:
            member.counters.write_errors += 1
            if not isinstance(error, NoSpace):
                await self.faults.member_failed(member, error)
        return not failures

    # --- rebuild ---------------------------------------------------------------------------------------------------

    async def rebuild(self, target: Member, low: int, high: int) -> None:
        for start, end in self._spans(low, high):
            try:
                await self._rebuild_span(target, start, end)
            except BaseException:
                if target.valid == start:
                    target.valid = low
                raise

    def _spans(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """The bytes [low, high) of a data area cut into runs that can be locked as one range."""
        yield low, high

    def _reach(self, slot: int, low: int, high: int) -> tuple[int, int]:
        """A range of array bytes with all that the member in *slot* holds in [low, high)."""
        return low, high

    async def _rebuild_span(self, target: Member, low: int, high: int) -> None:
        offset, end = self._reach(target.slot, low, high)
        first, last = self._units(offset, max(end - offset, 1))
        if not self._lock.try_acquire(first, last):
            await self._lock.acquire(first, last)
        buffer = POOL.take(high - low)
        try:
            parts = list(self._held(target.slot, low, high))
            await self._read_held(self.members, self._plan_fill(target, parts, low, buffer))
            for start, stop in _runs(parts):
                if target.valid != low:
                    raise TargetFailed(f"{target.label} was taken out of service")
                await _write_target(target, start, stop, buffer[start - low : stop - low])
            if target.valid != low:
                raise TargetFailed(f"{target.label} was taken out of service")
            target.valid = high
        finally:
            POOL.give(buffer)
            self._lock.release(first, last)

    def _plan_fill(self, target: Member, parts: list[Held], low: int, buffer: memoryview) -> list[Transfer]:
        """Where to read what *target* is to hold in *parts*; long transfers rather than many."""
        pieces: list[Piece] = []
        ends: dict[int, int] = {}
        original = self.members[target.slot]
        for part in parts:
            group, base, _run = self._find(part.at)
            readable = self._readable[group]
            places = readable.places
            if not places:
                raise MediaError("no copy is left to make another from")
            place = places[0]
            if self.sync.trusted(*self._units(part.at, part.length)) and len(places) > 1:
                own = [each for each in places if each.slot == target.slot and original.active]
                going_on = [each for each in places if ends.get(each.slot) == base + each.delta]
                place = (own or going_on or [self._choose(readable, base)])[0]
            where = base + place.delta
            ends[place.slot] = where + part.length
            pieces.append(Piece(place.slot, where, part.offset - low, part.length))
        return plan(pieces, [buffer])

    # --- who has what ----------------------------------------------------------------------------------------------

    def _range_of(self, first: int, count: int) -> tuple[int, int]:
        """(offset, length) of *count* units."""
        unit = self.sync.unit_size
        return first * unit, min((first + count) * unit, self.layout.size) - first * unit

    def _line_up(self, offset: int, length: int, *, everyone: bool) -> tuple[list[Member], list[_Lineup]]:
        """A crew, whose first members are those in the slots, and the copies of each segment.

        With *everyone* also what is filled of members that are being rebuilt, and of copies that are being made.
        """
        crew = list(self.members)
        follower: dict[int, int] = {}
        if everyone:
            for slot, member in enumerate(self.members):
                if member.copy is not None:
                    follower[slot] = len(crew)
                    crew.append(member.copy)
        lineups = []
        for segment in self._segments(offset, length):
            group, base = segment.group, segment.base
            fixed = self._readable[group].places[:1]
            places = [*fixed, *(place for place in self._targets[group] if place not in fixed)]
            copies = [_Copy(place.slot, base + place.delta) for place in places if everyone or crew[place.slot].active]
            copies += [_Copy(follower[slot], where) for slot, where in copies if slot in follower]
            kept = tuple(copy for copy in copies if copy.offset < crew[copy.who].valid)
            lineups.append(_Lineup(segment, kept))
        return crew, lineups


def _transfers(lineups: Sequence[_Lineup], number: int, buffer: memoryview) -> list[Transfer]:
    """Copy *number* of each segment, from or to its place in *buffer*."""
    pieces = []
    for segment, copies in lineups:
        index, offset = copies[number]
        pieces.append(Piece(index, offset, segment.at, segment.length))
    return join(plan(pieces, [buffer]))


def _is_one_run(lineups: Sequence[_Lineup]) -> bool:
    """Whether the segments follow one another without gaps."""
    return lineups[-1].end - lineups[0].segment.at == sum(lineup.segment.length for lineup in lineups)


def _all_equal(lineups: Sequence[_Lineup], buffers: Sequence[memoryview]) -> bool:
    """Whether the copies of every segment, which begin the *buffers*, are the same."""
    if not lineups:
        return True
    if _is_one_run(lineups) and all(len(lineup.copies) == len(buffers) for lineup in lineups):
        low, high = lineups[0].segment.at, lineups[-1].end
        return all(equal(buffers[0][low:high], other[low:high]) for other in buffers[1:])
    return all(
        equal(buffers[0][lineup.segment.at : lineup.end], other[lineup.segment.at : lineup.end])
        for lineup in lineups
        for other in buffers[1 : len(lineup.copies)]
    )


def _runs(parts: Sequence[Held]) -> Iterator[tuple[int, int]]:
    """*parts*, in order, as [start, end) of the data area, with neighbors made one."""
    start = end = -1
    for part in parts:
        if part.offset != end:
            if end > start:
                yield start, end
            start = part.offset
        end = part.offset + part.length
    if end > start:
        yield start, end


async def _write_target(target: Member, low: int, high: int, view: memoryview) -> None:
    """Write to a member that is being filled, ahead of its ``valid``."""
    try:
        device, where = target.present, target.data_offset + low
        if not device.try_write(where, [view]):
            await device.write(where, [view])
    except OrionError as error:
        raise TargetFailed(f"{target.label} cannot be filled: {error.message}", hint=error.hint) from error
    if target.bad:
        target.bad.forget(low, high)
