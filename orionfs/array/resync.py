"""Resync: the background job that makes redundancy agree with data after an unclean stop or a half-done write."""

from __future__ import annotations

from orionfs.array.holes import Lookout
from orionfs.array.job import Job
from orionfs.array.work import Gate, Host, timed
from orionfs.errors import NoSpace, OrionError
from orionfs.units import GIB

#: How far ahead the job looks for areas that were never written.
_LOOKAHEAD = GIB
#: How long to wait before units that could not be mended are tried again: for want of space, or of a readable member.
RETRY_FULL_S = 1.0
RETRY_UNREADABLE_S = 30.0


class Resync:
    """One array's job.  At most one runs at a time; it ends when nothing is left to prove."""

    def __init__(self, host: Host, gate: Gate) -> None:
        self._host = host
        self._gate = gate
        self._retry_after_s = 0.0
        self._lookout = Lookout()
        self.trouble = ""

    async def run(self, job: Job) -> None:
        """Work until everything is in sync, or cannot be any more because members are gone.

        Units that cannot be mended now (no space, a member that cannot be read) stay suspect and are tried again.
        Raises :class:`~orionfs.array.work.Preempted`, and what :meth:`Host.mark_dirty` raises.
        """
        host, sync = self._host, self._host.engine.sync
        whole = sync.position < sync.unit_count or bool(sync.unproven)
        job.total = sync.unit_count * sync.unit_size if sync.position < sync.unit_count else _left(host)
        await host.mark_dirty()
        if whole:
            host.emit("resync.started", "redundancy is being checked and mended after an unclean stop")
        while self._may_go_on() and sync.needed:
            self._retry_after_s = RETRY_UNREADABLE_S
            await self._pass(job)
            if sync.needed and self._may_go_on():
                job.state = "waiting"
                await host.clock.sleep(self._retry_after_s)
                job.state = "running"
        if not sync.needed:
            self.trouble = ""
            if whole:
                host.emit("resync.finished", "all redundancy is proven")

    def _may_go_on(self) -> bool:
        return self._host.engine.can_sync and not self._host.hopeless()

    async def _pass(self, job: Job) -> None:
        """Go once through everything that is unproven."""
        host, sync = self._host, self._host.engine.sync
        failed: set[int] = set()
        self._lookout = Lookout()
        while self._may_go_on():
            await self._gate.passed()
            batch = host.pace.batch(sync.unit_size) // sync.unit_size
            run = sync.next_run(batch)
            if run is None or run[0] in failed:
                break
            first, end = run
            if first == sync.position and (unused := await self._unused_ahead()) >= end - first:
                sync.position += unused
                continue
            if not await self._attempt(first, end):
                if first == sync.position:
                    sync.suspect(first, end)
                    sync.position = end
                elif end - first == 1 or not await self._one_by_one(first, end):
                    failed.update(sync.suspects | sync.unproven)
                    await self._rest_of(failed)
                    break
            job.trouble = self.trouble
            job.advance(job.total - _left(host), host.clock.monotonic())

    async def _one_by_one(self, first: int, end: int) -> bool:
        """Prove what can be proven of a run that cannot be as a whole; whether that was everything."""
        results = [await self._attempt(unit, unit + 1) for unit in range(first, end)]
        return all(results)

    async def _rest_of(self, units: set[int]) -> None:
        """Some unit cannot be proven now: try all the others once."""
        for unit in sorted(units):
            if self._may_go_on():
                await self._gate.passed()
                await self._attempt(unit, unit + 1)

    async def _attempt(self, first: int, end: int) -> bool:
        """Prove some units; False, with the reason noted, if that did not work."""
        engine = self._host.engine
        moved = (end - first) * engine.sync.unit_size
        try:
            await timed(self._host, lambda: self._prove(first, end), moved)
        except OrionError as error:
            if isinstance(error, NoSpace):
                self._retry_after_s = RETRY_FULL_S
            if self.trouble != error.message:
                self.trouble = error.message
                self._host.emit("resync.waiting", f"redundancy is not complete: {error.message}", severity="warning")
            return False
        return True

    async def _prove(self, first: int, end: int) -> None:
        await self._host.engine.sync_units(first, end - first)
        # No checkpoint before this is noted: a write that fails from now on makes its units suspect anew.
        self._host.engine.sync.prove(first, end)

    async def _unused_ahead(self) -> int:
        """How many units from the current one no member has ever stored anything in: they agree, all zeros."""
        engine = self._host.engine
        sync = engine.sync
        start = sync.position * sync.unit_size
        if not self._lookout.due(start):
            return 0
        end = min(start + _LOOKAHEAD, sync.unit_count * sync.unit_size)
        length = await engine.unused(start, end)
        units = length // sync.unit_size
        self._lookout.saw(start, hole=units > 0)
        return units + 1 if start + length == end and length % sync.unit_size else units


def _left(host: Host) -> int:
    """Bytes that are still to be proven."""
    sync = host.engine.sync
    return (sync.unit_count - sync.position + len(sync.suspects) + len(sync.unproven)) * sync.unit_size
