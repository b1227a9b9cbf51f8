"""Single: one device of a jbod, as it is: no superblock, nothing combined, nothing that could stand in for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import asdict
from typing import ClassVar

from orionfs.buffers import Buffer
from orionfs.device import Counters, Description, StorageDevice
from orionfs.errors import NoSpace, OrionError, ReadOnly
from orionfs.extents import Extent
from orionfs.layers.layer import Layer


class Single(Layer):
    """*child*, called *name*, which describes itself as an array of one member and counts what went wrong."""

    kind: ClassVar[str] = "array"

    def __init__(self, child: StorageDevice, *, name: str, read_only: bool = False) -> None:
        super().__init__(child, name=name)
        self.read_only = read_only
        self._counters = Counters()
        self._trouble = ""

    # --- data ------------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        try:
            if not self.child.try_read(offset, buffers):
                return False
        except OrionError:
            return False  # read() meets the error again, and counts it
        self._counters.reads += 1
        self._counters.read_bytes += length
        return True

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        self._check_writable()
        try:
            if not self.child.try_write(offset, buffers):
                return False
        except OrionError:
            return False
        self._counters.writes += 1
        self._counters.written_bytes += length
        return True

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        try:
            await self.child.read(offset, buffers)
        except OrionError as error:
            self._counters.read_errors += 1
            self._trouble = error.message
            raise
        self._counters.reads += 1
        self._counters.read_bytes += length

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        self._check_writable()
        await self._change(self.child.write(offset, buffers))
        self._counters.writes += 1
        self._counters.written_bytes += length

    async def flush(self) -> None:
        await self._change(self.child.flush())

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        self._check_writable()
        await self._change(self.child.write_zeroes(offset, length))

    async def discard(self, offset: int, length: int) -> None:
        self.check(offset, length)
        self._check_writable()
        await self._change(self.child.discard(offset, length))

    async def _change(self, request: Awaitable[None]) -> None:
        try:
            await request
        except NoSpace:
            raise  # nothing is wrong with the device
        except OrionError as error:
            self._counters.write_errors += 1
            self._trouble = error.message
            raise

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.name} is open read-only")

    def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        return self.child.extents(offset, length)

    # --- facts -----------------------------------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget what went wrong."""
        self._trouble = ""
        self._counters.read_errors = self._counters.write_errors = 0

    @property
    def state(self) -> str:
        """``failed`` once a request has failed, else ``clean``."""
        return "failed" if self._trouble else "clean"

    def describe(self) -> Description:
        child = self.child.describe()
        counters = asdict(self._counters)
        errors = {name: counters[name] for name in ("read_errors", "write_errors", "checksum_errors")}
        member = Description(
            kind="member",
            name=child.name,
            state="failed" if self._trouble else "active",
            geometry=child.geometry,
            where=child.where,
            children=(child,),
            counters=errors,
            details={"slot": 0, "why": self._trouble},
        )
        return Description(
            kind=self.kind,
            name=self.name,
            state=self.state,
            geometry=self.geometry,
            children=(member,),
            counters=counters,
            details={
                "level": "jbod",
                "slots": "_" if self._trouble else "U",
                "degraded": 1 if self._trouble else 0,
                "read_only": self.read_only,
                "why": [f"{child.name}: {self._trouble}"] if self._trouble else [],
                "effect": "nothing can stand in for what cannot be read there" if self._trouble else "",
                "next": f"copy what can be read, then  orionctl array clear {self.name}" if self._trouble else "",
            },
        )
