"""NullDevice: reads zeros, drops what is written.  To measure what is above it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

from orionfs.buffers import Buffer, fill_zero
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.errors import ReadOnly
from orionfs.extents import Extent, Kind


class NullDevice(StorageDevice):
    """*size* bytes of zeros, whatever is written: the one device that breaks the contract on purpose.

    Its description says so (``"stores": false``), so that nobody takes it for storage.
    """

    def __init__(self, name: str, size: int, logical_block: int = 512, *, read_only: bool = False) -> None:
        self.name = name
        self.geometry = Geometry(size=size, logical_block=logical_block, atomic_write=logical_block)
        self.read_only = read_only
        self.counters = Counters()

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        fill_zero(buffers)
        self.counters.reads += 1
        self.counters.read_bytes += length
        return True

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        self._check_writable()
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

    async def discard(self, offset: int, length: int) -> None:
        await self.write_zeroes(offset, length)

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        if length:
            yield Extent(offset, length, Kind.HOLE)

    def allocated(self) -> int:
        return 0

    def describe(self) -> Description:
        return Description(
            kind="null",
            name=self.name,
            state="active",
            geometry=self.geometry,
            where=self.name,
            counters=asdict(self.counters),
            details={"stores": False},
        )

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.name} was opened read-only")
