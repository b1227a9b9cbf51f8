"""Array: members made one device, with Linux MD superblocks on the media.

The engine moves data.  The array decides what the superblocks say, and when:

- before the first write after an idle time, every member is marked dirty, durably;
- after 200 ms without writes, with all data flushed and all redundancy proven, every member is marked clean;
- a member that fails a write is recorded as failed on all others, durably, before that write is acknowledged.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import trio

from orionfs.array.engine import Engine
from orionfs.array.levels import Level
from orionfs.array.member import Member
from orionfs.array.resync import Resync
from orionfs.array.superblock import RESYNC_DONE, Superblock, format_uuid
from orionfs.array.superblocks import SuperblockSet
from orionfs.array.transfer import on_each
from orionfs.buffers import Buffer
from orionfs.clock import Clock
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, ReadOnly
from orionfs.extents import Extent
from orionfs.units import MIB, SECTOR, format_size

#: Idle time after which a dirty array is marked clean; MD's safe_mode_delay is 0.204 s.
CLEAN_AFTER_S = 0.2


class EventSink(Protocol):
    """Where an array reports what happens to it."""

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> object:
        """Record one event about *subject*."""


class _Mark(enum.Enum):
    """What the superblocks say, as far as writers care."""

    CLEAN = "clean"  # they must be marked dirty before the next write
    DIRTY = "dirty"
    CLEANING = "cleaning"  # being marked clean: writers wait


class Array(StorageDevice):
    """One running array.  Made by :func:`orionfs.array.assembly.assemble`; :meth:`run` does its background work."""

    def __init__(
        self,
        name: str,
        level: Level,
        freshest: Superblock,
        engine: Engine,
        *,
        clock: Clock,
        events: EventSink,
        read_only: bool,
        resync_from: int,
        notices: Sequence[str] = (),
        idle_devices: Sequence[StorageDevice] = (),
    ) -> None:
        self.name = name
        self.level = level
        self.uuid = freshest.set_uuid
        self._freshest = freshest
        self._engine = engine
        self._members: Sequence[Member] = engine.members
        self._clock = clock
        self._events = events
        self._read_only = read_only
        self._notices = tuple(notices)
        self._idle_devices = tuple(idle_devices)
        self._superblocks = SuperblockSet(self._members, freshest, clock)
        self._superblock_lock = trio.Lock()
        sync = engine.sync
        if engine.redundant and resync_from < RESYNC_DONE and engine.can_sync:
            sync.position = min(resync_from * SECTOR // sync.unit_size, sync.unit_count)
        self._resync = Resync(engine, clock, self._emit, activity=self._activity, hopeless=lambda: bool(self._failed))
        # Without redundancy there is nothing that an unclean stop could have spoiled, and MD marks nothing either.
        self._mark = _Mark.CLEAN if engine.redundant else _Mark.DIRTY
        self._counters = Counters()
        self._writing = 0  # in flight
        # Two steps when a member goes, or went before: MD trusts one that is a single event behind.
        self._step = 1 if all(member.active for member in self._members) else 2
        self._unrecorded = False
        self._failed = ""
        self._closed = False
        self._dirtied = trio.Event()
        self._sync_wanted = trio.Event()
        self._background: trio.CancelScope | None = None
        self._background_ended = trio.Event()
        self.geometry = self._shape()

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
            if self._mark is not _Mark.DIRTY:
                await self._mark_dirty()
            await self._engine.write(offset, buffers, length)
            if self._unrecorded:
                await self._record_losses()
        finally:
            self._writing -= 1

    async def write_zeroes(self, offset: int, length: int) -> None:
        await self._zero(offset, length, self._engine.write_zeroes)

    async def discard(self, offset: int, length: int) -> None:
        await self._zero(offset, length, self._engine.discard)

    async def _zero(self, offset: int, length: int, act: Any) -> None:
        self.check(offset, length)
        self._check_writable()
        if not length:
            return
        self._counters.writes += 1
        self._writing += 1
        try:
            if self._mark is not _Mark.DIRTY:
                await self._mark_dirty()
            await act(offset, length)
            if self._unrecorded:
                await self._record_losses()
        finally:
            self._writing -= 1

    async def flush(self) -> None:
        self._check_open()
        if self._failed:
            raise MediaError(f"{self.name} cannot promise durability: {self._failed}")
        for member, error in await self._flush_members():
            await self.member_failed(member, error)
        if self._unrecorded:
            await self._record_losses()

    async def _flush_members(self) -> list[tuple[Member, OrionError]]:
        active = [member for member in self._members if member.active]
        return await on_each(active, lambda member: member.present.flush())

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        self._check_open()
        async for extent in self._engine.extents(offset, length):
            yield extent

    def allocated(self) -> int:
        return min(self._engine.allocated(), self.geometry.size)

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError(f"{self.name} is closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise ReadOnly(f"{self.name} is open read-only")
        if self._failed:
            raise MediaError(f"{self.name} takes no more writes: {self._failed}")

    # --- clean and dirty -------------------------------------------------------------------------------------------

    async def _mark_dirty(self) -> None:
        """Before a write: make every member say that redundancy may be behind, durably."""
        with trio.CancelScope(shield=True):
            async with self._superblock_lock:
                if self._mark is _Mark.DIRTY:
                    return
                self._check_writable()
                await self._write_superblocks(0)
                self._mark = _Mark.DIRTY
        self._dirtied.set()

    async def _mark_clean(self) -> None:
        """Make every member say that all is well, if that is so and nobody is writing."""
        with trio.CancelScope(shield=True):
            async with self._superblock_lock:
                if self._mark is not _Mark.DIRTY or self._writing or self._engine.sync.needed or self._failed:
                    return
                self._mark = _Mark.CLEANING
                try:
                    await self._flush_or_lose()
                    await self._write_superblocks(RESYNC_DONE)
                except OrionError as error:
                    # Some members may say clean by now: the next write has to mark them all again.
                    self._mark = _Mark.CLEAN
                    self._emit("array.not-clean", f"cannot be marked clean: {error.message}", severity="error")
                    return
                self._mark = _Mark.CLEAN

    async def _flush_or_lose(self) -> None:
        for member, error in await self._flush_members():
            self._lose(member, error)

    async def _write_superblocks(self, resync_offset: int) -> None:
        """Update all members, dropping those that cannot be written.  The caller holds the lock.

        Raises :class:`NoSpace` or :class:`MediaError`; what the superblocks say is then mixed, the newest being right.
        """
        while True:
            failures = await self._superblocks.write(resync_offset, self._step)
            if not failures:
                self._unrecorded = False
                self._step = 1
                return
            for member, error in failures:
                if isinstance(error, NoSpace):
                    raise error
                self._lose(member, error)

    # --- failures --------------------------------------------------------------------------------------------------

    async def member_failed(self, member: Member, error: OrionError) -> None:
        """Part of :class:`~orionfs.array.engine.Faults`."""
        self._lose(member, error)
        await self._record_losses()

    async def _record_losses(self) -> None:
        """Return only when every loss so far is on record on all members that are left."""
        with trio.CancelScope(shield=True):
            async with self._superblock_lock:
                if self._failed:
                    raise MediaError(f"{self.name}: {self._failed}")
                if not self._unrecorded or self._read_only:
                    return
                dirty = self._mark is _Mark.DIRTY or self._engine.sync.needed
                await self._write_superblocks(0 if dirty else self._superblocks.resync_offset)

    def _lose(self, member: Member, error: OrionError) -> None:
        """Take a member out of service, or raise and stop all writes if the array cannot go on without it."""
        if not member.active:
            return
        active = sum(1 for other in self._members if other.active)
        if active <= len(self._members) - self.level.tolerates(len(self._members)):
            if not self._failed:
                self._failed = f"{member.label} failed and nothing can stand in for it: {error.message}"
                self._emit("array.failed", self._failed, severity="error")
            raise MediaError(f"{self.name}: {self._failed}") from error
        member.lose(error.message)
        self._unrecorded = True
        self._step = 2
        self._engine.member_changed()
        self._emit(
            "member.failed", f"{member.label} is out of service: {error.message}", severity="error", slot=member.slot
        )

    def _activity(self) -> int:
        return self._counters.reads + self._counters.writes

    def sync_wanted(self) -> None:
        """Part of :class:`~orionfs.array.engine.Faults`."""
        self._sync_wanted.set()

    def _emit(self, kind: str, message: str, *, severity: str = "info", **facts: Any) -> object:
        return self._events.emit(kind, self.name, message, severity=severity, **facts)

    # --- background ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Mark clean when idle, and resync when needed, until :meth:`aclose`.  Runs once."""
        try:
            if self._engine.redundant and not self._read_only and not self._closed:
                with trio.CancelScope() as self._background:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._keep_clean)
                        nursery.start_soon(self._keep_in_sync)
        finally:
            self._background_ended.set()

    async def _keep_clean(self) -> None:
        while not self._failed:
            await self._dirtied.wait()
            seen = -1
            while self._mark is _Mark.DIRTY and not self._failed:
                if seen == self._counters.writes and not self._writing and not self._engine.sync.needed:
                    await self._mark_clean()
                    continue
                seen = self._counters.writes
                await self._clock.sleep(CLEAN_AFTER_S)
            self._dirtied = trio.Event()

    async def _keep_in_sync(self) -> None:
        while not self._failed:
            if self._engine.sync.needed and self._engine.can_sync:
                try:
                    await self._mark_dirty()
                    await self._resync.run()
                except OrionError as error:
                    self._emit("resync.stopped", error.message, severity="error")
            self._sync_wanted = trio.Event()
            await self._sync_wanted.wait()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with trio.CancelScope(shield=True):
            if self._background is not None:
                self._background.cancel()
                await self._background_ended.wait()
            try:
                if self._engine.redundant and not self._read_only and not self._failed:
                    await self._settle_down()
                elif not self._read_only:
                    for _member, error in await self._flush_members():
                        raise error
            finally:
                await self._close_members()

    async def _settle_down(self) -> None:
        """Leave the superblocks as true as they can be: clean, or the point from which a resync has to go on."""
        sync = self._engine.sync
        if not sync.needed:
            await self._mark_clean()
        elif self._mark is _Mark.DIRTY and self._engine.can_sync:
            async with self._superblock_lock:
                await self._flush_or_lose()
                await self._write_superblocks(sync.checkpoint() // SECTOR)

    async def _close_members(self) -> None:
        """Let go of all devices; raises only if so many failed their last flush that redundancy cannot stand in."""
        failed = 0
        first: OrionError | None = None
        for member in self._members:
            error = await self._close(member.device) if member.device is not None else None
            if error is not None or not member.active:
                failed += 1
                first = first or error
        for device in self._idle_devices:
            await self._close(device)
        if first is not None and not self._failed and failed > self.level.tolerates(len(self._members)):
            raise first

    async def _close(self, device: StorageDevice) -> OrionError | None:
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
    def state(self) -> str:
        """One word: failed, degraded, resyncing, active (written to lately) or clean.

        Without redundancy an array is degraded as soon as a member has failed a request.
        """
        if self._failed:
            return "failed"
        if not all(member.active for member in self._members) or self._unanswered():
            return "degraded"
        if self._engine.sync.needed:
            return "resyncing"
        return "active" if self._engine.redundant and self._mark is not _Mark.CLEAN else "clean"

    def describe(self) -> Description:
        engine, md = self._engine, self._freshest
        degraded = sum(1 for member in self._members if not member.active)
        return Description(
            kind="array",
            name=self.name,
            state=self.state,
            geometry=self.geometry,
            children=tuple(member.describe() for member in self._members),
            counters=asdict(self._counters),
            details={
                "level": self.level.name,
                "layout": self.level.layout_name(md.layout & 0xFF) if len(self.level.layouts) > 1 else "",
                "chunk": md.chunksize * SECTOR,
                "uuid": format_uuid(self.uuid),
                "md_name": md.set_name,
                "slots": "".join("U" if member.active else "_" for member in self._members),
                "degraded": degraded,
                "dirty": self._mark is not _Mark.CLEAN if engine.redundant else False,
                "read_only": self._read_only,
                "events": self._superblocks.events,
                "why": self._why(),
                "effect": self._effect(degraded),
                "next": self._next(degraded),
                "full_stripe_writes": engine.full_stripe_writes,
                "partial_stripe_writes": engine.partial_stripe_writes,
                "stripe_reads": engine.stripe_reads,
                "suspect_units": len(engine.sync.suspects),
                "job": self._resync.progress(),
            },
        )

    def _unanswered(self) -> list[str]:
        """What members without a stand-in have failed to do."""
        if self._engine.redundant:
            return []
        return [
            f"{member.label}: {member.counters.read_errors} reads and {member.counters.write_errors} writes failed,"
            " and nothing can stand in for it"
            for member in self._members
            if member.counters.read_errors or member.counters.write_errors
        ]

    def _why(self) -> list[str]:
        reasons = [self._failed] if self._failed else []
        reasons += self._unanswered()
        reasons += [f"{member.label}: {member.why}" for member in self._members if not member.active]
        if self._engine.sync.needed and not self._failed:
            reasons.append(self._resync.trouble or "redundancy is being proven after an unclean stop or a failed write")
        return reasons + list(self._notices)

    def _effect(self, degraded: int) -> str:
        if self._failed:
            return "no writes; reads work where the data can still be had"
        if not degraded and not self._engine.sync.needed:
            return "what lies on that member may be unreadable" if self._unanswered() else ""
        left = self.level.tolerates(len(self._members)) - degraded
        use = "readable" if self._read_only else "readable and writable"
        if self._engine.sync.needed and self.level.name == "raid5":
            return f"{use}; {format_size(self._engine.sync.checkpoint())} of each member are proven so far"
        return (
            f"{use}; survives {left} more failure{'' if left == 1 else 's'}"
            if left > 0
            else f"{use}; no redundancy left"
        )

    def _next(self, degraded: int) -> str:
        if self._failed:
            return (
                "bring the members back unchanged, then unmount and mount again (-o force if it is dirty and degraded)"
            )
        if degraded:
            return "this release does not rebuild yet: copy the data off, or make the array anew"
        return ""
