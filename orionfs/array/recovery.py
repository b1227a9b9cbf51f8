"""Recovery: filling a spare that has taken a slot, or the replacement of a member that still works."""

from __future__ import annotations

from orionfs.array.engine import TargetFailed
from orionfs.array.holes import Lookout, hole_length
from orionfs.array.job import Job
from orionfs.array.member import Member
from orionfs.array.work import Gate, Host, timed
from orionfs.errors import OrionError
from orionfs.units import GIB

#: How far ahead the job looks for areas that were never written.
_LOOKAHEAD = GIB
#: How often the superblocks record how far it has got.
CHECKPOINT_S = 5.0
#: How long to wait before a place that cannot be read is tried again.
RETRY_S = 30.0


class Recovery:
    """One array's job for one *target*: a member in state ``rebuilding``, or a copy in state ``replacing``."""

    def __init__(self, host: Host, gate: Gate, target: Member, *, by_bitmap: bool = False) -> None:
        """With *by_bitmap*, what the bitmap does not list is the same on *target* already."""
        self._host = host
        self._gate = gate
        self.target = target
        self.by_bitmap = by_bitmap
        self._recorded_at = host.clock.monotonic()
        self._lookout = Lookout()

    async def run(self, job: Job) -> None:
        """Fill the target from its ``valid`` on, and make it a member in sync.

        Returns early if the target fails or is taken away.  Raises :class:`~orionfs.array.work.Preempted`.
        """
        host, target = self._host, self.target
        job.total = host.engine.rebuild_end
        job.member = target.label
        kind = "the bitmap's blocks of it are" if self.by_bitmap else "it is"
        host.emit(f"{job.kind}.started", f"{target.label}: {kind} being filled from {target.valid} bytes on")
        try:
            while self._wanted() and target.valid < job.total:
                await self._gate.passed()
                job.advance(target.valid, host.clock.monotonic())
                if not await self._skip():
                    await self._fill(job)
                await self._record_now_and_then()
        except TargetFailed as error:
            await host.member_failed(target, error)
            return
        if self._wanted():
            job.advance(job.total, host.clock.monotonic())
            await host.admit(target)
            if target.active:
                host.emit(f"{job.kind}.finished", f"{target.label} is in sync")

    def _wanted(self) -> bool:
        return self.target.state in ("rebuilding", "replacing") and not self._host.hopeless()

    async def _fill(self, job: Job) -> None:
        """The next batch; smaller steps, and then bad blocks, where the others cannot be read."""
        host, target, engine = self._host, self.target, self._host.engine
        low = target.valid
        for size in (host.pace.batch(engine.rebuild_unit), engine.rebuild_unit):
            high = min(low + size, engine.rebuild_end)
            try:
                await timed(host, lambda: engine.rebuild(target, low, high), high - low)  # noqa: B023 - awaited at once
            except TargetFailed:
                raise
            except OrionError as error:
                trouble = error
                continue
            job.trouble = ""
            return
        if target.bad is not None:
            # What nobody can tell any more must not stop the rest from being redundant again.
            host.emit("recovery.unreadable", f"{target.label}: {trouble.message}", severity="error", offset=low)
            target.bad.add(low, high)
            target.valid = high
            return
        if job.trouble != trouble.message:
            job.trouble = trouble.message
            host.emit(f"{job.kind}.waiting", f"{target.label}: {trouble.message}", severity="warning")
        job.state = "waiting"
        await host.clock.sleep(RETRY_S)
        job.state = "running"

    async def _skip(self) -> bool:
        """Step over what needs no copying; whether there was any."""
        if self.by_bitmap:
            return self._skip_unmarked()
        return await self._skip_unused()

    def _skip_unmarked(self) -> bool:
        """Over what the bitmap does not list.  No wait between look and step: a write marks before it begins."""
        host, target, engine = self._host, self.target, self._host.engine
        step = max(GIB // 1024 // engine.rebuild_unit, 1) * engine.rebuild_unit
        low = target.valid
        while low < engine.rebuild_end and not host.marked(target.slot, low, min(low + step, engine.rebuild_end)):
            low = min(low + step, engine.rebuild_end)
        moved = low > target.valid
        target.valid = low
        return moved

    async def _skip_unused(self) -> bool:
        """Over what no other member has ever stored anything in, if the target has nothing there either."""
        host, target, engine = self._host, self.target, self._host.engine
        low = target.valid
        seen = host.writes()
        if not self._lookout.due(low) or not host.quiet_since(seen):
            return False
        await host.drain()
        end = min(low + _LOOKAHEAD, engine.rebuild_end)
        length = await engine.unused_of(target.slot, low, end)
        self._lookout.saw(low, hole=length >= engine.rebuild_unit)
        if length < engine.rebuild_unit:
            return False
        length -= 0 if low + length == engine.rebuild_end else length % engine.rebuild_unit
        if await hole_length([target], low, low + length) < length:
            try:
                await target.present.write_zeroes(target.data_offset + low, length)
            except OrionError as error:
                raise TargetFailed(error.message) from error
        if not host.quiet_since(seen):
            return False  # somebody may have written there meanwhile, and not to the target
        target.valid = low + length
        return True

    async def _record_now_and_then(self) -> None:
        now = self._host.clock.monotonic()
        if now - self._recorded_at >= CHECKPOINT_S:
            self._recorded_at = now
            await self._host.checkpoint(self.target)
