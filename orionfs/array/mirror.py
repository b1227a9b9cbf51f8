"""RAID 1: every member holds everything."""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.engine import Engine, Faults
from orionfs.array.layout import Layout
from orionfs.array.member import Member
from orionfs.array.transfer import Failure, Transfer, read_all, write_all, zero_all
from orionfs.buffers import POOL, Buffer
from orionfs.errors import IntegrityError, MediaError, NoSpace, OrionError
from orionfs.kernels.parity import equal
from orionfs.rangelock import RangeLock
from orionfs.units import MIB

#: Bytes of a mirror whose copies are compared and made equal as a whole.
UNIT = 64 << 10


class MirrorEngine(Engine):
    """Reads from one copy, writes to all.

    While the copies may differ (after an unclean stop, or a write that failed halfway) every read comes from one fixed
    copy, so that a block never flips between two values.
    """

    redundant = True

    def __init__(self, members: Sequence[Member], layout: Layout, faults: Faults) -> None:
        super().__init__(members, layout, faults)
        self.sync.unit_size = UNIT
        self.sync.unit_count = self.sync.position = -(-layout.size // UNIT)
        self._lock = RangeLock()
        self._active = [member for member in members if member.active]

    @property
    def can_sync(self) -> bool:
        return len(self._active) > 1

    def member_changed(self) -> None:
        self._active = [member for member in self.members if member.active]
        if len(self._active) == 1:
            # A lone copy agrees with itself.
            self.sync.position = self.sync.unit_count
            self.sync.suspects.clear()

    def allocated(self) -> int:
        return max((member.present.allocated() for member in self._active), default=0)

    def _source(self, offset: int) -> Member:
        active = self._active
        if len(active) == 1 or self.sync.needed:
            return active[0]
        return active[offset // MIB % len(active)]

    # --- reads -----------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        if not self._active:
            return False
        member = self._source(offset)
        return member.present.try_read(member.data_offset + offset, buffers)

    async def read(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        if not self._active:
            raise MediaError("no copy is left to read from")
        source = self._source(offset)
        transfer = Transfer(source.slot, offset, offset + length, [memoryview(buffer) for buffer in buffers])
        for failure in await read_all(self.members, [transfer]):
            await self._recover(failure)

    async def _recover(self, failure: Failure) -> None:
        """Read from the other copies, then mend or fail the member whose copy could not be read."""
        bad, error = failure.member, failure.error
        bad.counters.read_errors += 1
        offset, end, views = failure.transfer.offset, failure.transfer.end, failure.transfer.buffers
        first, last = offset // UNIT, -(-end // UNIT)
        if not self._lock.try_acquire(first, last):
            await self._lock.acquire(first, last)
        try:
            if not self.sync.trusted(first, last) and len(self._active) > 1:
                raise MediaError(f"{bad.label} cannot be read, and its mirrors are not in sync yet: {error.message}")
            for other in self._active:
                if other is bad:
                    continue
                if not await read_all(self.members, [Transfer(other.slot, offset, end, views)]):
                    break
                other.counters.read_errors += 1
            else:
                raise error
            if isinstance(error, MediaError | IntegrityError):
                mend = Transfer(bad.slot, offset, end, views)
                await self._settle(await write_all(self.members, [mend]), first, last)
            else:
                await self.faults.member_failed(bad, error)
        finally:
            self._lock.release(first, last)

    # --- writes ----------------------------------------------------------------------------------------------------

    async def write(self, offset: int, buffers: Sequence[Buffer], length: int) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        end = offset + length
        first, last = offset // UNIT, -(-end // UNIT)
        if not self._lock.try_acquire(first, last):
            await self._lock.acquire(first, last)
        try:
            transfers = [Transfer(member.slot, offset, end, views) for member in self._active]
            try:
                failures = await write_all(self.members, transfers)
            except BaseException:
                self._suspect(first, last)
                raise
            if failures or not transfers:
                await self._settle(failures, first, last)
        finally:
            self._lock.release(first, last)

    async def write_zeroes(self, offset: int, length: int) -> None:
        end = offset + length
        first, last = offset // UNIT, -(-end // UNIT)
        if not self._lock.try_acquire(first, last):
            await self._lock.acquire(first, last)
        try:
            transfers = [Transfer(member.slot, offset, end, []) for member in self._active]
            try:
                failures = await zero_all(self.members, transfers)
            except BaseException:
                self._suspect(first, last)
                raise
            await self._settle(failures, first, last)
        finally:
            self._lock.release(first, last)

    async def _settle(self, failures: Sequence[Failure], first: int, last: int) -> None:
        """A write is done when every copy that failed it is recorded as failed and one copy has it."""
        full: OrionError | None = None
        for _transfer, error, member in failures:
            member.counters.write_errors += 1
            if isinstance(error, NoSpace):
                full = error
            else:
                await self.faults.member_failed(member, error)
        if not self._active:
            raise MediaError("no copy is left to write to")
        if full is not None:
            self._suspect(first, last)
            raise full

    def _suspect(self, first: int, last: int) -> None:
        if len(self._active) > 1:
            self.sync.suspect(first, last)
            self.faults.sync_wanted()

    # --- resync ----------------------------------------------------------------------------------------------------

    async def sync_units(self, first: int, count: int) -> None:
        offset, end = first * UNIT, min((first + count) * UNIT, self.layout.size)
        if not self._lock.try_acquire(first, first + count):
            await self._lock.acquire(first, first + count)
        good, copy = POOL.take(end - offset), POOL.take(end - offset)
        try:
            source = self._active[0]
            for failure in await read_all(self.members, [Transfer(source.slot, offset, end, [good])]):
                source.counters.read_errors += 1
                raise failure.error
            for member in self._active[1:]:
                transfer = Transfer(member.slot, offset, end, [copy])
                failures = await read_all(self.members, [transfer])
                if failures or not equal(copy, good):
                    transfer = Transfer(member.slot, offset, end, [good])
                    await self._settle(await write_all(self.members, [transfer]), first, first + count)
        finally:
            POOL.give(good)
            POOL.give(copy)
            self._lock.release(first, first + count)
