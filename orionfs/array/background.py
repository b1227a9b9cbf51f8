"""Background: which job an array does next, and the queue of those that were asked for."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from orionfs.array.job import Job
from orionfs.array.recovery import Recovery
from orionfs.array.resync import Resync
from orionfs.array.scrub import Scrub
from orionfs.array.work import Gate, Host, Preempted
from orionfs.errors import OrionError, Refused


class Takeover(Host, Protocol):
    """What the background work may ask of an array beyond what its jobs may."""

    async def take_over(self) -> bool:
        """Let a spare take an empty slot, if there are both and the policy says so; whether one did."""

    def spare_wanted(self) -> bool:
        """Whether :meth:`take_over` would find something to do."""


class Background:
    """The jobs of one array, one at a time: resync, then recovery, then replacement, then what was asked for."""

    def __init__(self, host: Takeover, gate: Gate) -> None:
        self._host = host
        self._gate = gate
        self._woken = trio.Event()
        self._asked: list[tuple[Job, Scrub]] = []
        self._scrub: Scrub | None = None
        self._cancelled = False
        #: Targets that need only what the bitmap lists, by the id of the member.
        self.by_bitmap: set[int] = set()
        self.resync = Resync(host, gate)
        self.job: Job | None = None

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def ask(self, kind: str) -> None:
        """Queue a ``check`` or a ``repair``.  Raises :class:`Refused` if the level has nothing to compare."""
        if not self._host.engine.redundant:
            raise Refused("this level has no redundancy to compare", hint="only mirrors and parity can be checked")
        scrub = Scrub(self._host, self._gate, kind)
        self._asked.append((Job(scrub.result.kind), scrub))
        self.wake()

    def cancel(self) -> int:
        """Forget what was asked for, also if it runs; how many jobs that were."""
        count = len(self._asked)
        self._asked.clear()
        if self.job is not None and self.job.kind in ("check", "repair"):
            self._cancelled = True
            count += 1
        self._gate.resume()
        return count

    async def run(self) -> None:
        """Work until the array is hopeless; cancelled at its end."""
        while not self._host.hopeless():
            self._woken = trio.Event()
            if not await self._one():
                await self._woken.wait()

    async def _one(self) -> bool:
        """Do the most urgent job; False if there is none that can be done."""
        host = self._host
        sync = host.engine.sync
        try:
            if sync.needed and host.engine.can_sync:
                self._gate.watch(lambda: False)
                await self._do(Job("resync"), self.resync)
                return not sync.needed
            if await host.take_over():
                return True
            target = host.roster.filling()
            if target is not None:
                self._gate.watch(lambda: sync.needed and host.engine.can_sync)
                job = Job("recovery" if target.state == "rebuilding" else "replacement", member=target.label)
                await self._do(job, Recovery(host, self._gate, target, by_bitmap=id(target) in self.by_bitmap))
                if target is not host.roster.filling():
                    self.by_bitmap.discard(id(target))
                return True
            if self._asked:
                await self._scrub_next()
                return True
        except OrionError as error:
            host.emit("job.stopped", error.message, severity="error")
        return False

    async def _do(self, job: Job, work: Any) -> None:
        self.job = job
        job.state = "running"
        try:
            await work.run(job)
        except Preempted:
            pass  # the next round finds what is more urgent
        finally:
            self.job = None

    async def _scrub_next(self) -> None:
        job, self._scrub = self._asked.pop(0)
        self._cancelled = False
        self._gate.watch(self._urgent)
        await self._do(job, self._scrub)
        if not self._scrub.result.finished and not self._cancelled and not self._host.hopeless():
            job.state = "queued"
            self._asked.insert(0, (job, self._scrub))

    def _urgent(self) -> bool:
        host = self._host
        return (
            self._cancelled
            or (host.engine.sync.needed and host.engine.can_sync)
            or host.roster.filling() is not None
            or host.spare_wanted()
        )

    # --- facts -----------------------------------------------------------------------------------------------------

    def describe_job(self) -> dict[str, Any] | None:
        """The job that runs, for status."""
        if self.job is None:
            return None
        facts = self.job.describe()
        if self._gate.paused:
            facts["state"] = "paused"
            facts["eta_s"] = None
        return facts

    def describe_queue(self) -> list[dict[str, Any]]:
        """The jobs that wait for their turn."""
        return [job.describe() for job, _scrub in self._asked]

    def describe_scrub(self, labels: list[str]) -> dict[str, Any] | None:
        """What the last scrub has found so far."""
        return self._scrub.result.describe(labels) if self._scrub is not None else None
