"""Seam: threads.  What would block the event loop runs on a worker; in a simulation it runs in place.

A worker of ours answers in 30 us where ``trio.to_thread`` takes 47: one long-lived thread with a plain queue.  Each
slow device has a worker of its own, so that one of them never delays another.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import outcome
import trio

T = TypeVar("T")


class Worker(Protocol):
    """Runs functions off the event loop, one after the other, in the order of the calls."""

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call ``function(*args)`` on the worker; its result or exception is ours.

        Cannot be cancelled once begun: a write that the caller gave up on would still reach the medium.
        """

    def close(self) -> None:
        """Let queued calls finish, then end the worker.  Does not wait."""


class Threads(Protocol):
    """Hands out workers."""

    def worker(self, name: str) -> Worker:
        """A new worker; *name* is what ``ps -T`` shows.  Its thread begins with the first call."""


class ThreadWorker:
    """A real thread, started by the first call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, function: Callable[..., T], *args: object) -> T:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        call = _Call(function, args, trio.lowlevel.current_task(), trio.lowlevel.current_trio_token())
        self._calls.put(call)
        result: T = await trio.lowlevel.wait_task_rescheduled(_never_abort)
        return result

    def close(self) -> None:
        if self._thread is not None:
            self._calls.put(None)
            self._thread = None

    def _serve(self) -> None:
        while (call := self._calls.get()) is not None:
            call.run()
            del call


class _Call:
    """One function call that waits for, or has, its outcome."""

    __slots__ = ("args", "function", "task", "token")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[object, ...],
        task: trio.lowlevel.Task,
        token: trio.lowlevel.TrioToken,
    ) -> None:
        self.function = function
        self.args = args
        self.task = task
        self.token = token

    def run(self) -> None:
        result = outcome.capture(self.function, *self.args)
        try:
            self.token.run_sync_soon(trio.lowlevel.reschedule, self.task, result)
        except trio.RunFinishedError:
            return  # the loop is gone, and with it whoever wanted to know


def _never_abort(_raise_cancel: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class SystemThreads:
    """Real threads."""

    def worker(self, name: str) -> Worker:
        return ThreadWorker(name)
