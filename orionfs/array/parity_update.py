"""Writing stripes with parity.

How a write is done, stripe by stripe under the stripe's lock:

- a whole stripe: parity from the new data, no reads; it is proven then, whatever it was before;
- part of a stripe: it is cut where the set of chunks that change does, so that in each span some chunks change as a
  whole and the others not at all.  Each span is a read-modify-write (old data and old parity of what changes) or a
  reconstruct-write (the data that does not change), whichever reads less or is possible at all.

The transfers of all stripes of a request then go out together, one vectored call per member where they touch: to the
log if there is one, else in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from orionfs.array.engine import Cell, Faults, RowWrite
from orionfs.array.layout import Row, StripedLayout
from orionfs.array.member import Member
from orionfs.array.parity_recovery import ParityReader
from orionfs.array.stripe import compute_parity
from orionfs.array.transfer import Failure, Transfer, join, read_all, write_all, zero_all
from orionfs.buffers import POOL, Buffer, gather, window
from orionfs.errors import NoSpace, OrionError
from orionfs.kernels.galois import change, syndrome_rows
from orionfs.kernels.parity import xor_into, xor_rows

_BLOCK = 4096
#: How much of each member is logged at a time when stripes are zeroed through a log.
_ZEROS = 64 * 1024


class _Update:
    """Stripe *row* over the bytes [low, high) of its chunks, where all *cells* reach from one end to the other.

    ``checks`` are P and Q, None where nobody holds them.  With ``modify`` they are to be read, and ``old`` is room for
    what the cells replace; else ``old`` is room for the other data chunks.
    """

    __slots__ = ("cells", "checks", "high", "low", "modify", "old", "place", "reads", "row")

    def __init__(self, row: int, place: Row, low: int, high: int, cells: list[Cell]) -> None:
        self.row = row
        self.place = place
        self.low = low
        self.high = high
        self.cells = cells
        self.checks: list[memoryview | None] = []
        self.old: list[memoryview] = []
        self.reads: list[Transfer] = []
        self.modify = False

    def compute(self) -> None:
        """Make ``checks`` what they have to be, once ``reads`` have been read."""
        place = self.place
        p, q = self.checks[0], self.checks[1] if len(self.checks) > 1 else None
        if p is None and q is None:
            return
        if self.modify:
            for cell, old in zip(self.cells, self.old, strict=True):
                if q is not None:
                    change(p, q, old, cell.data, place.exponents[cell.column])
                elif p is not None:
                    xor_into(p, [old, cell.data])
            return
        new = {cell.column: cell.data for cell in self.cells}
        rest = iter(self.old)
        data = [new[column] if column in new else next(rest) for column in range(len(place.data))]
        compute_parity(place, data, p, q)

    def writes(self, chunk: int) -> list[Transfer]:
        """The transfers to data and parity."""
        base = self.row * chunk
        low, high = base + self.low, base + self.high
        transfers = [Transfer(self.place.data[cell.column], low, high, [cell.data]) for cell in self.cells]
        for slot, view in zip((self.place.parity, self.place.q), self.checks, strict=False):
            if view is not None:
                transfers.append(Transfer(slot, low, high, [view]))
        return transfers

    def fact(self) -> RowWrite:
        """What a log wants to know."""
        return RowWrite(self.row, tuple(self.cells), self.low, self.high, self.checks[0])


class ParityWriter(ParityReader):
    """Writes."""

    def __init__(self, members: Sequence[Member], layout: StripedLayout, faults: Faults) -> None:
        super().__init__(members, layout, faults)
        #: Whether a write to one chunk of a whole stripe reads less by read-modify-write.
        self._modifies_one = layout.columns > 1 + layout.parities

    async def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        within = offset % self.layout.chunk
        if self._whole and within + length <= self.layout.chunk and len(buffers) == 1:
            await self._write_one(offset, memoryview(buffers[0]), length)
        else:
            await self._write_any(offset, buffers, length)

    async def _write_one(self, offset: int, data: memoryview, length: int) -> None:
        """A write inside one chunk of a whole stripe: it is clear what to read, and there is nothing to plan.

        Small random writes are all like this, and planning them as :meth:`_write_any` does costs as much as the rest.
        """
        layout = self.layout
        number, within = divmod(offset, layout.chunk)
        row, column = divmod(number, layout.columns)
        place = layout.row(row)
        slot, low = place.data[column], row * layout.chunk + within
        high = low + length
        modify = self._modifies_one
        scratch = POOL.take((layout.parities + (1 if modify else layout.columns - 1)) * length)
        if not self._lock.try_acquire(row, row + 1):
            await self._lock.acquire(row, row + 1)
        try:
            p, q = scratch[:length], None
            checks = [Transfer(place.parity, low, high, [p])]
            if place.q >= 0:
                q = scratch[length : 2 * length]
                checks.append(Transfer(place.q, low, high, [q]))
            rest = scratch[len(checks) * length :]
            if modify:
                self.stripe_reads += 1 + len(checks)
                await self._read_held([*checks, Transfer(slot, low, high, [rest])])
                if q is None:
                    xor_into(p, [rest, data])
                else:
                    change(p, q, rest, data, place.exponents[column])
            else:
                chunks = [rest[at : at + length] for at in range(0, len(rest), length)]
                others = place.data[:column] + place.data[column + 1 :]
                self.stripe_reads += len(others)
                await self._read_held(
                    [Transfer(other, low, high, [view]) for other, view in zip(others, chunks, strict=True)]
                )
                chunks.insert(column, data)
                compute_parity(place, chunks, p, q)
            self.partial_stripe_writes += 1
            transfers = [Transfer(slot, low, high, [data]), *checks]
            if self.log is None:
                await self._commit(transfers, row, row + 1)
            else:
                cell = Cell(column, within, within + length, data)
                await self._commit(transfers, row, row + 1, [RowWrite(row, (cell,), within, within + length, p)])
        finally:
            POOL.give(scratch)
            self._lock.release(row, row + 1)

    async def _write_any(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        width = self.layout.row_width
        row, start = divmod(offset, width)
        end_row = -(-(offset + length) // width)
        first = row
        scratch: list[memoryview] = []
        if not self._lock.try_acquire(first, end_row):
            await self._lock.acquire(first, end_row)
        try:
            updates: list[_Update] = []
            whole: list[Transfer] = []
            whole_rows: range = range(0)
            at = 0
            while at < length:
                if start == 0 and length - at >= width:
                    rows = (length - at) // width
                    whole_rows = range(row, row + rows)
                    whole = self._whole_rows(row, rows, buffers, at, scratch)
                    self.full_stripe_writes += rows
                    at += rows * width
                    row += rows
                else:
                    take = min(width - start, length - at)
                    updates += self._part_of_row(row, start, window(buffers, at, take), scratch)
                    self.partial_stripe_writes += 1
                    at += take
                    row += 1
                    start = 0
            partial = await self._carry_out(updates) if updates else []
            if self.log is None:
                transfers = partial + whole
                await self._commit(join(transfers) if end_row - first > 1 else transfers, first, end_row)
            else:
                if partial:
                    facts = [update.fact() for update in updates]
                    await self._commit(partial, first, end_row, facts)
                if whole:
                    facts = [RowWrite(number, (), 0, self.layout.chunk, None) for number in whole_rows]
                    await self._commit(whole, whole_rows.start, whole_rows.stop, facts)
            if whole and self.sync.needed:
                self.sync.prove(whole_rows.start, whole_rows.stop)
        finally:
            for view in scratch:
                POOL.give(view)
            self._lock.release(first, end_row)

    def _whole_rows(
        self, row: int, rows: int, buffers: Sequence[Buffer], at: int, scratch: list[memoryview]
    ) -> list[Transfer]:
        layout = self.layout
        chunk = layout.chunk
        data = gather(window(buffers, at, rows * layout.row_width))
        p = self._take(rows * chunk, scratch)
        q = self._take(rows * chunk, scratch) if layout.parities > 1 else p
        if layout.parities > 1:
            exponents = [layout.row(row + number).exponents for number in range(min(rows, layout.period))]
            syndrome_rows(p, q, data, chunk, exponents)
        else:
            xor_rows(p, data, layout.columns, chunk)
        low, high = row * chunk, (row + rows) * chunk
        by_slot = [Transfer(slot, low, high, []) for slot in range(len(self.members))]
        taken = 0
        for number in range(rows):
            place = layout.row(row + number)
            for slot in place.data:
                by_slot[slot].buffers.append(data[taken : taken + chunk])
                taken += chunk
            here = slice(number * chunk, (number + 1) * chunk)
            by_slot[place.parity].buffers.append(p[here])
            if place.q >= 0:
                by_slot[place.q].buffers.append(q[here])
        return by_slot

    # --- parts of stripes ------------------------------------------------------------------------------------------

    def _part_of_row(self, row: int, start: int, buffers: Sequence[Buffer], scratch: list[memoryview]) -> list[_Update]:
        """What it takes to put *buffers* at *start* of stripe *row* and keep its parity true."""
        chunk = self.layout.chunk
        place = self.layout.row(row)
        data = gather(buffers)
        column, low = divmod(start, chunk)
        cells: list[Cell] = []
        at = 0
        while at < len(data):
            take = min(chunk - low, len(data) - at)
            cells.append(Cell(column, low, low + take, data[at : at + take]))
            at += take
            column += 1
            low = 0
        updates = [_Update(row, place, *span) for span in _spans(cells)]
        for update in updates:
            self._plan(update, scratch)
        return updates

    def _plan(self, update: _Update, scratch: list[memoryview]) -> None:
        """Decide how *update* is done, and so what it has to read."""
        place, cells = update.place, update.cells
        base = update.row * self.layout.chunk
        written = [place.data[cell.column] for cell in cells]
        others = [slot for slot in place.data if slot not in written]
        checks = [place.parity, place.q] if place.q >= 0 else [place.parity]
        held = checks if self._whole else [slot for slot in checks if self._holds(slot, base)]
        update.modify = len(written) + len(held) <= len(others)
        if not self._whole:
            lost = self._lost(base + self.layout.chunk)
            if not lost.isdisjoint(written) or not lost.isdisjoint(held):
                update.modify = False
            elif not lost.isdisjoint(others):
                update.modify = True
        read = [] if not held else written if update.modify else others
        span = update.high - update.low
        by_slot: dict[int, memoryview] = {}
        if held:
            room = self._take((len(read) + len(held)) * span, scratch)
            for at, slot in enumerate([*read, *held]):
                by_slot[slot] = room[at * span : (at + 1) * span]
        update.old = [by_slot[slot] for slot in read]
        update.checks = [by_slot.get(slot) for slot in checks]
        wanted = [*held, *read] if update.modify else read
        low, high = base + update.low, base + update.high
        update.reads = [Transfer(slot, low, high, [by_slot[slot]]) for slot in wanted]

    def _holds(self, slot: int, base: int) -> bool:
        """Whether somebody has to be written to in that slot of the stripe at *base*."""
        member = self.members[slot]
        return base < member.valid or (member.copy is not None and base < member.copy.valid)

    async def _carry_out(self, updates: list[_Update]) -> list[Transfer]:
        """Read what *updates* need and compute their parity; all that is to be written."""
        reads = [read for update in updates for read in update.reads]
        if reads:
            self.stripe_reads += len(reads)
            await self._read_held(join(reads) if len(updates) > 1 else reads)
        transfers: list[Transfer] = []
        for update in updates:
            update.compute()
            transfers += update.writes(self.layout.chunk)
        return join(transfers) if len(updates) > 1 else transfers

    # --- zeros -----------------------------------------------------------------------------------------------------

    async def write_zeroes(self, offset: int, length: int) -> None:
        await self._zero(offset, length, edges=True)

    async def discard(self, offset: int, length: int) -> None:
        await self._zero(offset, length, edges=False)

    async def _zero(self, offset: int, length: int, *, edges: bool) -> None:
        """Whole stripes are zeroed on every member, parity included; the edges are written if they must be."""
        width, chunk = self.layout.row_width, self.layout.chunk
        end = offset + length
        first, last = -(-offset // width), end // width
        if edges:
            cut = min(first * width, end)
            await self._write_zeros(offset, cut)
            await self._write_zeros(max(last * width, cut), end)
        if first >= last:
            return
        transfers = [Transfer(member.slot, first * chunk, last * chunk, []) for member in self.members]
        if not self._lock.try_acquire(first, last):
            await self._lock.acquire(first, last)
        try:
            if self.log is not None:
                if self.policies.whole_stripes == "journal":
                    await self._log_zeros(first, last)
                await self.log.settle(first, last)
            try:
                await self._settle(await zero_all(self.members, transfers))
            except BaseException:
                self._suspect(first, last)
                raise
            if self.sync.needed:
                self.sync.prove(first, last)
        finally:
            self._lock.release(first, last)

    async def _log_zeros(self, first: int, last: int) -> None:
        """Put zeros into the stripes [first, last) through the log; then they can be zeroed in place at any cut.

        Where all data are zero, P and Q are.  The caller holds the locks.
        """
        chunk = self.layout.chunk
        step = max(_ZEROS // chunk, 1)
        zeros = memoryview(bytes(chunk))
        for row in range(first, last, step):
            end = min(row + step, last)
            buffers = [zeros] * (end - row)
            transfers = [Transfer(member.slot, row * chunk, end * chunk, list(buffers)) for member in self.members]
            await self._commit(transfers, row, end, [RowWrite(each, (), 0, chunk, None) for each in range(row, end)])

    async def _write_zeros(self, offset: int, end: int) -> None:
        if offset < end:
            await self.write(offset, [bytes(end - offset)], end - offset)

    # --- the moment of truth ---------------------------------------------------------------------------------------

    async def _commit(self, transfers: list[Transfer], first: int, end: int, facts: Sequence[RowWrite] = ()) -> None:
        """Write data and parity of the stripes [first, end); done when every member that failed is on record.

        With *facts*, of which either all are whole stripes or none, through the log.  What that raises means that the
        stripes may be half written and that nothing will complete them, unless the log has not asked for anything to be
        put in place: then they are what they were.
        """
        log = self.log if facts else None
        touched = log is None
        saved: list[Transfer] = []
        if not self._whole and (log is None or not facts[0].cells) and self._lost(end * self.layout.chunk):
            saved = await self._save(transfers)

        async def put(transfers: list[Transfer]) -> None:
            nonlocal touched
            touched = True
            await self._put(transfers)

        restored = False
        try:
            try:
                if log is None:
                    failures = await write_all(self.members, transfers)
                    if failures:
                        await self._settle(failures)
                else:
                    await log.write(transfers, facts, put)
            except OrionError:
                restored = touched and bool(saved) and await self._take_back(saved)
                raise
        except BaseException:
            if touched and not restored:
                self._suspect(first, end)
            raise
        finally:
            for old in saved:
                POOL.give(old.buffers[0])

    async def _put(self, transfers: list[Transfer]) -> None:
        """Write in place; done when every member that failed is on record."""
        failures = await write_all(self.members, transfers)
        if failures:
            await self._settle(failures)

    async def _settle(self, failures: Sequence[Failure]) -> None:
        """See to it that members that failed a write are on record.  Raises :class:`NoSpace` if that was the cause.

        A member that is being filled is not needed: want of space is its own failure then.
        """
        full: OrionError | None = None
        for _transfer, error, member in failures:
            member.counters.write_errors += 1
            if isinstance(error, NoSpace) and member.active:
                full = error
            else:
                await self.faults.member_failed(member, error)
        if full is not None:
            raise full

    async def _save(self, transfers: list[Transfer]) -> list[Transfer]:
        """What a degraded write is about to replace; nothing if it cannot be read, which is no reason not to replace
        it.

        Parity is then the only copy of the lost member's data, so a write that fails halfway must be taken back, not
        repaired later.
        """
        saved = []
        for transfer in transfers:
            end = min(transfer.end, self.members[transfer.slot].valid)
            if transfer.offset < end:
                room = POOL.take(end - transfer.offset)
                saved.append(Transfer(transfer.slot, transfer.offset, end, [room]))
        failures = await read_all(self.members, saved)
        for failure in failures:
            failure.member.counters.read_errors += 1
        if failures:
            for old in saved:
                POOL.give(old.buffers[0])
            return []
        return saved

    async def _take_back(self, saved: list[Transfer]) -> bool:
        """Put the old contents back, block by block; whether that is what the members hold now.

        A block that does not fit was never written: a hole before, and a hole still.
        """
        restored = True
        for transfer in saved:
            old = transfer.buffers[0]
            if transfer.end > self.members[transfer.slot].valid:
                continue  # it has failed, which is on record
            for at in range(0, len(old), _BLOCK):
                block = old[at : at + _BLOCK]
                place = Transfer(transfer.slot, transfer.offset + at, transfer.offset + at + len(block), [block])
                if await write_all(self.members, [place]):
                    check = memoryview(bytearray(len(block)))
                    place.buffers = [check]
                    restored = restored and not await read_all(self.members, [place]) and check == block
        return restored

    def _suspect(self, first: int, end: int) -> None:
        self.sync.suspect(first, end)
        self.faults.sync_wanted()


def _spans(cells: list[Cell]) -> list[tuple[int, int, list[Cell]]]:
    """*cells* cut so that in each span [low, high) they all reach from one end to the other."""
    if len(cells) == 1:
        return [(cells[0].low, cells[0].high, cells)]
    edges = sorted({edge for cell in cells for edge in (cell.low, cell.high)})
    spans = []
    for low, high in pairwise(edges):
        here = [
            Cell(cell.column, low, high, cell.data[low - cell.low : high - cell.low])
            for cell in cells
            if cell.low <= low and high <= cell.high
        ]
        if here:
            spans.append((low, high, here))
    return spans
