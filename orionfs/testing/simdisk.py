"""SimDisk: a disk in memory that forgets at a power cut what was not flushed, fails when told to, and waits at random.

It is an honest :class:`~orionfs.device.StorageDevice` in every other way, so whatever stands on it in a test stands on
a real backend too.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import asdict

from orionfs.buffers import Buffer, gather
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.errors import DeviceError, MediaError, NoSpace
from orionfs.extents import Extent, Kind, merge
from orionfs.testing import crash
from orionfs.testing.crash import PAGE, Choice, DiskState, Pages, Part, Pending
from orionfs.testing.machine import Machine, PowerCut
from orionfs.units import SECTOR


class SimDisk(StorageDevice):
    """A simulated disk of *size* bytes that hangs on *machine*.

    A write is visible to reads from its completion on, and durable once a flush that was submitted after its completion
    has completed.  :meth:`crash` makes the disk that a power cut leaves, :meth:`kill` the one that the death of the
    process leaves.  ``inline`` is the chance that ``try_read`` and ``try_write`` serve a request; the others, and the
    rest of these, wait for a random number of checkpoints, and now and then for some simulated milliseconds.  With an
    ``inline`` of 1 nothing waits at all: for those who look at a disk's contents, not at what goes on meanwhile.

    Each random decision is drawn from the machine's seed and the disk's name: one seed, one history.
    """

    def __init__(
        self, name: str, size: int, *, machine: Machine | None = None, logical_block: int = SECTOR, inline: float = 0.5
    ) -> None:
        self.name = name
        self.geometry = Geometry(size, logical_block=logical_block, atomic_write=SECTOR)
        self.machine = Machine() if machine is None else machine
        self.inline = inline
        self.counters = Counters()
        self.closed = False
        self._random: random.Random = self.machine.random(name)
        self._stable: Pages = {}
        self._visible: Pages = {}
        self._pending: list[Pending] = []
        self._flush_error: DeviceError | None = None
        self._damaged: set[int] = set()

    @classmethod
    def restored(cls, state: DiskState, *, machine: Machine, inline: float = 0.5) -> SimDisk:
        """The disk of that *state*, plugged into *machine*; the state itself is not changed by what happens next."""
        disk = cls(state.name, state.size, machine=machine, logical_block=state.logical_block, inline=inline)
        disk._stable = dict(state.stable)
        disk._visible = dict(state.visible)
        disk._pending = list(state.pending)
        disk._damaged = set(state.damaged)
        return disk

    # --- data ------------------------------------------------------------------------------------------------------

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        error = self._admit("read", offset, length)
        await self._wait()
        self._read(offset, length, buffers, error)

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        if self._random.random() >= self.inline:
            return False
        self._read(offset, length, buffers, self._admit("read", offset, length))
        return True

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        await self._change("write", offset, length, bytes(gather(buffers)))

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        if self._random.random() >= self.inline:
            return False
        error = self._admit("write", offset, length)
        self._complete(self._submit(offset, length, bytes(gather(buffers))), error)
        return True

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        await self._change("write_zeroes", offset, length, None)

    async def discard(self, offset: int, length: int) -> None:
        self.check(offset, length)
        await self._change("discard", offset, length, None)

    async def flush(self) -> None:
        error = self._admit("flush", 0, 0)
        began = self.machine.next_tick()
        self.machine.submitted()
        await self._wait()
        if not self.machine.on:
            raise PowerCut
        self._flush_error = self._flush_error or error
        if self._flush_error is not None:
            raise self._flush_error
        covered = [write for write in self._pending if write.completed is not None and write.completed < began]
        covered.sort(key=lambda write: write.completed or 0)
        crash.apply(self._stable, (Part(write, 0, write.length) for write in covered))
        self._pending = [write for write in self._pending if write.completed is None or write.completed >= began]
        self.machine.next_tick()
        self.machine.trace("flushed", self.name)
        self.machine.settled()

    # --- what a test does to it ------------------------------------------------------------------------------------

    def state(self) -> DiskState:
        """All that the disk is at this moment; a value, safe to keep."""
        return DiskState(
            self.name,
            self.geometry.size,
            self.geometry.logical_block,
            dict(self._stable),
            dict(self._visible),
            tuple(self._pending),
            frozenset(self._damaged),
        )

    def crash(self, choice: Choice | str = "none", *, machine: Machine | None = None, seed: int = 0) -> SimDisk:
        """The disk after a power cut now, its un-flushed writes having fared by *choice*."""
        if isinstance(choice, str):
            choice = Choice(choice)
        parts = crash.outcome(self._pending, choice, seed)
        return SimDisk.restored(after_cut(self.state(), parts), machine=machine or Machine(), inline=self.inline)

    def kill(self, *, machine: Machine | None = None, seed: int = 0) -> SimDisk:
        """The disk after a kill -9 of its user now: nothing completed is lost, and nothing more is durable."""
        return SimDisk.restored(after_kill(self.state(), seed), machine=machine or Machine(), inline=self.inline)

    def reopen(self) -> None:
        """Undo :meth:`aclose`: whoever uses the disk next closes it again."""
        self.closed = False

    def content(self, offset: int = 0, length: int | None = None) -> bytes:
        """What a read would return now."""
        return b"".join(crash.load(self._visible, offset, self.geometry.size - offset if length is None else length))

    def scribble(self, offset: int, data: bytes) -> None:
        """Change the medium behind everybody's back."""
        crash.store(self._stable, offset, len(data), data)
        crash.store(self._visible, offset, len(data), data)

    def damage(self, offset: int, length: int = SECTOR) -> None:
        """Latent errors: reading these sectors raises MediaError until they are written again."""
        self._damaged.update(_sectors(offset, length))

    @property
    def unflushed(self) -> tuple[Pending, ...]:
        """The changes that a power cut may undo, in order of submission."""
        return tuple(self._pending)

    # --- facts and life --------------------------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        for extent in merge(self._pieces(offset, offset + length)):
            yield extent

    def _pieces(self, offset: int, end: int) -> Iterable[Extent]:
        while offset < end:
            page = offset // PAGE
            length = min((page + 1) * PAGE, end) - offset
            yield Extent(offset, length, Kind.DATA if page in self._visible else Kind.HOLE)
            offset += length

    def allocated(self) -> int:
        return min(len(self._visible) * PAGE, self.geometry.size)

    def describe(self) -> Description:
        return Description("simdisk", self.name, "active", self.geometry, counters=asdict(self.counters))

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            await self.flush()

    # --- inside ----------------------------------------------------------------------------------------------------

    def _admit(self, kind: str, offset: int, length: int) -> DeviceError | None:
        return self.machine.admit(self.name, kind, offset, length)

    async def _wait(self) -> None:
        if self.inline == 1:
            return
        lot = self._random.random()
        if lot < 0.03:
            await self.machine.clock.sleep(lot)
        else:
            for _ in range(1 + int(lot * 3)):
                await self.machine.clock.sleep(0)

    def _read(self, offset: int, length: int, buffers: Sequence[Buffer], error: DeviceError | None) -> None:
        if not self.machine.on:
            raise PowerCut
        if error is None and self._damaged and not self._damaged.isdisjoint(_sectors(offset, length)):
            error = MediaError(f"{self.name}: simulated latent error ({length} bytes at {offset})")
        if error is not None:
            self.counters.read_errors += 1
            raise error
        self.counters.reads += 1
        self.counters.read_bytes += length
        for buffer in buffers:
            view = memoryview(buffer)
            position = 0
            for piece in crash.load(self._visible, offset, len(view)):
                view[position : position + len(piece)] = piece
                position += len(piece)
            offset += len(view)

    async def _change(self, kind: str, offset: int, length: int, data: bytes | None) -> None:
        error = self._admit(kind, offset, length)
        write = self._submit(offset, length, data)
        try:
            await self._wait()
        except BaseException:
            if self.machine.on:  # cancelled: it may have happened wholly, partly or not at all
                self._partly(write)
            raise
        self._complete(write, error)

    def _submit(self, offset: int, length: int, data: bytes | None) -> Pending:
        write = Pending(self.name, offset, length, data, self.machine.next_tick())
        self._pending.append(write)
        self.machine.submitted()
        return write

    def _complete(self, write: Pending, error: DeviceError | None) -> None:
        if not self.machine.on:
            raise PowerCut
        if error is not None:
            self.counters.write_errors += 1
            if isinstance(error, NoSpace):
                self._settle(write, Part(write, 0, 0))
            else:
                self._partly(write)
            raise error
        self._settle(write, Part(write, 0, write.length))
        self.counters.writes += 1
        self.counters.written_bytes += write.length

    def _partly(self, write: Pending) -> None:
        sectors = write.length // SECTOR
        ends = sorted((self._random.randint(0, sectors), self._random.choice((0, sectors))))
        self._settle(write, Part(write, ends[0] * SECTOR, ends[1] * SECTOR))

    def _settle(self, write: Pending, part: Part) -> None:
        """The write is over, and *part* of it took place."""
        index = next(index for index, other in enumerate(self._pending) if other is write)
        now = self.machine.next_tick()
        self.machine.trace("done", self.name, write.submitted, part.start, part.end)
        if part.end == part.start:
            del self._pending[index]
            return
        data = None if write.data is None else write.data[part.start : part.end]
        done = write._replace(offset=write.offset + part.start, length=part.end - part.start, data=data, completed=now)
        self._pending[index] = done
        crash.store(self._visible, done.offset, done.length, data)
        if self._damaged:
            self._damaged.difference_update(_sectors(done.offset, done.length))


def _sectors(offset: int, length: int) -> range:
    return range(offset // SECTOR, -(-(offset + length) // SECTOR))


def after_cut(state: DiskState, parts: Iterable[Part]) -> DiskState:
    """*state* after a power cut that left *parts* (those of other disks are passed over)."""
    medium: Pages = dict(state.stable)
    crash.apply(medium, (part for part in parts if part.pending.disk == state.name))
    return state._replace(stable=medium, visible=medium, pending=())


def after_kill(state: DiskState, seed: int = 0) -> DiskState:
    """*state* after the death of the process: the host's cache, and what in it is not flushed, are still there."""
    parts = crash.killed(state.pending, seed)
    visible: Pages = dict(state.visible)
    crash.apply(visible, (part for part in parts if part.pending.completed is None))
    left = tuple(_completed(part) for part in parts if part.end)
    return state._replace(visible=visible, pending=left)


def _completed(part: Part) -> Pending:
    """What is left of a write, as a write that completed before the first tick of the next machine."""
    write = part.pending
    data = None if write.data is None else write.data[: part.end]
    return write._replace(length=part.end, data=data, submitted=0, completed=0)
