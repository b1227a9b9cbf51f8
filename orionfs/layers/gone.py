"""Gone: what stays behind where a device was, for those who still have it open."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from orionfs.buffers import Buffer
from orionfs.device import Description, StorageDevice
from orionfs.errors import Removed
from orionfs.extents import Extent


class Gone(StorageDevice):
    """A device of the same name and shape as *former*, which fails every request with Removed."""

    def __init__(self, former: StorageDevice) -> None:
        self.name = former.name
        self.geometry = former.geometry

    def _removed(self) -> Removed:
        return Removed(f"{self.name} was stopped", hint="close it, and open it again once it is assembled")

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        raise self._removed()

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        raise self._removed()

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        raise self._removed()

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        raise self._removed()

    async def flush(self) -> None:
        raise self._removed()

    async def write_zeroes(self, offset: int, length: int) -> None:
        raise self._removed()

    async def discard(self, offset: int, length: int) -> None:
        raise self._removed()

    def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        raise self._removed()

    def allocated(self) -> int:
        return 0

    def describe(self) -> Description:
        return Description(kind="gone", name=self.name, state="failed", geometry=self.geometry)

    async def aclose(self) -> None:
        """There is nothing to let go of."""
