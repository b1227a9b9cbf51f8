"""Resync: the background job that makes redundancy agree with data after an unclean stop or a half-done write."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

import trio

from orionfs.array.engine import Engine
from orionfs.clock import Clock
from orionfs.errors import NoSpace, OrionError
from orionfs.extents import Kind
from orionfs.units import GIB, MIB

#: How much of each member is compared at a time, and how far ahead the job looks for areas that were never written.
_BATCH = MIB
_LOOKAHEAD = GIB
#: How long to wait before units that could not be mended are tried again: for want of space, or of a readable member.
RETRY_FULL_S = 1.0
RETRY_UNREADABLE_S = 30.0


class Emit(Protocol):
    """Where events go."""

    def __call__(self, kind: str, message: str, *, severity: str = "info", **facts: Any) -> object:
        """Record one event about the array."""


class Resync:
    """One array's job.  At most one runs at a time; it ends when nothing is left to prove."""

    def __init__(
        self, engine: Engine, clock: Clock, emit: Emit, *, activity: Callable[[], int], hopeless: Callable[[], bool]
    ) -> None:
        """*activity* counts foreground requests, *hopeless* tells when the array takes no more writes."""
        self._engine = engine
        self._clock = clock
        self._emit = emit
        self._activity = activity
        self._hopeless = hopeless
        self._retry_after_s = 0.0
        self._started = 0.0
        self._start_position = 0
        self.running = False
        self.trouble = ""

    async def run(self) -> None:
        """Work until everything is in sync, or cannot be any more because members are gone.

        Units that cannot be mended now (no space, a member that cannot be read) stay suspect and are tried again.
        """
        sync = self._engine.sync
        whole = sync.position < sync.unit_count
        self._started = self._clock.monotonic()
        self._start_position = sync.position
        self.running = True
        if whole:
            self._emit("resync.started", "redundancy is being checked and mended after an unclean stop")
        try:
            while sync.needed and self._engine.can_sync and not self._hopeless():
                self._retry_after_s = RETRY_UNREADABLE_S
                await self._pass()
                if sync.needed and self._engine.can_sync and not self._hopeless():
                    await self._clock.sleep(self._retry_after_s)
        finally:
            self.running = False
        if not sync.needed:
            self.trouble = ""
            if whole:
                self._emit("resync.finished", "all redundancy is proven")

    async def _pass(self) -> None:
        """Go once through everything that is unproven."""
        sync = self._engine.sync
        batch = max(_BATCH // sync.unit_size, 1)
        while sync.position < sync.unit_count and self._engine.can_sync and not self._hopeless():
            count = min(batch, sync.unit_count - sync.position)
            unused = await self._unused_ahead()
            if unused >= count:
                sync.position += unused
                continue
            first = sync.position
            if not await self._attempt(first, count):
                sync.suspect(first, first + count)
                sync.position = first + count
        for unit in sorted(sync.suspects):
            if self._engine.can_sync and not self._hopeless():
                await self._attempt(unit, 1)

    async def _attempt(self, first: int, count: int) -> bool:
        """Prove some units; False, with the reason noted, if that did not work."""
        try:
            await self._sync(first, count)
        except OrionError as error:
            if isinstance(error, NoSpace):
                self._retry_after_s = RETRY_FULL_S
            if self.trouble != error.message:
                self.trouble = error.message
                self._emit("resync.waiting", f"redundancy is not complete: {error.message}", severity="warning")
            return False
        return True

    async def _sync(self, first: int, count: int) -> None:
        """Prove some units, then let the foreground have as much time as that took, if it has anything to do."""
        sync = self._engine.sync
        requests = self._activity()
        began = self._clock.monotonic()
        await self._engine.sync_units(first, count)
        # No checkpoint before this is noted: a write that fails from now on makes its units suspect anew.
        sync.suspects.difference_update(range(first, first + count))
        if first == sync.position:
            sync.position += count
        await trio.lowlevel.checkpoint()
        if self._activity() != requests:
            await self._clock.sleep(self._clock.monotonic() - began)

    async def _unused_ahead(self) -> int:
        """How many units from the current one no member has ever stored anything in: they agree, all zeros."""
        sync = self._engine.sync
        start = sync.position * sync.unit_size
        length = min(_LOOKAHEAD, sync.unit_count * sync.unit_size - start)
        nearest = start + length
        for member in self._engine.members:
            base = member.data_offset
            reach = min(nearest, member.data_size) - start
            if not member.active or reach <= 0:
                continue
            async with aclosing(member.present.extents(base + start, reach)) as extents:
                async for extent in extents:
                    if extent.kind is Kind.DATA:
                        nearest = min(nearest, extent.offset - base)
                        break
        units = (nearest - start) // sync.unit_size
        return units + 1 if nearest == start + length and (nearest - start) % sync.unit_size else units

    def progress(self) -> dict[str, Any] | None:
        """The job for status: bytes of each member done and in total, rate in bytes per second, time left."""
        sync = self._engine.sync
        if not self.running:
            return None
        total = sync.unit_count * sync.unit_size
        done = sync.position * sync.unit_size
        elapsed = self._clock.monotonic() - self._started
        rate = (sync.position - self._start_position) * sync.unit_size / elapsed if elapsed > 0 else 0.0
        left = (total - done) / rate if rate else None
        return {
            "kind": "resync",
            "done": done,
            "total": total,
            "rate": int(rate),
            "eta_s": left,
            "waiting": self.trouble,
        }
