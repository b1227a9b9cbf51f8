"""Layer: one child, and everything passes through.  What a real layer changes, it overrides."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from orionfs.buffers import Buffer
from orionfs.device import Description, StorageDevice
from orionfs.extents import Extent


class Layer(StorageDevice):
    """A device with one child, which it owns: closing the layer closes the child.

    Named and shaped like the child unless the subclass says otherwise.  Every call goes to the same call of the child,
    so a subclass that changes what the bytes are or where they are must override *all* data calls, ``write_zeroes``,
    ``discard`` and ``extents`` among them.
    """

    #: What ``describe`` calls this kind of layer.
    kind: ClassVar[str] = "layer"

    def __init__(self, child: StorageDevice, *, name: str = "") -> None:
        self.child = child
        self.name = name or child.name
        self.geometry = child.geometry

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        await self.child.read(offset, buffers)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        await self.child.write(offset, buffers)

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        return self.child.try_read(offset, buffers)

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        return self.child.try_write(offset, buffers)

    async def flush(self) -> None:
        await self.child.flush()

    async def write_zeroes(self, offset: int, length: int) -> None:
        await self.child.write_zeroes(offset, length)

    async def discard(self, offset: int, length: int) -> None:
        await self.child.discard(offset, length)

    def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        return self.child.extents(offset, length)

    def allocated(self) -> int:
        return self.child.allocated()

    def describe(self) -> Description:
        child = self.child.describe()
        return Description(kind=self.kind, name=self.name, state=child.state, geometry=self.geometry, children=(child,))

    async def aclose(self) -> None:
        await self.child.aclose()
