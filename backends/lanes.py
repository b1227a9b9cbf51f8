"""Lanes: the worker threads of one member for one kind of work."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from orionfs.threads import Threads, Worker

T = TypeVar("T")


class Lanes:
    """At most *count* workers.  Another one begins only when all before it are busy.

    With more than one lane the calls have no order among each other.
    """

    def __init__(self, threads: Threads, name: str, count: int) -> None:
        self._threads = threads
        self._name = name
        self._count = count
        self._lanes: list[_Lane] = []
        self._closed = False

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` on the least busy lane.  Cannot be cancelled; EBADF (OSError) once it is closed."""
        if self._closed:
            raise OSError(errno.EBADF, "it is closed")
        lane = min(self._lanes, key=_load, default=None)
        if lane is None or (lane.load and len(self._lanes) < self._count):
            lane = _Lane(self._threads.worker(self._name))
            self._lanes.append(lane)
        lane.load += 1
        try:
            return await lane.worker.run(function, *args)
        finally:
            lane.load -= 1

    async def aclose(self) -> None:
        """Take no more calls, wait until all are done, and end the workers.  Idempotent."""
        self._closed = True
        while self._lanes:
            lane = self._lanes.pop()
            if lane.load:
                await lane.worker.run(_nothing)  # calls run in order: when this one is done, so are those before it
            lane.worker.close()


class _Lane:
    """A worker and how many calls it has to do."""

    __slots__ = ("load", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.load = 0


def _load(lane: _Lane) -> int:
    return lane.load


def _nothing() -> None:
    """What a lane runs when only the end of its queue matters."""
