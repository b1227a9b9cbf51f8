"""MemoryDevice: bytes in the memory of the process, gone when it is closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

from orionfs.buffers import Buffer, fill_zero
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.errors import ReadOnly
from orionfs.extents import Extent, Kind, merge

#: Memory is taken in pieces of this size, when something is first written to them.
PIECE = 256 << 10


class MemoryDevice(StorageDevice):
    """*size* bytes, sparse: what was never written, or was zeroed or discarded in whole pieces, takes no memory.

    Never waits.  There is nothing to make durable: it does not outlive the process, and ``flush`` has no more to do.
    """

    def __init__(self, name: str, size: int, logical_block: int = 512, *, read_only: bool = False) -> None:
        self.name = name
        self.geometry = Geometry(size=size, logical_block=logical_block, atomic_write=logical_block)
        self.read_only = read_only
        self.counters = Counters()
        self._pieces: dict[int, bytearray] = {}

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                index, start = divmod(offset, PIECE)
                step = min(len(view), PIECE - start)
                piece = self._pieces.get(index)
                if piece is None:
                    fill_zero([view[:step]])
                else:
                    view[:step] = memoryview(piece)[start : start + step]
                view = view[step:]
                offset += step
        self.counters.reads += 1
        self.counters.read_bytes += length
        return True

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        self._check_writable()
        for buffer in buffers:
            view = memoryview(buffer)
            while view:
                index, start = divmod(offset, PIECE)
                step = min(len(view), PIECE - start)
                piece = self._pieces.get(index)
                if piece is None:
                    piece = self._pieces[index] = bytearray(PIECE)
                piece[start : start + step] = view[:step]
                view = view[step:]
                offset += step
        self.counters.writes += 1
        self.counters.written_bytes += length
        return True

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.try_read(offset, buffers)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.try_write(offset, buffers)

    async def flush(self) -> None:
        """Nothing to do."""

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        self._check_writable()
        end = offset + length
        while offset < end:
            index, start = divmod(offset, PIECE)
            step = min(end - offset, PIECE - start)
            if step == PIECE:
                self._pieces.pop(index, None)
            elif (piece := self._pieces.get(index)) is not None:
                piece[start : start + step] = bytes(step)
            offset += step

    async def discard(self, offset: int, length: int) -> None:
        await self.write_zeroes(offset, length)

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        for extent in merge(self._cut(offset, offset + length)):
            yield extent

    def _cut(self, offset: int, end: int) -> list[Extent]:
        found = []
        while offset < end:
            index, start = divmod(offset, PIECE)
            step = min(end - offset, PIECE - start)
            found.append(Extent(offset, step, Kind.DATA if index in self._pieces else Kind.HOLE))
            offset += step
        return found

    def allocated(self) -> int:
        return min(len(self._pieces) * PIECE, self.geometry.size)

    def describe(self) -> Description:
        return Description(
            kind="memory",
            name=self.name,
            state="active",
            geometry=self.geometry,
            where=self.name,
            counters=asdict(self.counters),
        )

    async def aclose(self) -> None:
        self._pieces.clear()

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.name} was opened read-only")
