"""SuperblockSet: the superblocks of one running array, kept in step on all its members."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Protocol

from orionfs.array.member import WHOLE, Member
from orionfs.array.roster import Roster, recovery_sector, role_of
from orionfs.array.superblock import (
    FEATURE_BAD_BLOCKS,
    FEATURE_RECOVERY_BITMAP,
    FEATURE_RECOVERY_OFFSET,
    FEATURE_REPLACEMENT,
    MAX_ROLES,
    OFFSET,
    ROLE_FAULTY,
    ROLE_JOURNAL,
    ROLE_SPARE,
    Superblock,
    pack_time,
)
from orionfs.array.transfer import on_each
from orionfs.clock import Clock
from orionfs.errors import MediaError, NoSpace, OrionError, Refused

#: Where the checksum lies in an encoded superblock.
_CHECKSUM = struct.Struct("<I")
_CHECKSUM_AT = 216

#: Features that say how far a member is: decided anew with each update.
_PROGRESS = FEATURE_RECOVERY_OFFSET | FEATURE_RECOVERY_BITMAP | FEATURE_REPLACEMENT | FEATURE_BAD_BLOCKS

Failures = list[tuple[Member, OrionError]]


class Witness(Protocol):
    """Who has to know of an update of the superblocks before it happens: a journal."""

    async def witness(self, expected: Mapping[bytes, tuple[int, int]], events: int, utime: int) -> Failures:
        """By device uuid the checksum that a superblock has and the one that it is about to get; durable on return."""


class EventsKeeper(Protocol):
    """Whose event count must not be behind that of the superblocks: a bitmap."""

    async def note_events(self, events: int) -> Failures:
        """The superblocks are about to say *events*; durable on return."""


class SuperblockSet:
    """What every attached member must say: the event count, the resync offset, and who is in which slot.

    Fields that are a member's own (its number, its offsets, what we do not know) stay as they were read.  OrionFS only
    ever counts ``events`` up; MD's readers only compare.
    """

    def __init__(self, roster: Roster, freshest: Superblock, clock: Clock) -> None:
        self._roster = roster
        self._clock = clock
        self.events = freshest.events
        self.resync_offset = freshest.resync_offset
        self._roles = list(freshest.dev_roles)
        self._checksums: dict[bytes, int] = {}
        self.witness: Witness | None = None
        self.bitmap: EventsKeeper | None = None
        #: Whether all active members are known to have the same count, durably.  After a kill the newest superblock
        #: may be in the page cache only, after a cut one member may be behind.
        self._level = False

    def enlist(self, superblock: Superblock) -> None:
        """Give a new device a number that nobody has had.  Raises :class:`Refused` if there are no more."""
        used = [number for number, role in enumerate(self._roles) if role != ROLE_SPARE]
        used += [_own(member).dev_number for member in self._roster.everyone() if member.superblock is not None]
        number = max(used, default=-1) + 1
        if number >= MAX_ROLES:
            free = set(range(MAX_ROLES)) - set(used)
            if not free:
                raise Refused("the array has had as many members as its superblocks can count", hint="make a new array")
            number = min(free)
        while number >= len(self._roles):
            self._roles += [ROLE_SPARE] * min(256, MAX_ROLES - len(self._roles))
        superblock.dev_number = number

    def strike(self, superblock: Superblock) -> None:
        """The member was removed: its number belongs to nobody."""
        if superblock.dev_number < len(self._roles):
            self._roles[superblock.dev_number] = ROLE_SPARE

    async def write(self, resync_offset: int, step: int) -> Failures:
        """Put *resync_offset* (sectors of member data) on every attached member, *step* events later, durably.

        The members that could not be written, with their errors; if there are none, all have it when this returns.

        Counting goes one event at a time, and each count is durable on all members before the next begins: a cut then
        never leaves two members more than one event apart, which is as much as assembly forgives.  For the same reason
        members that may differ already are made equal first.
        """
        for increment in [1] * step if self._level else [0] + [1] * step:
            self.events += increment
            self._level = False
            failures = await self._write_once(resync_offset)
            if failures:
                return failures
            self._level = True
        return []

    async def _write_once(self, resync_offset: int) -> Failures:
        self.resync_offset = resync_offset
        attached = self._roster.attached()
        self._assign_roles(attached)
        utime = pack_time(self._clock.wall_ns())
        images: dict[int, bytes] = {}
        expected: dict[bytes, tuple[int, int]] = {}
        for member in attached:
            own = _own(member)
            before = self._checksums.get(own.device_uuid)
            if before is None:
                before = _checksum(own.raw)
            own.events = self.events
            own.utime = utime
            own.resync_offset = resync_offset
            own.dev_roles = list(self._roles)
            _note_progress(own, member)
            image = images[id(member)] = own.encode()
            expected[own.device_uuid] = before, _checksum(image)
        if self.bitmap is not None:
            failures = await self.bitmap.note_events(self.events)
            if failures:
                return failures
        if self.witness is not None:
            failures = await self.witness.witness(expected, self.events, utime)
            if failures:
                return failures
        failures = await on_each(attached, lambda member: self._put(member, images[id(member)]))
        failed = {id(member) for member, _error in failures}
        for member in attached:
            if id(member) not in failed:
                own = _own(member)
                self._checksums[own.device_uuid] = expected[own.device_uuid][1]
        return failures

    def _assign_roles(self, attached: list[Member]) -> None:
        """Whoever is not here is on record as faulty, so that its return is noticed: it is stale from now on."""
        present = {_own(member).dev_number: role_of(member) for member in attached}
        for number, role in enumerate(self._roles):
            if number in present:
                self._roles[number] = present[number]
            elif role < ROLE_JOURNAL:
                self._roles[number] = ROLE_FAULTY

    @staticmethod
    async def _put(member: Member, image: bytes) -> None:
        length = _own(member).length(member.present.geometry.logical_block)
        await member.present.write(OFFSET, [image[:length]])
        try:
            await member.present.flush()
        except NoSpace as error:
            # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
            raise MediaError(error.message) from error


def _note_progress(own: Superblock, member: Member) -> None:
    own.feature_map &= ~_PROGRESS
    own.recovery_offset = 0
    if member.state == "replacing":
        own.feature_map |= FEATURE_REPLACEMENT
    if member.state in ("rebuilding", "replacing") and member.checkpoint < WHOLE:
        own.feature_map |= FEATURE_RECOVERY_OFFSET
        own.recovery_offset = recovery_sector(member)
    if member.bad:
        own.feature_map |= FEATURE_BAD_BLOCKS


def _checksum(image: bytes) -> int:
    value: int = _CHECKSUM.unpack_from(image, _CHECKSUM_AT)[0]
    return value


def _own(member: Member) -> Superblock:
    assert member.superblock is not None, f"{member.label} is attached without a superblock"
    return member.superblock
