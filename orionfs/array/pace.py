"""Pace: how a background job shares the members with requests in the foreground."""

from __future__ import annotations

from collections.abc import Callable

import trio

from orionfs.array.policies import Policies
from orionfs.clock import Clock
from orionfs.units import KIB, MIB

#: Bytes of each member that are moved at a time: with nobody waiting, and beside foreground requests.
_IDLE_BATCH = MIB
_BUSY_BATCH = 32 * KIB
#: How long after the last foreground request a job still goes gently.
_QUIET_S = 0.1
#: Beside foreground requests a job works for one part of the time and rests for so many.
_REST = 9.0
#: Nobody measures a rate, nor keeps one, over less than this.
_WINDOW_S = 0.5


class Pace:
    """Decides how much to do at a time, and how long to rest after it.

    Alone, a job runs as fast as the ceiling allows.  Beside foreground requests it works in small batches, a tenth of
    the time, but never slower than the floor.
    """

    def __init__(self, clock: Clock, policies: Policies, activity: Callable[[], int]) -> None:
        """*activity* counts foreground requests."""
        self._clock = clock
        self._policies = policies
        self._activity = activity
        self._seen = activity()
        self._busy_until = 0.0
        self._window_began = clock.monotonic()
        self._window_bytes = 0

    def batch(self, unit: int) -> int:
        """How many bytes of each member to do next: a multiple of *unit*."""
        self._look()
        size = _BUSY_BATCH if self._busy else _IDLE_BATCH
        return max(size // unit, 1) * unit

    async def rest(self, moved: int, took_s: float) -> None:
        """Let others have their turn after *moved* bytes of member data in *took_s* seconds; a checkpoint."""
        now = self._look()
        self._window_bytes += moved
        wait = took_s * _REST if self._busy else 0.0
        policies = self._policies
        spent = now - self._window_began
        if wait and policies.rebuild_floor:
            wait = min(wait, max(self._window_bytes / policies.rebuild_floor - spent, 0.0))
        if policies.rebuild_ceiling:
            wait = max(wait, self._window_bytes / policies.rebuild_ceiling - spent)
        if spent > _WINDOW_S:
            self._window_began = now + max(wait, 0.0)
            self._window_bytes = 0
        if wait > 0:
            await self._clock.sleep(wait)
        else:
            await trio.lowlevel.checkpoint()

    @property
    def _busy(self) -> bool:
        return self._clock.monotonic() < self._busy_until

    def _look(self) -> float:
        """Notice foreground requests; the time."""
        now = self._clock.monotonic()
        count = self._activity()
        if count != self._seen:
            self._seen = count
            self._busy_until = now + _QUIET_S
        return now
