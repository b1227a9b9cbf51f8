"""Scrub: reading everything to see whether redundancy agrees with data, and mending it on demand."""

from __future__ import annotations

from orionfs.array.engine import Mismatch
from orionfs.array.job import Job, ScrubResult
from orionfs.array.work import Gate, Host, timed
from orionfs.errors import OrionError


class Scrub:
    """One ``check`` or ``repair`` of one array.  May be stopped and run on."""

    def __init__(self, host: Host, gate: Gate, kind: str) -> None:
        self._host = host
        self._gate = gate
        self._repair = kind == "repair"
        self.result = ScrubResult("repair" if self._repair else "check")
        self._position = 0

    async def run(self, job: Job) -> None:
        """Go on to the end.  Raises :class:`~orionfs.array.work.Preempted`."""
        host, sync = self._host, self._host.engine.sync
        job.total = sync.unit_count * sync.unit_size
        if not self._position:
            host.emit(f"{job.kind}.started", "all redundancy is being compared with the data")
        while self._position < sync.unit_count and not host.hopeless():
            await self._gate.passed()
            job.advance(self._position * sync.unit_size, host.clock.monotonic())
            batch = host.pace.batch(sync.unit_size) // sync.unit_size
            await self._some(min(batch, sync.unit_count - self._position))
        job.advance(self._position * sync.unit_size, host.clock.monotonic())
        self.result.finished = self._position == sync.unit_count
        host.emit(
            f"{job.kind}.finished",
            f"{self.result.mismatches} mismatches, {self.result.repaired} repaired,"
            f" {self.result.unreadable} places could not be compared",
            severity="warning" if self.result.mismatches or self.result.unreadable else "info",
        )

    async def _some(self, count: int) -> None:
        """The next *count* units, one by one if they cannot be read together."""
        first = self._position
        if not await self._attempt(first, count):
            for unit in range(first, first + count):
                if count == 1 or not await self._attempt(unit, 1):
                    self.result.unreadable += 1
        self._position = first + count
        self.result.checked = self._position * self._host.engine.sync.unit_size

    async def _attempt(self, first: int, count: int) -> bool:
        host, engine = self._host, self._host.engine
        found: list[Mismatch] = []

        async def compare() -> None:
            if self._repair:
                await host.mark_dirty()
            found.extend(await engine.scrub_units(first, count, repair=self._repair))

        try:
            await timed(host, compare, count * engine.sync.unit_size)
        except OrionError as error:
            if count == 1:
                host.emit("scrub.unreadable", f"stripe {first} cannot be compared: {error.message}", severity="warning")
            return False
        self.result.note(found)
        return True
