"""RamDevice: the simplest honest device, to put beneath whatever is tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import trio

from orionfs.buffers import Buffer
from orionfs.device import Counters, Description, Geometry, StorageDevice


class RamDevice(StorageDevice):
    """*size* bytes of memory, all zeros at first.

    With *always_wait* it declines ``try_read`` and ``try_write``, and its other calls are checkpoints, so that requests
    interleave as they do on a slow device.  Tests may look into :attr:`data` and change it, and read :attr:`flushes`
    and :attr:`closed`.
    """

    def __init__(self, name: str, size: int, logical_block: int = 512, *, always_wait: bool = False) -> None:
        self.name = name
        self.geometry = Geometry(size=size, logical_block=logical_block)
        self.always_wait = always_wait
        self.data = bytearray(size)
        self.counters = Counters()
        self.flushes = 0
        self.closed = False

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.check_buffers(offset, buffers)
        if self.always_wait:
            await trio.lowlevel.checkpoint()
        self._get(offset, buffers)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        self.check_buffers(offset, buffers)
        if self.always_wait:
            await trio.lowlevel.checkpoint()
        self._put(offset, buffers)

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        self.check_buffers(offset, buffers)
        if self.always_wait:
            return False
        self._get(offset, buffers)
        return True

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        self.check_buffers(offset, buffers)
        if self.always_wait:
            return False
        self._put(offset, buffers)
        return True

    async def flush(self) -> None:
        if self.always_wait:
            await trio.lowlevel.checkpoint()
        self.flushes += 1

    def describe(self) -> Description:
        return Description(
            kind="memory", name=self.name, state="active", geometry=self.geometry, counters=asdict(self.counters)
        )

    async def aclose(self) -> None:
        self.closed = True

    def _get(self, offset: int, buffers: Sequence[Buffer]) -> None:
        start = offset
        for buffer in buffers:
            view = memoryview(buffer)
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)
        self.counters.reads += 1
        self.counters.read_bytes += offset - start

    def _put(self, offset: int, buffers: Sequence[Buffer]) -> None:
        start = offset
        for buffer in buffers:
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)
        self.counters.writes += 1
        self.counters.written_bytes += offset - start
