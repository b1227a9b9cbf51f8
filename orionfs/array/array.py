"""Array: members made one device, with Linux MD superblocks on the media.

The engine moves data.  The array decides what the superblocks say, and when:

- before the first write after an idle time, every member is marked dirty, durably;
- after 200 ms without writes, with all data flushed and all redundancy proven, every member is marked clean;
- a member that fails a write is recorded as failed on all others, durably, before that write is acknowledged.

Who is a member, and the jobs that make one, are the part of :class:`~orionfs.array.administration.Administration`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import trio

from orionfs.array.administration import SparePool
from orionfs.array.array_status import describe_details, state_of
from orionfs.array.background import Background
from orionfs.array.bad_blocks import BadBlocks
from orionfs.array.bookkeeping import Bookkeeping, Mark
from orionfs.array.engine import Engine
from orionfs.array.levels import Level
from orionfs.array.log import Log
from orionfs.array.member import WHOLE, Member
from orionfs.array.pace import Pace
from orionfs.array.policies import Policies
from orionfs.array.roster import Roster
from orionfs.array.superblock import RESYNC_DONE, Superblock
from orionfs.array.superblocks import SuperblockSet
from orionfs.array.transfer import on_each
from orionfs.array.work import Gate
from orionfs.array.write_intent import WriteIntent
from orionfs.buffers import Buffer
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.environment import Environment
from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, ReadOnly
from orionfs.extents import Extent
from orionfs.units import MIB, SECTOR

#: Idle time after which a dirty array is marked clean; MD's safe_mode_delay is 0.204 s.
CLEAN_AFTER_S = 0.2
#: How often bits of the bitmap that are not needed any more are cleared; MD's daemon_sleep.
TIDY_EVERY_S = 5.0


class EventSink(Protocol):
    """Where an array reports what happens to it."""

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> object:
        """Record one event about *subject*."""


class Array(Bookkeeping, StorageDevice):
    """One running array.  Made by :func:`orionfs.array.assembly.assemble`; :meth:`run` does its background work."""

    def __init__(
        self,
        name: str,
        level: Level,
        freshest: Superblock,
        engine: Engine,
        roster: Roster,
        *,
        environment: Environment,
        events: EventSink,
        read_only: bool,
        resync_from: int,
        unsettled: bool = False,
        policies: Policies | None = None,
        notices: Sequence[str] = (),
        idle_devices: Sequence[StorageDevice] = (),
    ) -> None:
        self.name = name
        self.level = level
        self.uuid = freshest.set_uuid
        self.freshest = freshest
        self.engine = self._engine = engine
        self.roster = roster
        self._members = engine.members
        clock = self.clock = environment.clock
        self.randomness = environment.randomness
        self._events = events
        self._read_only = read_only
        self.policies = engine.policies = policies or Policies()
        engine.clock = environment.clock
        self.notices = tuple(notices)
        self._idle_devices = list(idle_devices)
        self.superblocks = self._superblocks = SuperblockSet(roster, freshest, clock)
        self._superblock_lock = trio.Lock()
        if engine.redundant and resync_from < RESYNC_DONE:
            self._doubt_from(resync_from * SECTOR)
        # Without redundancy there is nothing that an unclean stop could have spoiled, and MD marks nothing either.
        self._mark = Mark.CLEAN if engine.redundant else Mark.DIRTY
        self._counters = Counters()
        self._writing = 0  # in flight
        # Two steps when a member goes, or went before: MD trusts one that is a single event behind.
        self._step = 1 if all(member.active for member in self._members) else 2
        self._unrecorded = False
        self._unsettled = unsettled  # the superblocks are not clean, or not all alike
        self._log_started = self._log_late = False
        self._failed = ""
        self._closed = False
        self._dirtied = trio.Event()
        self._ending: trio.CancelScope | None = None
        self._ended = trio.Event()
        self._corrected: dict[int, list[float]] = {}
        self.log: Log | None = None
        self.bitmap: WriteIntent | None = None
        self.gate = Gate()
        self.pace = Pace(clock, self.policies, self.activity)
        self.background = Background(self, self.gate)
        self.spare_pool: SparePool | None = None
        self.geometry = self._shape()

    def _doubt_from(self, start: int) -> None:
        """From the sync address *start* on the array was left with redundancy that may not agree."""
        sync = self.engine.sync
        left = self.level.tolerates(len(self._members)) - len(self.roster.gone())
        if self.engine.can_sync or left > 0:
            sync.position = min(start // sync.unit_size, sync.unit_count)
            # Of a stripe that has lost a chunk there is nothing better than what is left of its redundancy.
            sync.believed = not all(member.active for member in self._members)

    def _shape(self) -> Geometry:
        blocks = [member.present.geometry.logical_block for member in self._members if member.device is not None]
        block = max(blocks, default=SECTOR)
        size = self._engine.layout.size
        width = self._engine.stripe_width
        return Geometry(
            size=size - size % block,
            logical_block=block,
            preferred_io=width if 0 < width <= MIB else 64 << 10,
            stripe_width=width,
            atomic_write=min([member.present.geometry.atomic_write for member in self._members if member.device]),
        )

    def use_log(self, log: Log, *, witnessed: bool, late: bool = False) -> None:
        """From now on stripes are written through *log*.

        *witnessed* if it has to know of superblock updates, *late* if it may start only after the first of them.
        """
        self.log = self._engine.log = log
        self._log_late = late
        if witnessed:
            self._superblocks.witness = log  # type: ignore[assignment] # a journal is both

    def use_bitmap(self, bitmap: WriteIntent) -> None:
        """From now on *bitmap* lists what is being written."""
        self.bitmap = bitmap
        self._superblocks.bitmap = bitmap

    # --- data ------------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = self.check_buffers(offset, buffers)
        try:
            if not self._engine.try_read(offset, buffers):
                return False
        except OrionError:
            return False  # read() meets the error again, and knows what to do about it
        counters = self._counters
        counters.reads += 1
        counters.read_bytes += length
        return True

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        self._check_open()
        self._counters.reads += 1
        self._counters.read_bytes += length
        if length:
            await self._engine.read(offset, buffers, length)

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        length = self.check_buffers(offset, buffers)
        self._check_writable()
        if not length:
            return
        self._counters.writes += 1
        self._counters.written_bytes += length
        self._writing += 1
        try:
            if self._mark is not Mark.DIRTY:
                await self._mark_dirty()
            if self.bitmap is None:
                await self._engine.write(offset, buffers, length)
            else:
                low, high = self._engine.sync_range(offset, length)
                try:
                    if not self.bitmap.begin(low, high):
                        await self._set_bits(low, high)
                    await self._engine.write(offset, buffers, length)
                finally:
                    self.bitmap.end(low, high)
            if self._unrecorded:
                await self._record_losses()
        finally:
            self._writing -= 1

    async def write_zeroes(self, offset: int, length: int) -> None:
        await self._zero(offset, length, self._engine.write_zeroes)

    async def discard(self, offset: int, length: int) -> None:
        await self._zero(offset, length, self._engine.discard)

    async def _zero(self, offset: int, length: int, act: Callable[[int, int], Awaitable[None]]) -> None:
        self.check(offset, length)
        self._check_writable()
        if not length:
            return
        self._counters.writes += 1
        self._writing += 1
        try:
            if self._mark is not Mark.DIRTY:
                await self._mark_dirty()
            if self.bitmap is None:
                await act(offset, length)
            else:
                low, high = self._engine.sync_range(offset, length)
                try:
                    if not self.bitmap.begin(low, high):
                        await self._set_bits(low, high)
                    await act(offset, length)
                finally:
                    self.bitmap.end(low, high)
            if self._unrecorded:
                await self._record_losses()
        finally:
            self._writing -= 1

    async def _set_bits(self, low: int, high: int) -> None:
        """Return when the bitmap lists [low, high) on every member, durably."""
        assert self.bitmap is not None
        while failures := await self.bitmap.set(low, high):
            for member, error in failures:
                if isinstance(error, NoSpace):
                    raise error
                await self.member_failed(member, error)

    async def flush(self) -> None:
        self._check_open()
        if self._failed:
            raise MediaError(f"{self.name} cannot promise durability: {self._failed}")
        while failures := await self._flush_members():
            for member, error in failures:
                await self.member_failed(member, error)
            if self.log is None:
                break
        if self._unrecorded:
            await self._record_losses()

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        self._check_open()
        if self._read_only and any(member.pending and member.pending.over(0, WHOLE) for member in self._members):
            async for extent in super().extents(offset, length):  # holes on the members are not holes then
                yield extent
            return
        await self.drain()
        async for extent in self._engine.extents(offset, length):
            yield extent

    def allocated(self) -> int:
        return min(self._engine.allocated(), self.geometry.size)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self.name} is closed")

    def check_changeable(self) -> None:
        self._check_writable()

    async def bad_blocks_of(self, member: Member, *, fresh: bool = False) -> BadBlocks | None:
        superblock = member.superblock
        if superblock is None or not superblock.bblog_size:
            return None
        return BadBlocks(superblock) if fresh else await BadBlocks.load(member.present, superblock)

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise ReadOnly(f"{self.name} is open read-only")
        if self._failed:
            raise MediaError(f"{self.name} takes no more writes: {self._failed}")

    def sync_wanted(self) -> None:
        """Part of :class:`~orionfs.array.engine.Faults`."""
        self.background.wake()

    def emit(self, kind: str, message: str, *, severity: str = "info", **facts: Any) -> object:
        """Record one event about the array."""
        return self._events.emit(kind, self.name, message, severity=severity, **facts)

    _emit = emit

    # --- what jobs ask for -----------------------------------------------------------------------------------------

    def hopeless(self) -> bool:
        """Part of :class:`~orionfs.array.work.Host`."""
        return bool(self._failed)

    def activity(self) -> int:
        """Part of :class:`~orionfs.array.work.Host`."""
        return self._counters.reads + self._counters.writes

    def writes(self) -> int:
        """Part of :class:`~orionfs.array.work.Host`."""
        return self._counters.writes

    def quiet_since(self, seen: int) -> bool:
        """Part of :class:`~orionfs.array.work.Host`."""
        return not self._writing and self._counters.writes == seen

    async def drain(self) -> None:
        """Part of :class:`~orionfs.array.work.Host`."""
        if self.log is not None and not self._read_only:
            await self.log.drain()

    def marked(self, slot: int, low: int, high: int) -> bool:
        """Part of :class:`~orionfs.array.work.Host`."""
        if self.bitmap is None:
            return True
        return any(self.bitmap.is_dirty(*part) for part in self._engine.sync_ranges_of(slot, low, high))

    # --- background ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Mark clean when idle, and do the background jobs, until :meth:`aclose`.  Runs once."""
        try:
            if self._engine.redundant and not self._read_only and not self._closed:
                with trio.CancelScope() as self._ending:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._keep_clean)
                        if self._unsettled:
                            nursery.start_soon(self._settle_in)
                        nursery.start_soon(self.background.run)
                        if self.log is not None:
                            nursery.start_soon(self.log.run)
                        if self.bitmap is not None:
                            nursery.start_soon(self._keep_tidy)
        finally:
            self._ended.set()

    async def _keep_clean(self) -> None:
        while not self._failed:
            await self._dirtied.wait()
            seen = -1
            while self._mark is Mark.DIRTY and not self._failed:
                if seen == self._counters.writes and not self._writing and not self._engine.sync.needed:
                    await self._mark_clean()
                    continue
                seen = self._counters.writes
                await self.clock.sleep(CLEAN_AFTER_S)
            self._dirtied = trio.Event()

    async def _settle_in(self) -> None:
        """After an unclean stop: all superblocks alike again, and clean as soon as all is well."""
        try:
            await self._mark_dirty()
        except OrionError as error:
            self.emit("array.not-settled", f"its superblocks cannot be updated: {error.message}", severity="error")

    async def _keep_tidy(self) -> None:
        """Clear the bits of what has not been written for a while."""
        while not self._failed:
            await self.clock.sleep(TIDY_EVERY_S)
            await self._tidy()

    async def _tidy(self) -> None:
        assert self.bitmap is not None
        if not self._may_tidy() or not self.bitmap.untidy:
            return
        try:
            snapshot = self.bitmap.snapshot()
            await self.drain()
            await self.flush()
            if not self._may_tidy():
                return  # somebody left before he had everything
            for member, error in await self.bitmap.tidy(snapshot):
                await self.member_failed(member, error)
        except OrionError as error:
            self._emit("bitmap.not-tidied", error.message, severity="warning")

    def _may_tidy(self) -> bool:
        return all(member.active for member in self._members) and not self._engine.sync.needed

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            if self._ending is not None:
                self._ending.cancel()
                await self._ended.wait()
            try:
                if self._engine.redundant and not self._read_only and not self._failed:
                    await self._settle_down()
                elif not self._read_only:
                    for _member, error in await on_each(self._written(), lambda member: member.present.flush()):
                        raise error
            finally:
                await self._close_members()

    async def _settle_down(self) -> None:
        """Leave the superblocks as true as they can be: clean, or the point from which a resync has to go on."""
        sync = self._engine.sync
        target = self.roster.filling()
        if target is not None:
            await self.checkpoint(target)
        if not sync.needed:
            await self._forget_bits()
            if self._unsettled and self._mark is Mark.CLEAN:
                # It was left dirty, nothing was left to prove, and it is closed before anybody could say so.
                await self._start_log(recorded=False)
                async with self._superblock_lock:
                    await self._write_superblocks(0)
                    self._mark = Mark.DIRTY
                await self._start_log(recorded=True)
            await self._mark_clean()
        elif self._mark is Mark.DIRTY and self._engine.can_sync:
            await self.drain()
            async with self._superblock_lock:
                await self._flush_or_lose()
                await self._write_superblocks(sync.checkpoint() // SECTOR)

    async def _forget_bits(self) -> None:
        """Before the array is left clean: what is in sync needs no bits."""
        if self.bitmap is None or not self.bitmap.untidy or not all(member.active for member in self._members):
            return
        try:
            await self.drain()
            async with self._superblock_lock:
                await self._flush_or_lose()
            self.bitmap.snapshot()
            for member, error in await self.bitmap.tidy(self.bitmap.snapshot()):
                self._lose(member, error)
        except OrionError as error:
            self.emit("bitmap.not-tidied", error.message, severity="warning")

    async def _close_members(self) -> None:
        """Let go of all devices; raises only if so many failed their last flush that redundancy cannot stand in."""
        failed: set[int] = set()
        first: OrionError | None = None
        for member in self.roster.everyone():
            error = await self.close_device(member.device) if member.device is not None else None
            if member.slot >= 0 and member is self._members[member.slot] and (error is not None or not member.active):
                failed.add(member.slot)
                first = first or error
        for device in self._idle_devices:
            await self.close_device(device)
        survived = self.level.survives(self.freshest.layout, len(self._members), failed)
        if first is not None and not self._failed and not survived:
            raise first

    async def close_device(self, device: StorageDevice) -> OrionError | None:
        """Close a device that the array owns; the error, which is an event too, if that fails."""
        try:
            await device.aclose()
        except OrionError as error:
            self._emit("member.close-failed", f"{device.name}: {error.message}", severity="error")
            return error
        return None

    # --- facts -----------------------------------------------------------------------------------------------------

    @property
    def read_only(self) -> bool:
        """Whether it takes no writes, by how it was opened."""
        return self._read_only

    @property
    def failed(self) -> str:
        """Why it takes no more writes; empty while it does."""
        return self._failed

    @property
    def is_clean(self) -> bool:
        """Whether the superblocks say that redundancy is in order throughout."""
        return self._mark is Mark.CLEAN

    @property
    def state(self) -> str:
        """One word; see :func:`orionfs.array.array_status.state_of`."""
        return state_of(self)

    def describe(self) -> Description:
        return Description(
            kind="array",
            name=self.name,
            state=self.state,
            geometry=self.geometry,
            children=tuple(member.describe() for member in self.roster.everyone()),
            counters=asdict(self._counters),
            details=describe_details(self),
        )
