"""RAID 4, 5 and 6: stripes with one parity chunk or two.

P is the XOR of the data chunks.  Q is a sum of them in which each counts differently: with both, any two chunks of a
stripe can be lost, or one found that is silently wrong.

The engine comes in layers: reads and recovery (:mod:`~orionfs.array.parity_recovery`), writes
(:mod:`~orionfs.array.parity_update`), resync and scrub (:mod:`~orionfs.array.parity_upkeep`), and here rebuilds and
what the array wants to know.
"""

from __future__ import annotations

from orionfs.array.engine import TargetFailed
from orionfs.array.member import Member
from orionfs.array.parity_bands import Band, Room, bands
from orionfs.array.parity_upkeep import ParityUpkeep
from orionfs.array.stripe import sources
from orionfs.array.transfer import Transfer, read_all
from orionfs.buffers import POOL
from orionfs.errors import OrionError


class ParityEngine(ParityUpkeep):
    """The data path of levels 4, 5 and 6."""

    # --- rebuild ---------------------------------------------------------------------------------------------------

    async def rebuild(self, target: Member, low: int, high: int) -> None:
        """As :meth:`Engine.rebuild`.  A copy is read from its original, where that can be read."""
        chunk = self.layout.chunk
        first, end = low // chunk, -(-high // chunk)
        await self._acquire(first, end)
        try:
            if self.log is not None:
                await self.log.settle(first, end)
            with Room(self.layout, len(self.members), end - first) as room:
                for band in bands(chunk, first, end):
                    await self._rebuild_band(target, band, room)
            if target.state != "failed":
                target.valid = high
        finally:
            self._lock.release(first, end)

    async def _rebuild_band(self, target: Member, band: Band, room: Room) -> None:
        original, content = self.members[target.slot], room.of(target.slot, band)
        if original is not target and band.high <= original.valid:
            done = not await read_all(self.members, [Transfer(target.slot, band.low, band.high, [content])])
        else:
            done = await self._recover_band(target.slot, band, room)
        if done:
            await _fill(target, band.low, content)
            return
        for stripe in band.stripes():
            await self._rebuild_stripe(target, stripe)

    async def _recover_band(self, slot: int, band: Band, room: Room) -> bool:
        """Compute what the member in *slot* has to hold; False if that needs a closer look."""
        lost = self._lost(band.high) | {slot}
        if not self.sync.trusted(band.first, band.first + band.height):
            return False
        kinds = [self.layout.row(band.first + index) for index in range(min(band.height, self.layout.period))]
        if any(sources(place, lost) is None for place in kinds) or not await self._read_band(band, room, lost):
            return False
        room.recover(band, lost, slot)
        return True

    async def _rebuild_stripe(self, target: Member, band: Band) -> None:
        """Fill one stripe of *target* by whatever means there are left."""
        slot = target.slot
        original = self.members[slot]
        broken: dict[int, OrionError] = {}
        scratch: list[memoryview] = []
        try:
            if original is not target and band.high <= original.valid:
                content = self._take(band.width, scratch)
                failures = await read_all(self.members, [Transfer(slot, band.low, band.high, [content])])
                if not failures:
                    await _fill(target, band.low, content)
                    return
                original.counters.read_errors += 1
                broken[slot] = failures[0].error
            chunks = await self._solve(band.first, band.low, band.high, broken, (slot,), scratch)
            await _fill(target, band.low, chunks[slot])
            await self._mend(band.first, band.low, band.high, broken, chunks)
        finally:
            for view in scratch:
                POOL.give(view)

    # --- facts -----------------------------------------------------------------------------------------------------

    def sync_range(self, offset: int, length: int) -> tuple[int, int]:
        width, chunk = self.layout.row_width, self.layout.chunk
        return offset // width * chunk, -(-(offset + length) // width) * chunk

    def allocated(self) -> int:
        active = [member for member in self.members if member.active]
        stored = sum(member.present.allocated() for member in active)
        return stored * self.layout.columns // len(active) if active else 0

    async def _data_of(self, slot: int, low: int, high: int) -> list[tuple[int, int]]:
        """As for any engine; what waits in a journal counts, and a lost chunk is zeros where all others are."""
        member = self.members[slot]
        if high <= member.valid:
            return _merged([*await super()._data_of(slot, low, high), *self._pending(member, low, high)])
        chunk = self.layout.chunk
        if not self.sync.trusted(low // chunk, -(-high // chunk)):
            return [(low, high)]
        data: list[tuple[int, int]] = []
        for other in self.members:
            if other.active:
                data += await super()._data_of(other.slot, low, high)
                data += self._pending(other, low, high)
        return _merged(data)

    def _pending(self, member: Member, low: int, high: int) -> list[tuple[int, int]]:
        pending = member.pending.over(low, high) if member.pending is not None else ()
        return [(offset, offset + len(data)) for offset, data in pending]


async def _fill(target: Member, low: int, content: memoryview) -> None:
    """Write *content* to a member that is being filled.  Raises :class:`TargetFailed`."""
    try:
        if not target.present.try_write(target.data_offset + low, [content]):
            await target.present.write(target.data_offset + low, [content])
    except OrionError as error:
        target.counters.write_errors += 1
        raise TargetFailed(f"{target.label} cannot be filled: {error.message}") from error
    if target.bad:
        target.bad.forget(low, low + len(content))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """*ranges* in order, with those that overlap or touch made one."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], high)
        else:
            merged.append((low, high))
    return merged
