"""FaultyDevice: a device that fails, or stalls, exactly when a test says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from orionfs.buffers import Buffer, total_length
from orionfs.device import StorageDevice
from orionfs.layers.layer import Layer

#: The operations that can be scripted and that are counted.
Operation: TypeAlias = Literal["read", "write", "flush", "write_zeroes", "discard"]

#: What to raise: an exception, or a callable that makes a fresh one for each failure.
Failure: TypeAlias = Exception | Callable[[], Exception]


@dataclass(slots=True, eq=False)
class _Script:
    operation: Operation
    remaining: int
    forever: bool
    start: int
    end: float
    failure: Failure | None
    too_late: bool
    gate: trio.Event | None

    def concerns(self, offset: int, length: int) -> bool:
        return self.start <= offset < self.end or offset < self.start < offset + length


class FaultyDevice(Layer):
    """Passes everything to its child, but for the operations that were scripted.

    :attr:`calls` counts per operation what was begun, failures included; a request counts once, whether ``try_read``
    served it or ``read``.  With ``inline=False`` the ``try_`` calls always decline, so that everything goes through
    the coroutines.
    """

    def __init__(self, child: StorageDevice, *, inline: bool = True) -> None:
        super().__init__(child)
        self.inline = inline
        self.calls: Counter[Operation] = Counter()
        self._scripts: list[_Script] = []

    def fail(
        self,
        operation: Operation,
        failure: Failure,
        *,
        nth: int = 1,
        forever: bool = False,
        within: tuple[int, int] | None = None,
        too_late: bool = False,
    ) -> None:
        """Make the *nth* *operation* from now on raise *failure*; with *forever* all after it too.

        Only operations that touch the range *within* (start, end) count, if it is given.  With *too_late* the child
        does its part first, as when an answer is lost on its way back.
        """
        self._add(operation, nth, forever, within, failure, too_late, None)

    def block(self, operation: Operation, gate: trio.Event, *, nth: int = 1, forever: bool = False) -> None:
        """Make the *nth* *operation* from now on wait until *gate* is set, before the child sees it."""
        self._add(operation, nth, forever, None, None, False, gate)

    def heal(self) -> None:
        """Forget all scripts."""
        self._scripts.clear()

    def _add(
        self,
        operation: Operation,
        nth: int,
        forever: bool,
        within: tuple[int, int] | None,
        failure: Failure | None,
        too_late: bool,
        gate: trio.Event | None,
    ) -> None:
        if nth < 1:
            raise ValueError("nth counts from 1")
        start, end = within or (0, float("inf"))
        self._scripts.append(_Script(operation, nth, forever, start, end, failure, too_late, gate))

    def _peek(self, operation: Operation, offset: int, length: int) -> list[_Script]:
        """The scripts that the next *operation* triggers if it is this one."""
        return [
            script
            for script in self._scripts
            if script.operation == operation and script.remaining == 1 and script.concerns(offset, length)
        ]

    def _begin(self, operation: Operation, offset: int, length: int) -> list[_Script]:
        """Count one operation; the scripts that it triggers."""
        self.calls[operation] += 1
        due = self._peek(operation, offset, length)
        for script in list(self._scripts):
            if script in due:
                if not script.forever:
                    self._scripts.remove(script)
            elif script.operation == operation and script.concerns(offset, length):
                script.remaining -= 1
        return due

    def _attempt(
        self,
        operation: Operation,
        attempt: Callable[[int, Sequence[Buffer]], bool],
        offset: int,
        buffers: Sequence[Buffer],
    ) -> bool:
        """The ``try_`` form: what has to wait, or the child declines, leaves the scripts as they are."""
        length = total_length(buffers)
        due = self._peek(operation, offset, length)
        if not self.inline or any(script.gate is not None for script in due):
            return False
        if all(script.too_late for script in due) and not attempt(offset, buffers):
            return False
        self._after(self._begin(operation, offset, length))
        return True

    async def _before(self, scripts: list[_Script]) -> None:
        for script in scripts:
            if script.gate is not None:
                await script.gate.wait()
        for script in scripts:
            if script.failure is not None and not script.too_late:
                raise _made(script.failure)

    def _after(self, scripts: list[_Script]) -> None:
        for script in scripts:
            if script.failure is not None:
                raise _made(script.failure)

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        scripts = self._begin("read", offset, total_length(buffers))
        await self._before(scripts)
        await self.child.read(offset, buffers)
        self._after(scripts)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        scripts = self._begin("write", offset, total_length(buffers))
        await self._before(scripts)
        await self.child.write(offset, buffers)
        self._after(scripts)

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        return self._attempt("read", self.child.try_read, offset, buffers)

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        return self._attempt("write", self.child.try_write, offset, buffers)

    async def flush(self) -> None:
        scripts = self._begin("flush", 0, 0)
        await self._before(scripts)
        await self.child.flush()
        self._after(scripts)

    async def write_zeroes(self, offset: int, length: int) -> None:
        scripts = self._begin("write_zeroes", offset, length)
        await self._before(scripts)
        await self.child.write_zeroes(offset, length)
        self._after(scripts)

    async def discard(self, offset: int, length: int) -> None:
        scripts = self._begin("discard", offset, length)
        await self._before(scripts)
        await self.child.discard(offset, length)
        self._after(scripts)


def _made(failure: Failure) -> Exception:
    return failure if isinstance(failure, Exception) else failure()
