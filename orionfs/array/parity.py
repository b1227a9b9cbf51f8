"""RAID 5: stripes with one parity chunk, which is the XOR of the others.

Parity is per byte column: at any member offset the XOR over all members is zero.  That one fact serves reconstruction
and resync for every layout; only writes need to know which chunk is the parity.

How a write is done, stripe by stripe under the stripe's lock:

- a whole stripe: parity from the new data, no reads;
- part of a stripe: read-modify-write (old data and old parity of what changes) or reconstruct-write (the data that does
  not change), whichever reads less.

The transfers of all stripes of a request then go out together, one vectored call per member where they touch.
"""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.engine import Cell, Engine, Faults
from orionfs.array.layout import StripedLayout
from orionfs.array.member import Member
from orionfs.array.transfer import Failure, Transfer, join, plan, read_all, write_all, zero_all
from orionfs.buffers import POOL, Buffer, gather, window
from orionfs.errors import IntegrityError, MediaError, NoSpace, OrionError
from orionfs.kernels.parity import nonzero_rows, xor, xor_into, xor_rows
from orionfs.rangelock import RangeLock

_BLOCK = 4096


class ParityEngine(Engine):
    """Any level whose stripes have one parity chunk."""

    redundant = True
    layout: StripedLayout

    def __init__(self, members: Sequence[Member], layout: StripedLayout, faults: Faults) -> None:
        super().__init__(members, layout, faults)
        self.sync.unit_size = layout.chunk
        self.sync.unit_count = self.sync.position = layout.row_count
        self.stripe_width = layout.row_width
        self._lock = RangeLock()
        self._whole = all(member.active for member in members)

    @property
    def can_sync(self) -> bool:
        return self._whole

    def member_changed(self) -> None:
        self._whole = all(member.active for member in self.members)

    def allocated(self) -> int:
        return super().allocated() * self.layout.columns // len(self.members)

    # --- reads -----------------------------------------------------------------------------------------------------

    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        transfers = plan(self.layout.pieces(offset, length), buffers)
        if self._whole:
            for failure in await read_all(self.members, transfers):
                await self._recover(failure.transfer, failure.error)
            return
        members = self.members
        for failure in await read_all(members, [transfer for transfer in transfers if members[transfer.slot].active]):
            await self._recover(failure.transfer, failure.error)
        for transfer in transfers:
            if not members[transfer.slot].active:
                await self._recover(transfer, None)

    async def _recover(self, transfer: Transfer, error: OrionError | None) -> None:
        """Serve *transfer* from the other members, under the locks of its stripes."""
        first, end = transfer.offset // self.layout.chunk, -(-transfer.end // self.layout.chunk)
        if not self._lock.try_acquire(first, end):
            await self._lock.acquire(first, end)
        try:
            await self._reconstruct(transfer, error)
        finally:
            self._lock.release(first, end)

    async def _reconstruct(self, transfer: Transfer, error: OrionError | None) -> None:
        """Fill *transfer* with the XOR of all other members; the caller holds the locks.

        With *error*, why the member itself could not be read: mend it if it is the medium, else fail the member.
        """
        slot, offset, end = transfer.slot, transfer.offset, transfer.end
        member = self.members[slot]
        cause = f"{member.label}: {error.message if error else member.why}"
        if error is not None:
            member.counters.read_errors += 1
        if not self.sync.trusted(offset // self.layout.chunk, -(-end // self.layout.chunk)):
            raise MediaError(f"cannot be reconstructed, its parity is not proven yet ({cause})")
        scratch = [POOL.take(end - offset) for _ in self.members]
        try:
            others = []
            for other in self.members:
                if other.slot == slot:
                    continue
                if not other.active:
                    raise MediaError(f"two members are gone ({cause}; {other.label}: {other.why})")
                others.append(Transfer(other.slot, offset, end, [scratch[other.slot]]))
            for failure in await read_all(self.members, others):
                self.members[failure.transfer.slot].counters.read_errors += 1
                raise MediaError(f"two members cannot be read ({cause}; {failure.error.message})")
            result = scratch[slot]
            xor(result, [other.buffers[0] for other in others])
            at = 0
            for view in transfer.buffers:
                view[:] = result[at : at + len(view)]
                at += len(view)
            if error is not None:
                await self._mend(Transfer(slot, offset, end, [result]), error)
        finally:
            for buffer in scratch:
                POOL.give(buffer)

    async def _mend(self, good: Transfer, error: OrionError) -> None:
        if isinstance(error, MediaError | IntegrityError):
            for failure in await write_all(self.members, [good]):
                failure.member.counters.write_errors += 1
                if not isinstance(failure.error, NoSpace):
                    await self.faults.member_failed(failure.member, failure.error)
        else:
            await self.faults.member_failed(self.members[good.slot], error)

    # --- writes ----------------------------------------------------------------------------------------------------

    async def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        within = offset % self.layout.chunk
        if self._whole and within + length <= self.layout.chunk and self.layout.columns > 2 and len(buffers) == 1:
            await self._write_one(offset, memoryview(buffers[0]), length)
        else:
            await self._write_any(offset, buffers, length)

    async def _write_one(self, offset: int, data: memoryview, length: int) -> None:
        """A write inside one chunk of three or more: read-modify-write reads least, and there is nothing to plan.

        Small random writes are all like this, and planning them as :meth:`_write_any` does costs as much as the rest.
        """
        layout = self.layout
        number, within = divmod(offset, layout.chunk)
        row, column = divmod(number, layout.columns)
        place = layout.row(row)
        slot, low = place.data[column], row * layout.chunk + within
        high = low + length
        scratch = POOL.take(2 * length)
        if not self._lock.try_acquire(row, row + 1):
            await self._lock.acquire(row, row + 1)
        try:
            parity = Transfer(place.parity, low, high, [scratch[:length]])
            old = scratch[length:]
            await self._read_held([parity, Transfer(slot, low, high, [old])])
            xor_into(parity.buffers[0], [old, data])
            self.partial_stripe_writes += 1
            await self._commit([Transfer(slot, low, high, [data]), parity], row, row + 1)
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
            transfers: list[Transfer] = []
            at = 0
            while at < length:
                if start == 0 and length - at >= width:
                    rows = (length - at) // width
                    transfers += self._whole_rows(row, rows, buffers, at, scratch)
                    self.full_stripe_writes += rows
                    at += rows * width
                    row += rows
                else:
                    take = min(width - start, length - at)
                    transfers += await self._part_of_row(row, start, buffers, at, take, scratch)
                    self.partial_stripe_writes += 1
                    at += take
                    row += 1
                    start = 0
            if end_row - first > 1:
                transfers = join(transfers)
            await self._commit(transfers, first, end_row)
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
        parity = POOL.take(rows * chunk)
        scratch.append(parity)
        xor_rows(parity, data, layout.columns, chunk)
        low, high = row * chunk, (row + rows) * chunk
        by_slot = [Transfer(slot, low, high, []) for slot in range(len(self.members))]
        taken = 0
        for number in range(rows):
            place = layout.row(row + number)
            for slot in place.data:
                by_slot[slot].buffers.append(data[taken : taken + chunk])
                taken += chunk
            by_slot[place.parity].buffers.append(parity[number * chunk : (number + 1) * chunk])
        return by_slot

    async def _part_of_row(
        self, row: int, start: int, buffers: Sequence[Buffer], at: int, length: int, scratch: list[memoryview]
    ) -> list[Transfer]:
        """The transfers that put *length* bytes at *start* of stripe *row* and keep its parity true."""
        chunk = self.layout.chunk
        column, low = divmod(start, chunk)
        cells: list[Cell] = []
        while length:
            take = min(chunk - low, length)
            cells.append(Cell(column, low, low + take, gather(window(buffers, at, take))))
            at += take
            length -= take
            column += 1
            low = 0
        if len(cells) == 2 and cells[1].high <= cells[0].low:
            # Two ends of neighboring chunks share no byte column: two small updates beat one that spans the chunk.
            return await self._update(row, cells[:1], scratch) + await self._update(row, cells[1:], scratch)
        return await self._update(row, cells, scratch)

    async def _update(self, row: int, cells: list[Cell], scratch: list[memoryview]) -> list[Transfer]:
        layout = self.layout
        place = layout.row(row)
        base = row * layout.chunk
        writes = [Transfer(place.data[cell.column], base + cell.low, base + cell.high, [cell.data]) for cell in cells]
        if not self.members[place.parity].active:
            return writes
        low = min(cell.low for cell in cells)
        high = max(cell.high for cell in cells)
        span = high - low
        parity = POOL.take(span)
        scratch.append(parity)
        covered = {cell.column: cell for cell in cells if cell.high - cell.low == span}
        to_read = [column for column in range(layout.columns) if column not in covered]
        if self._prefers_modify(place.data, cells, len(to_read) * span, span):
            old = Transfer(place.parity, base + low, base + high, [parity])
            await self._modify(old, writes, cells, low, scratch)
        else:
            sources: list[Buffer] = [cell.data for cell in covered.values()]
            sources += await self._current(place.data, base, cells, to_read, low, high, scratch)
            xor(parity, sources)
        writes.append(Transfer(place.parity, base + low, base + high, [parity]))
        return writes

    def _prefers_modify(self, data: tuple[int, ...], cells: list[Cell], reconstruct_bytes: int, span: int) -> bool:
        """Read-modify-write, unless reconstruct-write reads less or a chunk to be written is on the lost member."""
        if not self._whole:
            written = {data[cell.column] for cell in cells}
            for slot in data:
                if not self.members[slot].active:
                    return slot not in written
        return sum(cell.high - cell.low for cell in cells) + span <= reconstruct_bytes

    async def _modify(
        self, parity: Transfer, writes: list[Transfer], cells: list[Cell], low: int, scratch: list[memoryview]
    ) -> None:
        """Turn the old parity into the new one: take the old data out, put the new data in."""
        reads = [parity]
        for transfer in writes:
            view = POOL.take(transfer.end - transfer.offset)
            scratch.append(view)
            reads.append(Transfer(transfer.slot, transfer.offset, transfer.end, [view]))
        await self._read_held(reads)
        target = parity.buffers[0]
        for cell, old in zip(cells, reads[1:], strict=True):
            xor_into(target[cell.low - low : cell.high - low], [old.buffers[0], cell.data])

    async def _current(
        self,
        data: tuple[int, ...],
        base: int,
        cells: list[Cell],
        columns: list[int],
        low: int,
        high: int,
        scratch: list[memoryview],
    ) -> list[memoryview]:
        """The contents that *columns* will have over [low, high): what is there, under what is being written."""
        reads: list[Transfer] = []
        for column in columns:
            view = POOL.take(high - low)
            scratch.append(view)
            reads.append(Transfer(data[column], base + low, base + high, [view]))
        await self._read_held(reads)
        for cell in cells:
            if cell.column in columns:
                view = reads[columns.index(cell.column)].buffers[0]
                view[cell.low - low : cell.high - low] = cell.data
        return [read.buffers[0] for read in reads]

    async def _read_held(self, reads: list[Transfer]) -> None:
        """Read for a write whose stripe locks are held; what cannot be read is reconstructed."""
        self.stripe_reads += len(reads)
        members = self.members
        present = reads if self._whole else [read for read in reads if members[read.slot].active]
        for failure in await read_all(members, present):
            await self._reconstruct(failure.transfer, failure.error)
        if not self._whole:
            for read in reads:
                if not members[read.slot].active:
                    await self._reconstruct(read, None)

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
            try:
                failures = await zero_all(self.members, transfers)
            except BaseException:
                self._suspect(first, last)
                raise
            await self._settle(failures, [], first, last)
        finally:
            self._lock.release(first, last)

    async def _write_zeros(self, offset: int, end: int) -> None:
        if offset < end:
            await self.write(offset, [bytes(end - offset)], end - offset)

    # --- the moment of truth ---------------------------------------------------------------------------------------

    async def _commit(self, transfers: list[Transfer], first: int, end: int) -> None:
        """Write data and parity of the stripes [first, end); done when every member that failed is on record."""
        saved = [] if self._whole else await self._save(transfers)
        try:
            try:
                failures = await write_all(self.members, transfers)
            except BaseException:
                self._suspect(first, end)
                raise
            if failures:
                await self._settle(failures, saved, first, end)
        finally:
            for old in saved:
                POOL.give(old.buffers[0])

    async def _save(self, transfers: list[Transfer]) -> list[Transfer]:
        """What a degraded write is about to replace; nothing if it cannot be read, which is no reason not to replace
        it.

        Parity is then the only copy of the lost member's data, so a write that finds the backing store full halfway
        must be taken back, not repaired later.
        """
        members = self.members
        saved = [
            Transfer(transfer.slot, transfer.offset, transfer.end, [POOL.take(transfer.end - transfer.offset)])
            for transfer in transfers
            if members[transfer.slot].active
        ]
        failures = await read_all(members, saved)
        for failure in failures:
            members[failure.transfer.slot].counters.read_errors += 1
        if failures:
            for old in saved:
                POOL.give(old.buffers[0])
            return []
        return saved

    async def _settle(self, failures: Sequence[Failure], saved: list[Transfer], first: int, end: int) -> None:
        full: OrionError | None = None
        for _transfer, error, member in failures:
            member.counters.write_errors += 1
            if isinstance(error, NoSpace):
                full = error
            else:
                await self.faults.member_failed(member, error)
        if full is not None:
            if self._whole or not await self._take_back(saved):
                self._suspect(first, end)
            raise full

    async def _take_back(self, saved: list[Transfer]) -> bool:
        """Put the old contents back, block by block; whether that is what the members hold now.

        A block that does not fit was never written: a hole before, and a hole still.
        """
        restored = bool(saved)
        for transfer in saved:
            old = transfer.buffers[0]
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

    # --- resync ----------------------------------------------------------------------------------------------------

    async def sync_units(self, first: int, count: int) -> None:
        chunk = self.layout.chunk
        offset, end = first * chunk, (first + count) * chunk
        if not self._lock.try_acquire(first, first + count):
            await self._lock.acquire(first, first + count)
        scratch = [POOL.take(end - offset) for _ in range(len(self.members) + 1)]
        try:
            reads = [Transfer(member.slot, offset, end, [scratch[member.slot]]) for member in self.members]
            for failure in await read_all(self.members, reads):
                self.members[failure.transfer.slot].counters.read_errors += 1
                raise failure.error
            difference = scratch[-1]
            xor(difference, scratch[:-1])
            writes = []
            for number in nonzero_rows(difference, chunk):
                slot = self.layout.row(first + number).parity
                parity = scratch[slot][number * chunk : (number + 1) * chunk]
                xor_into(parity, [difference[number * chunk : (number + 1) * chunk]])
                writes.append(Transfer(slot, offset + number * chunk, offset + (number + 1) * chunk, [parity]))
            await self._settle(await write_all(self.members, writes), [], first, first + count)
        finally:
            for view in scratch:
                POOL.give(view)
            self._lock.release(first, first + count)
