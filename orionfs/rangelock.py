"""A lock on byte ranges: overlapping holders take turns, all others run side by side."""

from __future__ import annotations

from bisect import bisect_left

import trio

from orionfs.extents import overlaps


class RangeLock:
    """Exclusive locks on half-open ranges ``[start, end)`` with ``start < end``, for tasks of one event loop.

    Fair: among overlapping requests the earlier one is served first, also when it is still waiting itself.  Not
    reentrant: a task that waits for a range that it holds waits for ever.  A range is given back exactly as it was
    taken, by any task.
    """

    __slots__ = ("_ends", "_starts", "_waiting")

    def __init__(self) -> None:
        # What is held is disjoint, so two sorted lists find a neighbor by bisection.  Whoever waits, waits for a held
        # range or for somebody who does: where nothing is held, nobody waits.
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._waiting: list[_Waiter] = []

    def try_acquire(self, start: int, end: int) -> bool:
        """Take the range if it overlaps none that is held or waited for; False, and nothing taken, if it does."""
        if start >= end:
            raise ValueError(f"[{start}, {end}) is not a range that can be locked")
        starts = self._starts
        if not starts:
            starts.append(start)
            self._ends.append(end)
            return True
        index = bisect_left(starts, end)
        if index and self._ends[index - 1] > start:
            return False
        for waiter in self._waiting:
            if waiter.start < end and start < waiter.end:
                return False
        starts.insert(index, start)
        self._ends.insert(index, end)
        return True

    def busy(self, start: int, end: int) -> bool:
        """Whether somebody holds a part of [start, end)."""
        starts = self._starts
        if not starts:
            return False
        index = bisect_left(starts, end)
        return bool(index) and self._ends[index - 1] > start

    async def acquire(self, start: int, end: int) -> None:
        """Take the range, after all earlier requests that overlap it.

        A checkpoint only if it has to wait.  If it is cancelled, nothing is taken.
        """
        if self.try_acquire(start, end):
            return
        waiter = _Waiter(start, end, trio.lowlevel.current_task())
        waiter.ahead = sum(1 for held in zip(self._starts, self._ends, strict=True) if overlaps(start, end, *held))
        waiter.ahead += sum(1 for other in self._waiting if overlaps(start, end, other.start, other.end))
        self._waiting.append(waiter)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            index = self._waiting.index(waiter)
            del self._waiting[index]
            self._let_through(start, end, index)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def release(self, start: int, end: int) -> None:
        """Give back a range that is held.  Raises ValueError if ``[start, end)`` is not exactly such a range."""
        starts = self._starts
        index = bisect_left(starts, start) if len(starts) > 1 else 0
        if index == len(starts) or starts[index] != start or self._ends[index] != end:
            raise ValueError(f"[{start}, {end}) is not held")
        del starts[index]
        del self._ends[index]
        if self._waiting:
            self._let_through(start, end, 0)

    def _let_through(self, start: int, end: int, first: int) -> None:
        """[start, end) stands no longer in the way of the waiters from index *first* on: they came after it."""
        served = []
        for waiter in self._waiting[first:]:
            if overlaps(start, end, waiter.start, waiter.end):
                waiter.ahead -= 1
                if not waiter.ahead:
                    served.append(waiter)
        for waiter in served:
            self._waiting.remove(waiter)
            index = bisect_left(self._starts, waiter.start)
            self._starts.insert(index, waiter.start)
            self._ends.insert(index, waiter.end)
            trio.lowlevel.reschedule(waiter.task)


class _Waiter:
    """A request that has to wait until *ahead*, the count of earlier ones that it overlaps, is zero."""

    __slots__ = ("ahead", "end", "start", "task")

    def __init__(self, start: int, end: int, task: trio.lowlevel.Task) -> None:
        self.start = start
        self.end = end
        self.task = task
        self.ahead = 0
