"""Bytewise: any offset and any length, over a device that has blocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import ClassVar

import trio

from orionfs.buffers import Buffer, total_length
from orionfs.device import StorageDevice
from orionfs.errors import OutOfRange
from orionfs.extents import Extent
from orionfs.layers.gone import Gone
from orionfs.layers.layer import Layer
from orionfs.rangelock import RangeLock
from orionfs.units import round_down, round_up


class Bytewise(Layer):
    """The one read-modify-write adapter, beneath whatever takes requests from programs: FUSE and the exports.

    A request may begin and end at any byte of the device.  The geometry is the child's: its ``logical_block`` is what
    callers should keep to where they can, and its ``atomic_write`` holds.  A write that covers part of a block reads
    the block, changes the part and writes it back, as if nothing happened to the block meanwhile: two writers of
    different bytes never undo each other, and nor do a writer of bytes and a writer of blocks.

    Requests for whole blocks go straight to the child.
    """

    kind: ClassVar[str] = "bytewise"

    def __init__(self, child: StorageDevice, *, name: str = "") -> None:
        super().__init__(child, name=name)
        self._block = child.geometry.logical_block
        self._part = self._block - 1  # the bits of an offset or a length that are less than a block
        # Held by every change that waits for the child, because a block must not change between being read and being
        # written back.  What never waits holds nothing, and has to heed only the blocks that are being modified.
        self._changes = RangeLock()
        self._modifications = 0
        # Requests that wait for the child, so that a device that is taken away is not pulled from under them.
        self._waiting = 0
        self._idle: trio.Event | None = None

    async def retire(self) -> None:
        """From now on every request raises Removed; returns when those that began before have ended.

        The former child is the caller's to close.
        """
        self.child = Gone(self.child)
        if self._waiting:
            self._idle = trio.Event()
            await self._idle.wait()

    def _ended(self) -> None:
        """A request that waited is over."""
        self._waiting -= 1
        if self._idle is not None and not self._waiting:
            self._idle.set()

    def check(self, offset: int, length: int) -> None:
        """Raise OutOfRange unless the range lies inside the device; it need not be aligned."""
        if offset < 0 or length < 0 or offset + length > self.geometry.size:
            size = self.geometry.size
            raise OutOfRange(f"{self.name}: {length} bytes at {offset} do not lie inside its {size} bytes")

    # --- reads -------------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        if not (offset | length) & self._part:
            return self.child.try_read(offset, buffers)
        self.check(offset, length)
        frame = _Frame(offset, length, self._block)
        return self.child.try_read(frame.start, frame.around(buffers))

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = total_length(buffers)
        self._waiting += 1
        try:
            if not (offset | length) & self._part:
                await self.child.read(offset, buffers)
                return
            self.check(offset, length)
            frame = _Frame(offset, length, self._block)
            await self.child.read(frame.start, frame.around(buffers))
        finally:
            self._ended()

    # --- changes -----------------------------------------------------------------------------------------------------

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        if not (self._modifications or (offset | length) & self._part):
            return self.child.try_write(offset, buffers)
        self.check(offset, length)
        if not length:
            return True
        frame = _Frame(offset, length, self._block)
        if not self._changes.try_acquire(frame.start, frame.end):
            return False
        try:
            return all(self.child.try_read(at, [block]) for at, block in frame.edges) and self.child.try_write(
                frame.start, frame.around(buffers)
            )
        finally:
            self._changes.release(frame.start, frame.end)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        self.check(offset, length)
        if not length:
            return
        self._waiting += 1
        try:
            if (offset | length) & self._part:
                await self._modify(offset, length, buffers)
                return
            end = offset + length
            if not self._changes.try_acquire(offset, end):
                await self._changes.acquire(offset, end)
            try:
                await self.child.write(offset, buffers)
            finally:
                self._changes.release(offset, end)
        finally:
            self._ended()

    async def flush(self) -> None:
        self._waiting += 1
        try:
            await self.child.flush()
        finally:
            self._ended()

    async def _modify(self, offset: int, length: int, buffers: Sequence[Buffer]) -> None:
        """Write a range that begins or ends inside a block."""
        frame = _Frame(offset, length, self._block)
        self._modifications += 1
        try:
            await self._changes.acquire(frame.start, frame.end)
            try:
                for at, block in frame.edges:
                    await self.child.read(at, [block])
                await self.child.write(frame.start, frame.around(buffers))
            finally:
                self._changes.release(frame.start, frame.end)
        finally:
            self._modifications -= 1

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        end = offset + length
        first, last = round_up(offset, self._block), round_down(end, self._block)
        if first >= last:
            await self.write(offset, [bytes(length)])
            return
        await self.write(offset, [bytes(first - offset)])
        self._waiting += 1
        try:
            await self._changes.acquire(first, last)
            try:
                await self.child.write_zeroes(first, last - first)
            finally:
                self._changes.release(first, last)
        finally:
            self._ended()
        await self.write(last, [bytes(end - last)])

    async def discard(self, offset: int, length: int) -> None:
        """As promised by StorageDevice; blocks that are covered in part keep their contents."""
        self.check(offset, length)
        first, last = round_up(offset, self._block), round_down(offset + length, self._block)
        if first >= last:
            return
        self._waiting += 1
        try:
            await self._changes.acquire(first, last)
            try:
                await self.child.discard(first, last - first)
            finally:
                self._changes.release(first, last)
        finally:
            self._ended()

    # --- facts -------------------------------------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        if not length:
            return
        end = offset + length
        start = round_down(offset, self._block)
        below = self.child.extents(start, round_up(end, self._block) - start)
        async with aclosing(below):
            async for extent in below:
                first, last = max(extent.offset, offset), min(extent.end, end)
                if first < last:
                    yield Extent(first, last - first, extent.kind)


class _Frame:
    """The whole blocks [start, end) around a range.

    *edges* are the blocks that belong to the range in part only: where each is, and memory for it.
    """

    __slots__ = ("_after", "_before", "edges", "end", "start")

    def __init__(self, offset: int, length: int, block: int) -> None:
        self.start = round_down(offset, block)
        self.end = round_up(offset + length, block)
        self._before = offset - self.start
        self._after = self.end - offset - length
        self.edges: list[tuple[int, bytearray]] = []
        if self._before:
            self.edges.append((self.start, bytearray(block)))
        if self._after and not (self._before and self.end - self.start == block):
            self.edges.append((self.end - block, bytearray(block)))

    def around(self, buffers: Sequence[Buffer]) -> Sequence[Buffer]:
        """*buffers*, which are the range, between the rest of the blocks at its edges."""
        if not self.edges:
            return buffers
        framed = list(buffers)
        if self._before:
            framed.insert(0, memoryview(self.edges[0][1])[: self._before])
        if self._after:
            framed.append(memoryview(self.edges[-1][1])[-self._after :])
        return framed
