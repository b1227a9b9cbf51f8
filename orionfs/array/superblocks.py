"""SuperblockSet: the superblocks of one running array, kept in step on all its members."""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.member import Member
from orionfs.array.superblock import OFFSET, ROLE_FAULTY, ROLE_JOURNAL, Superblock, pack_time
from orionfs.array.transfer import on_each
from orionfs.clock import Clock
from orionfs.errors import MediaError, NoSpace, OrionError


class SuperblockSet:
    """What every active member must say: the event count, the resync offset, and who is in which slot.

    Fields that are a member's own (its number, its offsets, what we do not know) stay as they were read.  OrionFS only
    ever counts ``events`` up; MD's readers only compare.
    """

    def __init__(self, members: Sequence[Member], freshest: Superblock, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self.events = freshest.events
        self.resync_offset = freshest.resync_offset
        self._roles = list(freshest.dev_roles)
        #: Whether all active members are known to have the same count, durably.  After a kill the newest superblock
        #: may be in the page cache only, after a cut one member may be behind.
        self._level = False

    async def write(self, resync_offset: int, step: int) -> list[tuple[Member, OrionError]]:
        """Put *resync_offset* (sectors of member data) on every active member, *step* events later, durably.

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

    async def _write_once(self, resync_offset: int) -> list[tuple[Member, OrionError]]:
        self.resync_offset = resync_offset
        active = [member for member in self._members if member.active]
        self._disown_absent({_own(member).dev_number for member in active})
        utime = pack_time(self._clock.wall_ns())
        images: dict[int, bytes] = {}
        for member in active:
            own = _own(member)
            own.events = self.events
            own.utime = utime
            own.resync_offset = resync_offset
            own.dev_roles = list(self._roles)
            images[member.slot] = own.encode()

        return await on_each(active, lambda member: self._put(member, images[member.slot]))

    def _disown_absent(self, present: set[int]) -> None:
        """Whoever is not here is on record as faulty, so that its return is noticed: it is stale from now on."""
        for number, role in enumerate(self._roles):
            if role < ROLE_JOURNAL and number not in present:
                self._roles[number] = ROLE_FAULTY

    @staticmethod
    async def _put(member: Member, image: bytes) -> None:
        await member.present.write(OFFSET, [image])
        try:
            await member.present.flush()
        except NoSpace as error:
            # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
            raise MediaError(error.message) from error


def _own(member: Member) -> Superblock:
    assert member.superblock is not None, f"slot {member.slot} is active without a superblock"
    return member.superblock
