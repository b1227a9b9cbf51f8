"""Keeping the parity of stripes true: resync and scrub."""

from __future__ import annotations

from itertools import groupby

from orionfs.array.engine import Mismatch
from orionfs.array.layout import Row
from orionfs.array.parity_bands import Band, Room, bands
from orionfs.array.parity_update import ParityWriter
from orionfs.array.stripe import compute_parity, solve, sources
from orionfs.array.transfer import Transfer, read_all, write_all
from orionfs.errors import MediaError, OrionError
from orionfs.kernels.galois import CONSISTENT, UNKNOWN, WRONG_P, WRONG_Q, locate
from orionfs.kernels.parity import nonzero_rows, xor_into

#: The unit in which a scrub says where something is wrong.  No chunk is smaller.
_BLOCK = 4096


class ParityUpkeep(ParityWriter):
    """Resync and scrub, through bands; stripe by stripe where something cannot be read."""

    @property
    def can_sync(self) -> bool:
        return self._whole or sum(not member.active for member in self.members) < self.layout.parities

    async def _acquire(self, first: int, end: int) -> None:
        if not self._lock.try_acquire(first, end):
            await self._lock.acquire(first, end)

    async def _read_band(self, band: Band, room: Room, lost: set[int]) -> bool:
        """Read the band from all members that are not *lost*; whether all could be read."""
        reads = [
            Transfer(member.slot, band.low, band.high, [room.of(member.slot, band)])
            for member in self.members
            if member.slot not in lost
        ]
        return not await read_all(self.members, reads)

    async def _read_stripe(self, band: Band, room: Room, lost: set[int]) -> dict[int, OrionError]:
        """As :meth:`_read_band`; the slots that could not be read, with the reasons."""
        reads = [
            Transfer(member.slot, band.low, band.high, [room.of(member.slot, band)])
            for member in self.members
            if member.slot not in lost
        ]
        broken: dict[int, OrionError] = {}
        for transfer, error, member in await read_all(self.members, reads):
            member.counters.read_errors += 1
            broken[transfer.slot] = error
        return broken

    # --- resync ----------------------------------------------------------------------------------------------------

    async def sync_units(self, first: int, count: int) -> None:
        """As :meth:`Engine.sync_units`.  The data are right by definition: parity is made to agree with them.

        That goes, with P and Q, without one member as well.
        """
        await self._acquire(first, first + count)
        try:
            if self.log is not None:
                await self.log.settle(first, first + count)
            with Room(self.layout, len(self.members), count) as room:
                for band in bands(self.layout.chunk, first, first + count):
                    if self._lost(band.high) or not await self._read_band(band, room, set()):
                        for stripe in band.stripes():
                            await self._sync_stripe(stripe, room)
                    else:
                        await self._sync_band(band, room)
        finally:
            self._lock.release(first, first + count)

    async def _sync_band(self, band: Band, room: Room) -> None:
        wrong = room.compare(band)
        writes = []
        for number, indexes in enumerate(wrong):
            for index in sorted(indexes):
                place = self.layout.row(band.first + index)
                part = slice(index * band.width, (index + 1) * band.width)
                writes.append(self._corrected((place.parity, place.q)[number], number, part, band, room))
        await self._settle(await write_all(self.members, writes))

    def _corrected(self, slot: int, number: int, part: slice, band: Band, room: Room) -> Transfer:
        """*part* of what the member in *slot* holds of the band, changed by the difference of P (0) or Q (1)."""
        view = room.of(slot, band)[part]
        xor_into(view, [room.check(number, band)[part]])
        return Transfer(slot, band.low + part.start, band.low + part.stop, [view])

    async def _sync_stripe(self, band: Band, room: Room) -> None:
        """Sync one stripe from whatever can be read: parity that cannot be read is written anew.

        A lost data chunk is what P makes of it: Q is made to agree with that if the stripe is believed to be in order,
        and otherwise has to agree already.
        """
        row, place = band.first, self.layout.row(band.first)
        lost = self._lost(band.high)
        gone = [slot for slot in place.data if slot in lost]
        if gone and len(lost) >= self.layout.parities:
            raise MediaError(f"its redundancy cannot be proven without a member ({self._causes(lost, {})})")
        broken = await self._read_stripe(band, room, lost)
        for slot, error in broken.items():
            if gone or slot in place.data:
                raise error
        if gone:
            chunks = {slot: room.of(slot, band) for slot in (*place.data, place.parity)}
            solve(place, chunks, gone)
        self._compute(place, band, room)
        writes = []
        for number, slot in _checks(place):
            right = room.check(number, band)
            if slot not in lost and (slot in broken or room.of(slot, band) != right):
                writes.append(Transfer(slot, band.low, band.high, [right]))
        if writes and gone and not self.sync.trusted(row, row + 1):
            raise MediaError(f"its redundancy does not agree, and a member is gone ({self._causes(lost, {})})")
        await self._settle(await write_all(self.members, writes))

    def _compute(self, place: Row, band: Band, room: Room) -> None:
        """P and Q of one stripe as the data ask for them."""
        data = [room.of(slot, band) for slot in place.data]
        compute_parity(place, data, room.check(0, band), room.check(1, band) if place.q >= 0 else None)

    # --- scrub -----------------------------------------------------------------------------------------------------

    async def scrub_units(self, first: int, count: int, *, repair: bool) -> list[Mismatch]:
        """As :meth:`Engine.scrub_units`.

        With P and Q, in a stripe that is proven, the one wrong chunk is found for each 4 KiB and put right.  Where it
        cannot be, the rule is that the data are right, and parity is computed anew.  A mismatch is a run of such
        blocks of one stripe with the same verdict.  A stripe without any redundancy left agrees with itself.
        """
        found: list[Mismatch] = []
        await self._acquire(first, first + count)
        try:
            with Room(self.layout, len(self.members), count) as room:
                for band in bands(self.layout.chunk, first, first + count):
                    if self._lost(band.high) or not await self._read_band(band, room, set()):
                        for stripe in band.stripes():
                            found += await self._scrub_stripe(stripe, room, repair)
                        continue
                    wrong_p, wrong_q = room.compare(band)
                    for index in sorted(wrong_p | wrong_q):
                        found += await self._judge(band, index, room, repair)
        finally:
            self._lock.release(first, first + count)
        return found

    async def _judge(self, band: Band, index: int, room: Room, repair: bool) -> list[Mismatch]:
        """The mismatches of the band's stripe *index*, whose differences have been computed, put right on demand."""
        row = band.first + index
        place = self.layout.row(row)
        part = slice(index * band.width, (index + 1) * band.width)
        p = room.check(0, band)[part]
        if place.q < 0:
            verdicts = _unknown(set(nonzero_rows(p, _BLOCK)), band.width)
        else:
            q = room.check(1, band)[part]
            if self.sync.trusted(row, row + 1):
                verdicts = locate(p, q, place.exponents, _BLOCK)
            else:
                verdicts = _unknown({*nonzero_rows(p, _BLOCK), *nonzero_rows(q, _BLOCK)}, band.width)
        found: list[Mismatch] = []
        writes: list[Transfer] = []
        for verdict, low, high in _runs(verdicts):
            span = slice(part.start + low, part.start + high)
            slot = _blamed(place, verdict)
            if slot is None:
                writes += [self._corrected(each, number, span, band, room) for number, each in _checks(place)]
            else:
                writes.append(self._corrected(slot, 1 if verdict == WRONG_Q else 0, span, band, room))
            slots = () if slot is None else (slot,)
            found.append(Mismatch(band.low + span.start, high - low, slots, repair, repair and slot is None))
        if repair:
            await self._put_right(row, writes)
        return found

    async def _put_right(self, row: int, writes: list[Transfer]) -> None:
        if self.log is not None:
            await self.log.settle(row, row + 1)
        await self._settle(await write_all(self.members, writes))

    async def _scrub_stripe(self, band: Band, room: Room, repair: bool) -> list[Mismatch]:
        """Scrub one stripe of which something may be missing: what cannot be read is computed and mended.

        With P and Q and one chunk missing it still shows whether the others agree, but not which of them is wrong.
        """
        row, place = band.first, self.layout.row(band.first)
        lost = self._lost(band.high)
        if len(lost) >= self.layout.parities:
            return []
        broken = await self._read_stripe(band, room, lost)
        missing = lost | broken.keys()
        if not missing:
            return await self._judge(band, 0, room, repair) if any(room.compare(band)) else []
        self._check_trust(row, missing, broken)
        if sources(place, missing) is None:
            raise self._too_much(missing, broken)
        chunks = {slot: room.of(slot, band) for slot in (*place.data, *(slot for _number, slot in _checks(place)))}
        gone = [slot for slot in place.data if slot in missing]
        if gone:
            readable = {slot: view for slot, view in chunks.items() if slot in gone or slot not in missing}
            solve(place, readable, gone)
        self._compute(place, band, room)
        checks = [(number, slot) for number, slot in _checks(place) if slot not in missing]
        wrong: set[int] = set()
        for number, slot in checks:
            difference = room.check(number, band)
            xor_into(difference, [chunks[slot]])
            wrong.update(nonzero_rows(difference, _BLOCK))
        for number, slot in _checks(place):
            if slot in broken:
                chunks[slot] = room.check(number, band)
        by_rule = repair and not gone
        found = [
            Mismatch(band.low + low, high - low, (), by_rule, by_rule)
            for _verdict, low, high in _runs(_unknown(wrong, band.width))
        ]
        if found and by_rule:
            whole = slice(0, band.width)
            await self._put_right(row, [self._corrected(slot, number, whole, band, room) for number, slot in checks])
        if not (found and gone):
            # What was computed from chunks that contradict each other is not worth storing.
            await self._mend(row, band.low, band.high, broken, chunks)
        return found


def _checks(place: Row) -> list[tuple[int, int]]:
    """The numbers of the parity chunks, 0 for P and 1 for Q, and their slots."""
    return [(0, place.parity), (1, place.q)] if place.q >= 0 else [(0, place.parity)]


def _blamed(place: Row, verdict: int) -> int | None:
    """The slot whose chunk is wrong by the *verdict* of :func:`locate`; None if nobody can tell."""
    if verdict == UNKNOWN:
        return None
    if verdict in (WRONG_P, WRONG_Q):
        return place.parity if verdict == WRONG_P else place.q
    return place.data[place.exponents.index(verdict)]


def _unknown(blocks: set[int], width: int) -> list[int]:
    return [UNKNOWN if block in blocks else CONSISTENT for block in range(width // _BLOCK)]


def _runs(verdicts: list[int]) -> list[tuple[int, int, int]]:
    """Runs of blocks with the same verdict, but for those that agree: the verdict, first byte and end."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    for verdict, group in groupby(verdicts):
        length = len(list(group)) * _BLOCK
        if verdict != CONSISTENT:
            runs.append((verdict, at, at + length))
        at += length
    return runs
