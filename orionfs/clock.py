"""Seam: time.  Nothing else in OrionFS may ask the system what time it is, or sleep."""

from __future__ import annotations

import time
from typing import Protocol

import trio


class Clock(Protocol):
    """What the stack may know about time."""

    def monotonic(self) -> float:
        """Seconds on the event loop's clock: for deadlines and rates."""

    def elapsed_ns(self) -> int:
        """Nanoseconds on a clock fit for timing one operation, threads included."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, for superblocks, events and mtime."""

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* of :meth:`monotonic` pass; a checkpoint."""


class SystemClock:
    """The real one."""

    monotonic = staticmethod(trio.current_time)
    elapsed_ns = staticmethod(time.perf_counter_ns)
    wall_ns = staticmethod(time.time_ns)
    sleep = staticmethod(trio.sleep)
