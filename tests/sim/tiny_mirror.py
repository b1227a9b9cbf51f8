"""The smallest mirror that can be got wrong: what the simulator itself is tested on.

Two disks; each begins with a 4 KiB header that says clean or dirty.  ``bug`` plants one mistake.
"""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager

import trio

from orionfs.device import Description, Geometry, StorageDevice
from orionfs.testing.oracle import Violation
from orionfs.testing.simdisk import SimDisk

from .campaign import running

HEADER = 4096
SIZE = 32768
BUGS = ("no dirty mark", "clean without flush", "flush does nothing", "reads either copy")


class TinyMirror(StorageDevice):
    def __init__(self, disks, clock, bug, dirty):
        self.name = "tiny"
        self.geometry = Geometry(SIZE)
        self._disks = disks
        self._clock = clock
        self._bug = bug
        self._dirty = dirty
        self._lock = trio.Lock()
        self._requests = 0
        self._closed = False
        self.synced = not dirty

    async def _each(self, action):
        async with trio.open_nursery() as nursery:
            for disk in self._disks:
                nursery.start_soon(action, disk)

    async def _mark(self, dirty):
        async def one(disk):
            await disk.write(0, [struct.pack("<Q", dirty) * 512])
            await disk.flush()

        await self._each(one)
        self._dirty = dirty

    async def read(self, offset, buffers):
        self.check_buffers(offset, buffers)
        other = self._bug == "reads either copy" and self._requests % 2
        self._requests += 1
        await self._disks[1 if other else 0].read(HEADER + offset, buffers)

    async def write(self, offset, buffers):
        self.check_buffers(offset, buffers)
        async with self._lock:
            self._requests += 1
            if not self._dirty and self._bug != "no dirty mark":
                await self._mark(True)
            await self._each(lambda disk: disk.write(HEADER + offset, buffers))

    async def flush(self):
        if self._bug != "flush does nothing":
            await self._each(lambda disk: disk.flush())

    async def run(self):
        if self._dirty:
            await self._sync()
        seen = -1
        while not self._closed:
            if seen == self._requests and self._dirty:
                await self._clean()
            seen = self._requests
            await self._clock.sleep(0.2)

    async def _sync(self):
        buffer = bytearray(SIZE)
        async with self._lock:
            await self._disks[0].read(HEADER, [buffer])
            await self._disks[1].write(HEADER, [buffer])
            self.synced = True

    async def _clean(self):
        async with self._lock:
            if self._bug != "clean without flush":
                await self.flush()
            await self._mark(False)

    def describe(self):
        return Description("array", self.name, "active", self.geometry)

    async def aclose(self):
        if not self._closed:
            self._closed = True
            if self._dirty and self.synced:
                await self._clean()


class TinySubject:
    def __init__(self, bug=""):
        self.bug = bug

    def __str__(self):
        return f"tiny mirror{f', planted bug: {self.bug}' if self.bug else ''}"

    def make_disks(self, sim):
        return [SimDisk(f"d{number}", HEADER + SIZE, machine=sim.machine) for number in range(2)]

    async def create(self, sim, disks):
        for disk in disks:
            await disk.write(0, [bytes(4096)])
            await disk.flush()

    @asynccontextmanager
    async def open(self, sim, disks):
        dirty = any(disk.content(0, 1) != b"\0" for disk in disks)
        mirror = TinyMirror(disks, sim.environment.clock, self.bug, dirty)
        async with running(sim, mirror, mirror.run):
            yield mirror

    async def settle(self, sim, device):
        while not device.synced:
            await sim.environment.clock.sleep(0.1)

    def check_redundancy(self, disks):
        if disks[0].content(HEADER) != disks[1].content(HEADER):
            raise Violation("the copies differ although the mirror is clean")
