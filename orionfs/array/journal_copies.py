"""LogMember: a member that carries a copy of the journal, and the writing of its headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orionfs.array.journal_format import HEADER_SPACE, SLOT, Area, Header, LogPlace, parse_header, readdressed
from orionfs.array.member import Member
from orionfs.array.transfer import on_each
from orionfs.device import StorageDevice
from orionfs.errors import MediaError, NoSpace, OrionError

#: Members that could not do something, and why.
Failures = list[tuple[Member, OrionError]]


class LogMember:
    """One copy of the journal.

    ``slot`` holds the last header that is known to be durable there; the other one is overwritten next, so that a cut
    in the middle leaves one of the two.
    """

    __slots__ = ("area", "member", "place", "ring", "slot")

    def __init__(self, member: Member, area: Area, slot: int) -> None:
        assert member.superblock is not None, f"{member.label} has no superblock"
        self.member = member
        self.area = area
        self.ring = area.ring
        self.place = LogPlace(member.superblock.device_uuid, area.base)
        self.slot = slot

    @property
    def data_offset(self) -> int:
        """Sectors, as in the superblock."""
        assert self.member.superblock is not None
        return self.member.superblock.data_offset

    def begin_header(self, header: bytes) -> _Begun | None:
        """Write *header* (encoded for any log member) to the older slot, as far as that takes no waiting;
        what is left for :meth:`end_header`, None if it is the newest now, durably.
        """
        target = 1 - self.slot
        block = readdressed(header, self.place, self.data_offset)
        device = self.member.present
        if not device.try_write(self.area.base + target * SLOT, [block]):
            return _Begun(self, target, block)
        if not device.try_flush():
            return _Begun(self, target, b"")
        self.slot = target
        return None

    async def end_header(self, begun: _Begun) -> None:
        """The rest of it.  Raises :class:`OrionError`."""
        if begun.block:
            await self.member.present.write(self.area.base + begun.target * SLOT, [begun.block])
        await flush_member(self.member)
        self.slot = begun.target

    async def erase(self) -> None:
        """Make both slots empty, durably.  Raises :class:`OrionError`."""
        await self.member.present.write(self.area.base, [bytes(HEADER_SPACE)])
        await flush_member(self.member)


class _Begun(NamedTuple):
    """A header on its way to the slot *target*: *block* is what has to be written yet."""

    log: LogMember
    target: int
    block: bytes


class Slots:
    """The two header slots of a device: what they hold, and why one of them could not be read."""

    __slots__ = ("headers", "unreadable")

    def __init__(self, headers: Sequence[Header | None], unreadable: OrionError | None = None) -> None:
        self.headers = headers
        self.unreadable = unreadable

    @property
    def newest(self) -> Header | None:
        """The header with the highest generation."""
        found = [header for header in self.headers if header is not None]
        return max(found, key=_generation, default=None)

    @property
    def slot(self) -> int:
        """Where the newest header lies."""
        newest = self.newest
        return 1 if newest is not None and newest is self.headers[1] else 0


def _generation(header: Header) -> int:
    return header.generation


async def read_slots(device: StorageDevice, area: Area) -> Slots:
    """Both slots of the journal in *area*; one that cannot be read counts as empty."""
    headers: list[Header | None] = []
    unreadable: OrionError | None = None
    for slot in range(HEADER_SPACE // SLOT):
        block = bytearray(SLOT)
        try:
            await device.read(area.base + slot * SLOT, [block])
        except OrionError as error:
            unreadable = error
            headers.append(None)
        else:
            headers.append(parse_header(block))
    return Slots(headers, unreadable)


async def put_headers(copies: Sequence[LogMember], header: Header) -> Failures:
    """Make *header* the newest on all *copies*, durably; those that failed.  One caller at a time."""
    encoded = header.encode()
    failures: Failures = []
    begun: dict[int, _Begun] = {}
    for copy in copies:
        try:
            rest = copy.begin_header(encoded)
        except OrionError as error:
            failures.append((copy.member, error))
        else:
            if rest is not None:
                begun[id(copy.member)] = rest

    async def end(member: Member) -> None:
        rest = begun[id(member)]
        await rest.log.end_header(rest)

    return failures + await on_each([rest.log.member for rest in begun.values()], end)


async def flush_member(member: Member) -> None:
    """Flush the device.  A flush that fails for want of space is the failure of the member, as all failed flushes are:
    it cannot be tried again.
    """
    try:
        await member.present.flush()
    except NoSpace as error:
        raise MediaError(error.message, hint=error.hint) from error


async def flush_members(members: Sequence[Member]) -> Failures:
    """Flush all *members*, together; those that failed."""
    waiting = [member for member in members if not member.present.try_flush()]
    return await on_each(waiting, flush_member) if waiting else []
