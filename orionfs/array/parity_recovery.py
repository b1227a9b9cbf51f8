"""Reading stripes with parity, also where members are gone, in sync in part, or cannot read what they hold.

A chunk can be read from its member if the stripe ends within the member's ``valid``.  What cannot be read is computed
from the rest of its stripe, under the stripe's lock, unless nothing proves yet that the stripe is consistent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from orionfs.array.engine import Engine, Faults
from orionfs.array.layout import Piece, StripedLayout
from orionfs.array.member import Member
from orionfs.array.stripe import solve, sources
from orionfs.array.transfer import Transfer, join, plan, read_all, write_all
from orionfs.buffers import POOL, Buffer, window
from orionfs.errors import IntegrityError, MediaError, NoSpace, OrionError
from orionfs.kernels.parity import xor
from orionfs.rangelock import RangeLock


class _Part(NamedTuple):
    """The bytes [low, high) of a chunk (counted from its start) that a request wants, and where they go."""

    slot: int
    low: int
    high: int
    views: list[memoryview]


class ParityReader(Engine):
    """Reads; and recovers what cannot be read."""

    redundant = True
    layout: StripedLayout

    def __init__(self, members: Sequence[Member], layout: StripedLayout, faults: Faults) -> None:
        super().__init__(members, layout, faults)
        self.sync.unit_size = self.rebuild_unit = layout.chunk
        self.sync.unit_count = self.sync.position = layout.row_count
        self.rebuild_end = layout.row_count * layout.chunk
        self.stripe_width = layout.row_width
        self._lock = RangeLock()
        self._whole = all(member.active for member in members)

    def member_changed(self) -> None:
        self._whole = all(member.active for member in self.members)

    def busy(self, first: int, end: int) -> bool:
        """Whether somebody holds the lock of one of the stripes [first, end)."""
        return self._lock.busy(first, end)

    def _lost(self, end: int) -> set[int]:
        """The slots whose chunks cannot be read in a stripe that ends at *end* of the data areas."""
        return {member.slot for member in self.members if end > member.valid}

    # --- reads -----------------------------------------------------------------------------------------------------

    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        members = self.members
        if not self._whole and len(buffers) == 1:
            slot, where, run = self.layout.locate(offset)
            lost = length <= run and where + length > members[slot].valid
            if lost and await self._read_one(slot, where, memoryview(buffers[0])):
                return
        pieces: Iterable[Piece] = self.layout.pieces(offset, length)
        if not self._whole:
            pieces = list(pieces)
            if any(piece.offset + piece.length > members[piece.slot].valid for piece in pieces):
                await self._read_degraded(pieces, buffers)
                return
        for transfer, error, _member in await read_all(self.members, plan(pieces, buffers)):
            await self._recover(transfer, error)

    async def _recover(self, transfer: Transfer, error: OrionError) -> None:
        """Serve *transfer*, which failed with *error*, from the other members, under the locks of its stripes."""
        first, end = transfer.offset // self.layout.chunk, -(-transfer.end // self.layout.chunk)
        if not self._lock.try_acquire(first, end):
            await self._lock.acquire(first, end)
        try:
            await self._restore(transfer, error)
        finally:
            self._lock.release(first, end)

    async def _read_one(self, slot: int, offset: int, view: memoryview) -> bool:
        """Serve a lost part of one chunk from P and the other data; False if it takes more than that.

        Small random reads that meet a lost member are all like this, and planning them costs more than the rest.
        """
        row = offset // self.layout.chunk
        place = self.layout.row(row)
        if not self._lock.try_acquire(row, row + 1):
            await self._lock.acquire(row, row + 1)
        try:
            lost = self._lost((row + 1) * self.layout.chunk) | {slot}
            self._check_trust(row, lost, {})
            slots = sources(place, lost)
            if slots is None or place.q in slots or len(slots) == 1:
                return False
            length = len(view)
            scratch = POOL.take((len(slots) - 1) * length)
            try:
                views = [view, *(scratch[at : at + length] for at in range(0, len(scratch), length))]
                end = offset + length
                await self._read_held(
                    [Transfer(each, offset, end, [room]) for each, room in zip(slots, views, strict=True)]
                )
                xor(view, views)
            finally:
                POOL.give(scratch)
            return True
        finally:
            self._lock.release(row, row + 1)

    async def _read_degraded(self, pieces: list[Piece], buffers: Sequence[Buffer]) -> None:
        """Serve a request that wants lost chunks: one pass over the members, which reads nothing twice."""
        chunk = self.layout.chunk
        first, end = pieces[0].offset // chunk, pieces[-1].offset // chunk + 1
        scratch: list[memoryview] = []
        if not self._lock.try_acquire(first, end):
            await self._lock.acquire(first, end)
        try:
            wanted: dict[int, list[_Part]] = {}
            at_hand: dict[tuple[int, int], _Part] = {}
            reads: list[Transfer] = []
            for slot, offset, at, length in pieces:
                row, low = divmod(offset, chunk)
                part = _Part(slot, low, low + length, window(buffers, at, length))
                if offset + length > self.members[slot].valid:
                    wanted.setdefault(row, []).append(part)
                else:
                    at_hand[row, slot] = part
                    reads.append(Transfer(slot, offset, offset + length, part.views))
            holes = [self._hole(row, parts, at_hand, reads, scratch) for row, parts in wanted.items()]
            await self._read_held(join(reads))
            for hole in holes:
                hole.fill(self.layout)
        finally:
            for view in scratch:
                POOL.give(view)
            self._lock.release(first, end)

    def _hole(
        self,
        row: int,
        parts: list[_Part],
        at_hand: dict[tuple[int, int], _Part],
        reads: list[Transfer],
        scratch: list[memoryview],
    ) -> _Hole:
        """What has to be computed in stripe *row*; *reads* gets what has to be read for it beyond the request."""
        base = row * self.layout.chunk
        lost = self._lost(base + self.layout.chunk)
        place = self.layout.row(row)
        self._check_trust(row, lost, {})
        slots = sources(place, lost)
        if slots is None:
            raise self._too_much(lost, {})
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        chunks: dict[int, memoryview] = {}
        for slot in slots:
            part = at_hand.get((row, slot))
            if part is not None and part.low <= low and high <= part.high and len(part.views) == 1:
                chunks[slot] = part.views[0][low - part.low : high - part.low]
            else:
                view = chunks[slot] = self._take(high - low, scratch)
                reads.append(Transfer(slot, base + low, base + high, [view]))
        rest: list[_Part] = []
        for part in parts:
            if (part.low, part.high) == (low, high) and len(part.views) == 1:
                chunks[part.slot] = part.views[0]
            else:
                rest.append(part)
        gone = [slot for slot in place.data if slot in lost]
        for slot in gone:
            if slot not in chunks:
                chunks[slot] = self._take(high - low, scratch)
        return _Hole(row, low, chunks, gone, rest)

    def _take(self, length: int, scratch: list[memoryview]) -> memoryview:
        view = POOL.take(length)
        scratch.append(view)
        return view

    # --- recovery, under the locks of the stripes ------------------------------------------------------------------

    async def _read_held(self, reads: list[Transfer]) -> None:
        """Read for somebody who holds the locks; what cannot be read is computed."""
        members = self.members
        if self._whole:
            for transfer, error, _member in await read_all(members, reads):
                await self._restore(transfer, error)
            return
        present: list[Transfer] = []
        absent: list[Transfer] = []
        for read in reads:
            (present if read.end <= members[read.slot].valid else absent).append(read)
        for transfer, error, _member in await read_all(members, present):
            await self._restore(transfer, error)
        for transfer in absent:
            await self._restore(transfer, None)

    async def _restore(self, transfer: Transfer, error: OrionError | None) -> None:
        """Fill *transfer*, which its member failed with *error* or (None) does not hold.

        What can be read stripe by stripe is; the rest is computed, and mended.
        """
        slot, chunk = transfer.slot, self.layout.chunk
        member = self.members[slot]
        if error is not None:
            member.counters.read_errors += 1
        first, end = transfer.offset // chunk, -(-transfer.end // chunk)
        for row in range(first, end):
            low, high = max(transfer.offset, row * chunk), min(transfer.end, (row + 1) * chunk)
            views = window(transfer.buffers, low - transfer.offset, high - low)
            cause = error
            if end - first > 1 and high <= member.valid and (error is None or _of_medium(error)):
                failures = await read_all(self.members, [Transfer(slot, low, high, views)])
                if not failures:
                    continue
                cause = failures[0].error
            broken = {slot: cause} if cause is not None and high <= member.valid else {}
            scratch: list[memoryview] = []
            try:
                chunks = await self._solve(row, low, high, broken, (slot,), scratch)
                _spread(chunks[slot], views)
                await self._mend(row, low, high, broken, chunks)
            finally:
                for view in scratch:
                    POOL.give(view)

    async def _solve(
        self,
        row: int,
        low: int,
        high: int,
        broken: dict[int, OrionError],
        wanted: Iterable[int],
        scratch: list[memoryview],
    ) -> dict[int, memoryview]:
        """The bytes [low, high) (of the data areas) of the chunks in the slots *wanted* and *broken* of stripe *row*.

        *broken* are slots that could not be read, with the reasons; those that turn out so are added.  Raises
        :class:`MediaError` if the others are too few, or not proven to agree.
        """
        place = self.layout.row(row)
        chunks: dict[int, memoryview] = {}
        while True:
            lost = self._lost((row + 1) * self.layout.chunk) | broken.keys()
            self._check_trust(row, lost, broken)
            slots = sources(place, lost)
            if slots is None:
                raise self._too_much(lost, broken)
            reads = []
            for slot in slots:
                if slot not in chunks:
                    chunks[slot] = self._take(high - low, scratch)
                    reads.append(Transfer(slot, low, high, [chunks[slot]]))
            failures = await read_all(self.members, reads)
            for transfer, error, member in failures:
                member.counters.read_errors += 1
                broken[transfer.slot] = error
            if not failures:
                break
        targets = [slot for slot in place.data if slot in lost]
        checks = [slot for slot in (place.parity, place.q) if slot not in chunks or slot in broken]
        targets += [slot for slot in checks if slot in broken or slot in wanted]
        for slot in targets:
            if slot not in chunks:
                chunks[slot] = self._take(high - low, scratch)
        solve(place, chunks, targets)
        return chunks

    async def _mend(
        self, row: int, low: int, high: int, broken: dict[int, OrionError], chunks: dict[int, memoryview]
    ) -> None:
        """Put right the members that could not read their *chunks* of [low, high); fail those that are *broken* more.

        That there is no space to rewrite a place is no reason not to have read it.
        """
        for slot, error in broken.items():
            member = self.members[slot]
            if not _of_medium(error):
                await self.faults.member_failed(member, error)
                continue
            if self.read_only:
                continue
            if self.log is not None:
                try:
                    await self.log.settle(row, row + 1)
                except NoSpace:
                    continue
            failures = await write_all(self.members, [Transfer(slot, low, high, [chunks[slot]])])
            for _transfer, failure, failed in failures:
                failed.counters.write_errors += 1
                if not isinstance(failure, NoSpace):
                    await self.faults.member_failed(failed, failure)
            if not failures:
                await self.faults.read_corrected(member)

    def _check_trust(self, row: int, lost: set[int], broken: dict[int, OrionError]) -> None:
        """Raise unless the lost data of stripe *row* may be computed from its parity."""
        if not self.sync.trusted(row, row + 1) and any(slot in lost for slot in self.layout.row(row).data):
            raise MediaError(f"cannot be reconstructed, its parity is not proven yet ({self._causes(lost, broken)})")

    def _too_much(self, lost: set[int], broken: dict[int, OrionError]) -> MediaError:
        return MediaError(
            f"cannot be reconstructed, {len(lost)} members of the stripe cannot be read ({self._causes(lost, broken)})"
        )

    def _causes(self, lost: set[int], broken: dict[int, OrionError]) -> str:
        return "; ".join(
            f"{self.members[slot].label}: {broken[slot].message if slot in broken else self._reason(slot)}"
            for slot in sorted(lost)
        )

    def _reason(self, slot: int) -> str:
        return self.members[slot].why or "not rebuilt that far yet"


class _Hole(NamedTuple):
    """The lost *gone* chunks of stripe *row*, from byte *low* on, and all *chunks* that it takes to compute them.

    *rest* are the parts of the request that do not want exactly what is computed.
    """

    row: int
    low: int
    chunks: dict[int, memoryview]
    gone: list[int]
    rest: list[_Part]

    def fill(self, layout: StripedLayout) -> None:
        solve(layout.row(self.row), self.chunks, self.gone)
        for slot, low, high, views in self.rest:
            _spread(self.chunks[slot][low - self.low : high - self.low], views)


def _of_medium(error: OrionError) -> bool:
    """Whether the member as such still works."""
    return isinstance(error, MediaError | IntegrityError)


def _spread(content: memoryview, views: Iterable[memoryview]) -> None:
    at = 0
    for view in views:
        view[:] = content[at : at + len(view)]
        at += len(view)
