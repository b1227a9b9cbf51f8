"""Log: what an array needs of its journal or PPL."""

from __future__ import annotations

from typing import Protocol

from orionfs.array.engine import StripeLog
from orionfs.array.superblocks import Failures


class Log(StripeLog, Protocol):
    """What an array needs of its journal or PPL beyond what the engine does."""

    noun: str

    async def start(self) -> None:
        """Before the first write of anything: finish what was found, and begin anew.  May be called again."""

    async def flush(self) -> Failures:
        """Make everything durable that :meth:`write` has returned for; the members that failed their flush."""

    async def drain(self) -> None:
        """Put everything in place, durably; a replay would find nothing."""

    async def run(self) -> None:
        """The background work, until cancelled."""

    async def member_changed(self) -> None:
        """A member has gone, or has become active."""
