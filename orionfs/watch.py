"""Watching for devices that come back: a member or spare that is not there has its path looked at until it is.

Nothing is watched while everything is there.  What the filesystem says is asked on a worker of its own for each path,
because a path on a dead network filesystem may not answer for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import trio

from orionfs.environment import Environment
from orionfs.monitor.events import EventLog

#: How often a path is looked at.
INTERVAL_S = 1.0

#: Tells one state of a file from another: device, inode, size, time of change; for a block device its number alone.
Identity = tuple[int, ...]


class Absent(NamedTuple):
    """A device that is not in use.  ``owner`` is the array that wants it, empty for the spares.

    ``failed``: what is at its path now is what failed, so that only something else is worth a try.
    """

    owner: str
    label: str
    path: Path
    failed: bool = False


#: Opens what is back and gives it to its owner; whether that was the end of the story.
Offer = Callable[[Absent], Awaitable[bool]]


def look(path: Path) -> Identity | None:
    """What is at *path*: None for nothing.  Blocks."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if stat.S_ISBLK(found.st_mode):
        return os.major(found.st_rdev), os.minor(found.st_rdev)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class Watch:
    """Looks after what *absent* lists, and offers it once it is there and does not change any more."""

    def __init__(
        self,
        environment: Environment,
        events: EventLog,
        *,
        absent: Callable[[], Iterable[Absent]],
        offer: Offer,
        look: Callable[[Path], Identity | None] = look,
    ) -> None:
        """*absent* is asked after each event, because whatever becomes absent is told by one."""
        self._environment = environment
        self._events = events
        self._absent = absent
        self._offer = offer
        self._look = look
        self._watched: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                seen = self._events.last
                for one in self._absent():
                    if (one.owner, one.label) not in self._watched:
                        self._watched.add((one.owner, one.label))
                        nursery.start_soon(self._follow, one)
                await self._events.wait(seen)

    async def _follow(self, one: Absent) -> None:
        """Look until it was taken back, or is not missed any more."""
        worker = self._environment.threads.worker(f"watch {one.label}")
        try:
            tried = await worker.run(self._look, one.path) if one.failed else None
            before: Identity | None = None
            while self._is_absent(one):
                await self._environment.clock.sleep(INTERVAL_S)
                found = await worker.run(self._look, one.path)
                if found is None:
                    tried = None
                elif found == before and _differs(found, tried, one) and self._is_absent(one):
                    # Twice the same: nobody is just copying it into place.
                    tried = found
                    if await self._offer(one):
                        return
                before = found
        finally:
            worker.close()
            self._watched.discard((one.owner, one.label))

    def _is_absent(self, one: Absent) -> bool:
        return any((each.owner, each.label) == (one.owner, one.label) for each in self._absent())


def _differs(found: Identity, tried: Identity | None, one: Absent) -> bool:
    """Whether *found* is worth a try after *tried* was not.  Being written makes no other device of what has failed."""
    if tried is None:
        return True
    return found[:2] != tried[:2] if one.failed else found != tried
