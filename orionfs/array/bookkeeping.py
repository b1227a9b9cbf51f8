"""Bookkeeping: what the superblocks of a running array say, and when they have to say it.

- Before the first write after an idle time, every member is marked dirty, durably.
- When nothing has been written for a while, all is flushed and all redundancy proven, every member is marked clean.
- A member that fails a request is recorded as failed on all others, durably, before that request is acknowledged.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Sequence

import trio

from orionfs.array.administration import Administration
from orionfs.array.log import Log
from orionfs.array.member import Member
from orionfs.array.superblock import RESYNC_DONE
from orionfs.array.superblocks import Failures
from orionfs.array.transfer import on_each
from orionfs.errors import MediaError, NoSpace, OrionError

#: The span over which corrected read errors are counted against ``max_read_errors``.
_ERRORS_WITHIN_S = 3600.0


class Mark(enum.Enum):
    """What the superblocks say, as far as writers care."""

    CLEAN = "clean"  # they must be marked dirty before the next write
    UNSURE = "unsure"  # as CLEAN, but marking them so has failed on some
    DIRTY = "dirty"
    CLEANING = "cleaning"  # being marked clean: writers wait


class Bookkeeping(Administration):
    """The part of an :class:`~orionfs.array.array.Array` that keeps its superblocks true."""

    log: Log | None
    _members: Sequence[Member]
    _mark: Mark
    _superblock_lock: trio.Lock
    _dirtied: trio.Event
    _writing: int
    _failed: str
    _read_only: bool
    _corrected: dict[int, list[float]]
    _log_started: bool
    _log_late: bool

    async def _start_log(self, *, recorded: bool) -> None:
        """Before the first change of anything, have the log finish what it has found.

        One that comes late does that when the superblocks say who is missing (*recorded*): until then a member may
        come back for whom there is something in it.
        """
        if self.log is None or self._log_started or (self._log_late and not recorded):
            return
        self._log_started = True  # what the log does now may come back here
        try:
            await self.log.start()
        except BaseException:
            self._log_started = False
            raise

    @abc.abstractmethod
    async def drain(self) -> None:
        """Have everything put in place that a log still holds."""

    async def _flush_members(self) -> Failures:
        """Make what was written durable; the members that failed."""
        await self._store_bad_blocks()
        if self.log is not None:
            return await self.log.flush()
        return await on_each(self._written(), lambda member: member.present.flush())

    def _written(self) -> list[Member]:
        """Every member that data are written to."""
        filled = [member for member in self._members if member.active or member.state == "rebuilding"]
        return [*filled, *self.roster.copies()]

    async def _store_bad_blocks(self) -> None:
        """Make the lists of bad blocks durable before what changed them is."""
        changed = [member for member in self._written() if member.bad is not None and member.bad.changed]
        if changed:
            for member, error in await on_each(changed, _store_bad):
                await self.member_failed(member, error)
            await self.record()

    # --- clean and dirty -------------------------------------------------------------------------------------------

    async def mark_dirty(self) -> None:
        """Part of :class:`~orionfs.array.work.Host`."""
        if self._mark is not Mark.DIRTY:
            await self._mark_dirty()

    async def _mark_dirty(self) -> None:
        """Before a write: make every member say that redundancy may be behind, durably."""
        with trio.CancelScope(shield=True):
            await self._start_log(recorded=False)
            async with self._superblock_lock:
                if self._mark is Mark.DIRTY:
                    return
                self.check_changeable()
                await self._write_superblocks(0)
                self._mark = Mark.DIRTY
            await self._start_log(recorded=True)
        self._dirtied.set()

    async def _mark_clean(self) -> None:
        """Make every member say that all is well, if that is so and nobody is writing."""
        with trio.CancelScope(shield=True):
            if self._mark is not Mark.DIRTY or self._writing or self.engine.sync.needed or self._failed:
                return
            self._mark = Mark.CLEANING
            try:
                # Not under the lock: a member that fails now has to be recorded.
                await self.drain()
            except OrionError as error:
                self._mark = Mark.DIRTY if self._mark is Mark.CLEANING else self._mark
                self.emit("array.not-clean", f"cannot be marked clean: {error.message}", severity="error")
                return
            async with self._superblock_lock:
                if self._mark is not Mark.CLEANING:
                    return  # a write came in between, and has marked it dirty again
                try:
                    await self._flush_or_lose()
                    await self._write_superblocks(RESYNC_DONE)
                except OrionError as error:
                    # Some members may say clean by now: the next write has to mark them all again.
                    self._mark = Mark.UNSURE
                    self.emit("array.not-clean", f"cannot be marked clean: {error.message}", severity="error")
                    return
                self._mark = Mark.CLEAN

    async def _flush_or_lose(self) -> None:
        while failures := await on_each(self._written(), lambda member: member.present.flush()):
            for member, error in failures:
                self._lose(member, error)

    async def _write_superblocks(self, resync_offset: int) -> None:
        """Update all members, dropping those that cannot be written.  The caller holds the lock.

        Raises :class:`NoSpace` or :class:`MediaError`; what the superblocks say is then mixed, the newest being right.
        """
        while True:
            failures = await self.superblocks.write(resync_offset, self._step)
            if not failures:
                self._unrecorded = False
                self._step = 1
                return
            for member, error in failures:
                if isinstance(error, NoSpace):
                    raise error
                self._lose(member, error)

    async def record(self) -> None:
        """Write the superblocks anew: who is a member, and how far those are that are being filled, has changed."""
        with trio.CancelScope(shield=True):
            await self._start_log(recorded=False)
            async with self._superblock_lock:
                await self._record()
            await self._start_log(recorded=True)

    async def _record(self) -> None:
        dirty = (self._mark is not Mark.CLEAN and self.engine.redundant) or self.engine.sync.needed
        await self._write_superblocks(0 if dirty else self.superblocks.resync_offset)

    # --- failures --------------------------------------------------------------------------------------------------

    async def member_failed(self, member: Member, error: OrionError) -> None:
        """Part of :class:`~orionfs.array.engine.Faults`."""
        self._lose(member, error)
        await self._record_losses()

    async def read_corrected(self, member: Member) -> None:
        """Part of :class:`~orionfs.array.engine.Faults`: counts, and fails the member when there are too many."""
        now = self.clock.monotonic()
        recent = self._corrected.setdefault(id(member), [])
        recent.append(now)
        while recent and now - recent[0] > _ERRORS_WITHIN_S:
            del recent[0]
        if member.superblock is not None:
            member.superblock.cnt_corrected_read = (member.superblock.cnt_corrected_read + 1) & 0xFFFFFFFF
        if len(recent) > self.policies.max_read_errors and member.active and self.survives_without(member):
            error = MediaError(f"{len(recent)} read errors within an hour, more than max_read_errors allows")
            await self.member_failed(member, error)

    async def _record_losses(self) -> None:
        """Return only when every loss so far is on record on all members that are left."""
        with trio.CancelScope(shield=True):
            async with self._superblock_lock:
                if self._failed:
                    raise MediaError(f"{self.name}: {self._failed}")
                if not self._unrecorded or self._read_only:
                    return
                await self._record()
        await self.log_changed()

    async def log_changed(self) -> None:
        if self.log is not None:
            await self.log.member_changed()

    def survives_without(self, member: Member) -> bool:
        gone = {*self.roster.gone(), member.slot}
        return self.level.survives(self.freshest.layout, len(self._members), gone)

    def _lose(self, member: Member, error: OrionError) -> None:
        """Take a member out of service, or raise and stop all writes if the array cannot go on without it."""
        roster = self.roster
        if member in roster.spares:
            roster.spares.remove(member)
            roster.retired.append(member)
        elif member.state == "replacing":
            roster.slots[member.slot].copy = None
            roster.retired.append(member)
        elif not member.active and member.state != "rebuilding":
            return
        elif member.active and not self.survives_without(member):
            if not self._failed:
                self._failed = f"{member.label} failed and nothing can stand in for it: {error.message}"
                self.emit("array.failed", self._failed, severity="error")
            raise MediaError(f"{self.name}: {self._failed}") from error
        member.lose(error.message)
        copy, member.copy = member.copy, None
        if copy is not None:
            copy.fill(copy.valid)  # as far as it has got, it stands in for the member
            copy.checkpoint = 0
            roster.seat(member.slot, copy)
        self._unrecorded = True
        self._step = 2
        self.engine.member_changed()
        message = f"{member.label} is out of service: {error.message}"
        self.emit("member.failed", message, severity="error", slot=member.slot)
        self.background.wake()


async def _store_bad(member: Member) -> None:
    assert member.bad is not None
    await member.bad.store(member.present)
