"""What background jobs on an array have in common: what they may ask of it, and how they are paused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from orionfs.array.engine import Engine
from orionfs.array.member import Member
from orionfs.array.pace import Pace
from orionfs.array.roster import Roster
from orionfs.clock import Clock
from orionfs.errors import OrionError


class Host(Protocol):
    """The array that a job works on."""

    engine: Engine
    roster: Roster
    clock: Clock
    pace: Pace

    def emit(self, kind: str, message: str, *, severity: str = "info", **facts: Any) -> object:
        """Record one event about the array."""

    def hopeless(self) -> bool:
        """Whether the array takes no more writes."""

    def activity(self) -> int:
        """How many requests have come from the foreground."""

    def quiet_since(self, seen: int) -> bool:
        """Whether nothing has been written since :meth:`writes` returned *seen*, nor is being written now."""

    def writes(self) -> int:
        """How many writes have come."""

    async def mark_dirty(self) -> None:
        """Make the superblocks say that redundancy may be behind."""

    async def drain(self) -> None:
        """Have everything put in place that a log still holds."""

    async def member_failed(self, member: Member, error: OrionError) -> None:
        """As :meth:`orionfs.array.engine.Faults.member_failed`."""

    async def checkpoint(self, target: Member) -> None:
        """Record durably how far *target* is filled."""

    async def admit(self, target: Member) -> None:
        """*target* is filled: make it a member in sync, on record."""

    def marked(self, slot: int, low: int, high: int) -> bool:
        """Whether the bitmap lists anything of the bytes [low, high) of a member's data area (or there is none)."""


class Preempted(Exception):
    """Something more urgent is to be done, or the job was cancelled: stop at this point."""


class Gate:
    """Where jobs wait while the array's background work is paused, and learn that they have to stop."""

    def __init__(self) -> None:
        self._open = trio.Event()
        self._open.set()
        self._urgent: Callable[[], bool] = lambda: False

    @property
    def paused(self) -> bool:
        """Whether jobs wait."""
        return not self._open.is_set()

    def pause(self) -> None:
        """Let jobs wait where they are."""
        if not self.paused:
            self._open = trio.Event()

    def resume(self) -> None:
        """Let them go on."""
        self._open.set()

    def watch(self, urgent: Callable[[], bool]) -> None:
        """Stop the job that is about to run as soon as *urgent* says so."""
        self._urgent = urgent

    async def passed(self) -> None:
        """Return when work may go on.  Raises :class:`Preempted` if this job has to stop."""
        if not self._open.is_set():
            await self._open.wait()
        if self._urgent():
            raise Preempted


async def timed(host: Host, act: Callable[[], Awaitable[None]], moved: int) -> None:
    """Do *act*, which moves that many bytes of member data, then let the foreground have its share."""
    began = host.clock.monotonic()
    await act()
    await host.pace.rest(moved, host.clock.monotonic() - began)
