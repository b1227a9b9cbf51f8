"""Administration: who is a member of a running array, and how one becomes it or stops being it."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable
from typing import Any

from orionfs.array.background import Background
from orionfs.array.bad_blocks import BadBlocks
from orionfs.array.engine import Engine
from orionfs.array.enlisting import enlist_device, own_superblock
from orionfs.array.levels import Level
from orionfs.array.member import WHOLE, Member
from orionfs.array.policies import Policies
from orionfs.array.roster import NO_SLOT, Roster
from orionfs.array.superblock import Superblock
from orionfs.array.superblocks import SuperblockSet
from orionfs.array.work import Gate
from orionfs.array.write_intent import WriteIntent
from orionfs.clock import Clock
from orionfs.device import StorageDevice
from orionfs.errors import MediaError, OrionError, Refused
from orionfs.randomness import Randomness
from orionfs.units import SECTOR, format_size

#: Finds a spare outside of the array that has so many bytes, and gives it away: its label and its device.
SparePool = Callable[[int], Awaitable[tuple[str, StorageDevice] | None]]


class Administration(abc.ABC):
    """The part of an :class:`~orionfs.array.array.Array` that changes its members.

    Everything that it changes is on record, durably, when a method returns.  All methods raise
    :class:`~orionfs.errors.Refused` for what would lose data or makes no sense, with the next thing to do.
    """

    name: str
    level: Level
    freshest: Superblock
    engine: Engine
    roster: Roster
    clock: Clock
    randomness: Randomness
    policies: Policies
    superblocks: SuperblockSet
    gate: Gate
    background: Background
    bitmap: WriteIntent | None
    spare_pool: SparePool | None
    _unrecorded: bool
    _step: int

    @abc.abstractmethod
    async def record(self) -> None:
        """Write the superblocks anew."""

    @abc.abstractmethod
    async def member_failed(self, member: Member, error: OrionError) -> None:
        """As :meth:`orionfs.array.engine.Faults.member_failed`."""

    @abc.abstractmethod
    def emit(self, kind: str, message: str, *, severity: str = "info", **facts: Any) -> object:
        """Record one event about the array."""

    @abc.abstractmethod
    async def log_changed(self) -> None:
        """Tell a log that members have come or gone."""

    @abc.abstractmethod
    def check_changeable(self) -> None:
        """Raise unless the array takes writes."""

    @abc.abstractmethod
    async def close_device(self, device: StorageDevice) -> OrionError | None:
        """Close a device that the array owns; the error, which is an event too, if that fails."""

    @abc.abstractmethod
    def survives_without(self, member: Member) -> bool:
        """Whether all data would be there if *member* went."""

    # --- what the jobs need ----------------------------------------------------------------------------------------

    async def checkpoint(self, target: Member) -> None:
        """Part of :class:`~orionfs.array.work.Host`."""
        valid = target.valid
        try:
            await target.present.flush()
        except OrionError as error:
            await self.member_failed(target, error)
            return
        if target.state in ("rebuilding", "replacing"):
            target.checkpoint = valid
            await self.record()

    async def admit(self, target: Member) -> None:
        """Part of :class:`~orionfs.array.work.Host`."""
        try:
            await target.present.flush()
        except OrionError as error:
            await self.member_failed(target, error)
            return
        if target.state == "replacing":
            # First it is complete, on record, then it has the slot: at no cut between nobody has.
            target.checkpoint = WHOLE
            await self.record()
            if target.state != "replacing":
                return
            original = self.roster.slots[target.slot]
            original.copy = None
            # From here on writes pass it by: no acknowledgement before that is on record.
            self._unrecorded = True
            self._step = 2
            original.lose(f"replaced by {target.label}")
            original.state = "replaced"
            self.roster.seat(target.slot, target)
        elif target.state != "rebuilding":
            return
        target.admit()
        self.engine.member_changed()
        await self.record()
        await self.log_changed()
        self.background.wake()

    def spare_wanted(self) -> bool:
        """Part of :class:`~orionfs.array.background.Takeover`."""
        return self.policies.spare_policy == "auto" and bool(self._vacant()) and bool(self.roster.spares)

    async def take_over(self) -> bool:
        """Part of :class:`~orionfs.array.background.Takeover`."""
        vacant = self._vacant()
        if not vacant or self.policies.spare_policy != "auto" or not self.engine.redundant:
            return False
        spare = self.roster.take_spare(None, self._component())
        if spare is None:
            spare = await self._borrow()
        if spare is None:
            return False
        await self._seat(vacant[0], spare)
        return True

    def _vacant(self) -> list[int]:
        """The slots that nobody fills, or is being made to."""
        return [member.slot for member in self.roster.slots if not member.active and member.state != "rebuilding"]

    def _component(self) -> int:
        return self.freshest.size * SECTOR

    async def _borrow(self) -> Member | None:
        """A spare from the pool that several arrays share."""
        if self.spare_pool is None:
            return None
        found = await self.spare_pool(self.freshest.data_offset * SECTOR + self._component())
        if found is None:
            return None
        label, device = found
        try:
            spare = await enlist_device(self, label, device, force=False)
        except OrionError:
            await self.close_device(device)
            raise
        self.emit("spare.borrowed", f"{label} was taken from the shared spares")
        return spare

    async def _seat(self, slot: int, spare: Member, *, by_bitmap: bool = False) -> None:
        """Begin to fill *spare*, which is in no list any more, in *slot*."""
        spare.slot = slot
        spare.fill(0)
        if by_bitmap:
            self.background.by_bitmap.add(id(spare))
        self.roster.seat(slot, spare)
        self.engine.member_changed()
        await self._store_bitmap(spare)
        await self.record()
        self.emit("member.seated", f"{spare.label} takes slot {slot}", slot=slot)
        self.background.wake()

    async def _store_bitmap(self, member: Member) -> None:
        if self.bitmap is not None:
            for failed, error in await self.bitmap.store_on(member):
                await self.member_failed(failed, error)

    # --- what an administrator asks for ----------------------------------------------------------------------------

    async def add(self, label: str, device: StorageDevice, *, force: bool = False) -> None:
        """Make *device* a spare, or what it was if it is a former member.  The array owns it then.

        Without *force* a device that holds something recognizable is refused, unless it was a member of this array.
        """
        self.check_changeable()
        if not self.engine.redundant:
            raise Refused(
                f"{self.name} ({self.level.name}) has no use for a spare",
                hint="only redundancy can use it",
            )
        known = await own_superblock(self, device)
        if known is not None and self._empty_slot_of(known) is not None:
            await self.readd(label, device)
            return
        # A former member whose slot is taken holds nothing that anybody could still want.
        spare = await enlist_device(self, label, device, force=force or known is not None)
        spare.slot, spare.state = NO_SLOT, "spare"
        self.roster.spares.append(spare)
        await self._store_bitmap(spare)
        await self.record()
        self.emit("spare.added", f"{label} is a spare now")
        self.background.wake()

    async def fail(self, name: str) -> None:
        """Take a member out of service."""
        self.check_changeable()
        member = self.roster.find(name)
        if member.state in ("failed", "missing", "replaced"):
            raise Refused(f"{member.label} is {member.state} already", hint=f"orionctl array remove {self.name} {name}")
        if member.active and not self.survives_without(member):
            raise Refused(
                f"{member.label} cannot be failed: {self.name} cannot do without it",
                hint="add a spare and wait for the rebuild first",
            )
        await self.member_failed(member, MediaError("failed by the administrator"))

    async def remove(self, name: str) -> StorageDevice | None:
        """Forget a failed member or a spare; its device (None: it had none), which is the caller's to close."""
        self.check_changeable()
        member = self.roster.find(name)
        if member.active or member.state in ("rebuilding", "replacing"):
            raise Refused(
                f"{member.label} is in use ({member.state})", hint=f"orionctl array fail {self.name} {name}  first"
            )
        self.roster.remove(member)
        if member.superblock is not None:
            self.superblocks.strike(member.superblock)
        device, member.device = member.device, None
        self.engine.member_changed()
        await self.record()
        self.emit("member.removed", f"{member.label} was removed")
        return device

    async def replace(self, name: str, spare_name: str = "") -> None:
        """Begin to copy a member onto a spare, which takes its slot in the end; redundancy is never less meanwhile."""
        self.check_changeable()
        member = self.roster.find(name)
        if not member.active:
            raise Refused(
                f"{member.label} is {member.state}", hint="a spare takes the place of such a member by itself"
            )
        if member.copy is not None:
            raise Refused(f"{member.label} is being replaced already, by {member.copy.label}", hint="wait for it")
        wanted = self.roster.find(spare_name) if spare_name else None
        if wanted is not None and wanted not in self.roster.spares:
            raise Refused(f"{wanted.label} is no spare", hint=f"orionctl array add {self.name} NEW_MEMBER  first")
        if wanted is not None and wanted.data_size < self._component():
            raise Refused(f"{wanted.label} is too small", hint=f"it needs {format_size(self._component())} for data")
        spare = self.roster.take_spare(wanted, self._component()) or await self._borrow()
        if spare is None:
            raise Refused(
                f"{self.name} has no spare to replace {member.label} with",
                hint=f"orionctl array add {self.name} NEW_MEMBER  first",
            )
        spare.slot = member.slot
        spare.fill(0, "replacing")
        member.copy = spare
        self.engine.member_changed()
        await self._store_bitmap(spare)
        await self.record()
        self.emit("replacement.wanted", f"{spare.label} is to replace {member.label}", slot=member.slot)
        self.background.wake()

    async def readd(self, label: str, device: StorageDevice | None = None) -> None:
        """Take a former member back into its slot; only what the bitmap lists is copied, if it covers the absence.

        *device* None takes the one that the array still holds.  The array owns it when this returns.
        """
        self.check_changeable()
        held = None
        if device is None:
            held = self.roster.find(label)
            if held.active or held.state in ("rebuilding", "replacing", "spare"):
                raise Refused(f"{held.label} is {held.state}", hint="nothing has to be done")
            if held.device is None:
                raise Refused(f"{held.label} is not there", hint="bring it back, then try again")
            device, label = held.device, held.label
        superblock = await own_superblock(self, device)
        if superblock is None:
            raise Refused(f"{label} is no former member of {self.name}", hint=f"orionctl array add {self.name} {label}")
        slot = self._empty_slot_of(superblock)
        if slot is None:
            raise Refused(f"the slot of {label} is taken", hint=f"orionctl array add {self.name} {label}")
        member = Member(slot, label, device, superblock, "missing")
        member.bad = await self.bad_blocks_of(member)
        covered = self.bitmap is not None and self.bitmap.covers(superblock.events)
        if held is not None and held in self.roster.retired:
            self.roster.retired.remove(held)
        await self._seat(slot, member, by_bitmap=covered)
        how = "by the bitmap" if covered else "as a whole, for the bitmap does not cover its absence"
        self.emit("member.readded", f"{label} is back in slot {slot}; it is brought up to date {how}", slot=slot)

    @abc.abstractmethod
    async def bad_blocks_of(self, member: Member, *, fresh: bool = False) -> BadBlocks | None:
        """The list of bad blocks of *member*, an empty one if *fresh*; None if it has no room for one."""

    async def member_returned(self, label: str, device: StorageDevice) -> None:
        """A member that was missing is there again: take it back."""
        await self.readd(label, device)

    async def clear(self, name: str = "") -> None:
        """Forget the error counters of one member, or of all."""
        for member in [self.roster.find(name)] if name else self.roster.everyone():
            counters = member.counters
            counters.read_errors = counters.write_errors = counters.checksum_errors = 0

    def _empty_slot_of(self, superblock: Superblock) -> int | None:
        """The slot that *superblock* claims, if nobody is in it."""
        slot = superblock.role
        if not 0 <= slot < len(self.roster.slots):
            return None
        member = self.roster.slots[slot]
        return slot if not member.active and member.state != "rebuilding" else None

    # --- jobs ------------------------------------------------------------------------------------------------------

    def request(self, kind: str) -> None:
        """Queue a ``check`` or a ``repair``."""
        self.check_changeable()
        if kind not in ("check", "repair"):
            raise Refused(f"there is no job {kind}", hint="check and repair can be asked for")
        self.background.ask(kind)

    def pause(self) -> None:
        """Let background jobs wait where they are."""
        self.gate.pause()
        self.emit("jobs.paused", "background jobs wait")

    def resume(self) -> None:
        """Let them go on."""
        self.gate.resume()
        self.emit("jobs.resumed", "background jobs go on")

    def cancel(self) -> None:
        """Forget the checks and repairs that were asked for, also one that runs."""
        count = self.background.cancel()
        self.emit("jobs.cancelled", f"{count} scrubs were cancelled")

    async def set_policy(self, name: str, value: str) -> None:
        """Change a policy; it holds at once, and until the array is closed."""
        self.policies.change(name, value)
        if name in ("write_policy", "whole_stripes"):
            await self.log_changed()
        self.emit("policy.changed", f"{name} is {value} now")
        self.background.wake()
