"""JournalHead: what the headers of a running journal say, and on which members they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from orionfs.array.journal_copies import Failures, LogMember, put_headers, read_slots
from orionfs.array.journal_format import (
    MAX_RECORD,
    MAX_WITNESSED,
    Area,
    Header,
    Mark,
    Void,
    Witnessed,
    area_of,
    mark_of,
    minimum_ring,
)
from orionfs.array.member import Member
from orionfs.errors import Refused
from orionfs.randomness import Randomness
from orionfs.units import SECTOR, round_down

#: A header has room for so many members and, at the same time, for more copies than anybody makes.
_MOST_MEMBERS = 64


class Site(NamedTuple):
    """Where an array has its journal: what does not change while it runs.

    ``gap`` gives the place of a member that MD leaves alone, as offset and length in bytes; None if there is none.
    ``tolerates`` is how many members the level can lose, ``chunk`` its chunk in bytes.
    """

    set_uuid: bytes
    chunk: int
    tolerates: int
    gap: Callable[[Member], tuple[int, int] | None]


class JournalHead:
    """The header to be, and the log members.  All that writes is called by one task at a time."""

    def __init__(
        self, members: Sequence[Member], site: Site, *, proven: Callable[[], bool], randomness: Randomness
    ) -> None:
        self._members = members
        self._site = site
        self._proven = proven
        self._randomness = randomness
        #: The log members, those that have failed lately among them.
        self.copies: list[LogMember] = []
        #: 0 before the first.
        self.epoch = 0
        self.generation = 0
        self.ring_size = 0
        self.unit = SECTOR
        #: A replay begins with this record.
        self.tail = 1
        self.voids: list[Void] = []
        #: Voids ever made, and those that a durable header names.
        self.void_count = self.voids_told = 0
        self.said_proven = False
        self._witness: dict[bytes, Witnessed] = {}
        #: Who is behind the uuids in the witness, also if he has lost his place since.
        self._named: dict[bytes, Member] = {}
        #: The members that the newest header names.
        self.listed: list[Member] = []
        for member in everyone(members):
            if member.superblock is not None and takes_part(member):
                mark = mark_of(member.superblock)
                self._witness[member.superblock.device_uuid] = Witnessed(mark, mark)

    # --- who carries it --------------------------------------------------------------------------------------------

    @property
    def logs(self) -> list[LogMember]:
        """The log members that are in service."""
        return [log for log in self.copies if log.member.active]

    @property
    def most(self) -> int:
        """The longest record: two of them fit into the ring."""
        return round_down(min(self.ring_size // 2, MAX_RECORD), self.unit)

    def wanted(self) -> int:
        """How many copies outlast the losses that the array still tolerates."""
        gone = sum(1 for member in self._members if not member.active)
        return max(self._site.tolerates - gone, 0) + 1

    @property
    def improvable(self) -> bool:
        """Whether there should be more log members than there are, and can be."""
        return bool(self.epoch) and len(self.logs) < min(self.wanted(), len(self._areas()))

    def check(self) -> None:
        """Raise :class:`~orionfs.errors.Refused` if these members cannot have a journal."""
        found, wanted = len(self._areas()), self.wanted()
        if found < wanted:
            raise Refused(
                f"a journal needs room before the data of {wanted} members, and {found} have it",
                hint='choose consistency = "resync", or "ppl" on RAID 5',
            )
        if len(self._members) > _MOST_MEMBERS:
            raise Refused(f"a journal serves at most {_MOST_MEMBERS} members", hint='choose consistency = "resync"')

    def _areas(self) -> list[tuple[Member, Area]]:
        """The members that can carry a copy, in the order of their slots."""
        found = []
        for member in self._members:
            gap = self._site.gap(member) if member.active else None
            area = area_of(*gap) if gap is not None else None
            if area is None:
                continue
            if area.ring_size >= minimum_ring(len(self._members), member.present.geometry.logical_block):
                found.append((member, area))
        return found

    async def form(self, first: int) -> None:
        """Choose log members and an epoch whose first record is *first*; nothing is pending.  Writes nothing yet.

        Raises :class:`~orionfs.errors.Refused` as :meth:`check` does.
        """
        self.check()
        current = {id(log.member): log for log in self.logs}
        areas = sorted(self._areas(), key=lambda found: (id(found[0]) not in current, found[0].write_mostly))
        chosen = areas[: self.wanted()]
        logs = []
        for member, area in chosen:
            slots = await read_slots(member.present, area)
            if slots.newest is not None:
                self.generation = max(self.generation, slots.newest.generation)
            logs.append(current.get(id(member)) or LogMember(member, area, slots.slot))
        self.copies = logs
        self.unit = max([SECTOR, *(member.present.geometry.logical_block for member, _area in chosen)])
        self.ring_size = round_down(min(area.ring_size for _member, area in chosen), self.unit)
        # The generation is above all that were found, so that even chance cannot repeat an epoch.
        self.epoch = (self.generation + 1) % 2**32 << 32 | int.from_bytes(self._randomness.bytes(4), "little")
        self.tail = first
        self.voids = []

    def adopt(self, header: Header, slots: Mapping[bytes, int]) -> None:
        """Go on from a *header* that was found; *slots* says, by device uuid, where the newest header lies."""
        self.epoch, self.tail, self.unit = header.epoch, header.sequence, header.unit
        self.ring_size = header.ring_size
        self.voids = list(header.voids)
        self._witness = dict(header.witness)
        bases = dict(header.logs)
        for member in self._members:
            uuid = _uuid(member)
            if member.active and uuid in bases:
                self.copies.append(LogMember(member, Area(bases[uuid], header.ring_size), slots.get(uuid, 0)))

    async def erase(self) -> None:
        """Leave no header behind.  Raises :class:`OrionError`."""
        for log in self.logs:
            await log.erase()
        self.copies, self.epoch = [], 0

    # --- what it says ----------------------------------------------------------------------------------------------

    def expect(self, expected: Mapping[bytes, tuple[int, int]], events: int, utime: int) -> None:
        """Take note of superblocks that are about to change: by device uuid the checksum of each, and the next one."""
        own = {_uuid(member) for member in everyone(self._members)}
        for uuid in expected.keys() & own:
            before, after = expected[uuid]
            self._witness[uuid] = Witnessed(self._known(uuid, before), Mark(after, events, utime))

    def _known(self, uuid: bytes, checksum: int) -> Mark:
        """The version of a superblock with that *checksum*, as far as this has heard of it."""
        for mark in reversed(self._witness.get(uuid, ())):
            if mark.checksum == checksum:
                return mark
        return Mark(checksum, 0, 0)

    def prune(self) -> None:
        """Leave out whoever takes no part any more.

        Not done when a superblock update is announced: until that has happened, a cut leaves superblocks that still
        count on the member, and nothing has passed it by yet that a replay could not make good.
        """
        there = {_uuid(member) for member in everyone(self._members) if takes_part(member)}
        self._witness = {uuid: marks for uuid, marks in self._witness.items() if uuid in there}

    def give_up(self, void: Void) -> None:
        """A replay has to pass over that record."""
        self.voids.append(void)
        self.void_count += 1

    @property
    def stale(self) -> bool:
        """Whether the newest header says what is not so, and something durable could depend on it."""
        return self.void_count > self.voids_told or (self.said_proven and not self._proven())

    @property
    def complete(self) -> bool:
        """Whether records may follow: the newest header names all voids, and nobody whom records would leave out."""
        return self.void_count == self.voids_told and all(
            uuid in self._named and _gets_records(self._named[uuid]) for uuid in self._witness
        )

    async def put(self, offset: int) -> Failures:
        """Make the header as it is now the newest on all log members, durably; the log members that failed.

        *offset* is where in the ring the record ``tail`` is.  Writes nothing where no log member is left.
        """
        self.copies = logs = self.logs
        if not logs:
            return []
        self.generation += 1
        told, proven = self.void_count, self._proven()
        for member in everyone(self._members):
            self._named[_uuid(member)] = member
        self._named = {uuid: member for uuid, member in self._named.items() if uuid in self._witness}
        listed = list(self._named.values())
        failures = await put_headers(logs, self._header(logs, offset, proven))
        if not failures:
            self.voids_told, self.said_proven, self.listed = told, proven, listed
        return failures

    def _header(self, logs: Sequence[LogMember], offset: int, proven: bool) -> Header:
        return Header(
            generation=self.generation,
            set_uuid=self._site.set_uuid,
            device_uuid=logs[0].place.device_uuid,
            data_offset=logs[0].data_offset,
            base=logs[0].area.base,
            epoch=self.epoch,
            sequence=self.tail,
            offset=offset,
            ring_size=self.ring_size,
            unit=self.unit,
            proven=proven,
            logs=tuple(log.place for log in logs),
            voids=tuple(void for void in self.voids if void.sequence >= self.tail),
            witness=self._marks(),
        )

    def _marks(self) -> dict[bytes, Witnessed]:
        """The witness; where there are more copies being made than fit, some of them will have to begin again."""
        if len(self._witness) <= MAX_WITNESSED:
            return dict(self._witness)
        slots = {_uuid(member) for member in self._members}
        ordered = sorted(self._witness.items(), key=lambda item: item[0] not in slots)
        return dict(ordered[:MAX_WITNESSED])


def everyone(members: Sequence[Member]) -> list[Member]:
    """Whoever data may be written to: *members*, and the copies that are made of them."""
    found = []
    for member in members:
        found.append(member)
        if member.copy is not None:
            found.append(member.copy)
    return found


def takes_part(member: Member) -> bool:
    """Whether writes go to the member: it is in sync, or being filled."""
    return member.active or member.state in ("rebuilding", "replacing")


def _gets_records(member: Member) -> bool:
    """Whether records have what the member needs.  They go by slots, and the one of a replaced member is filled."""
    return takes_part(member) or member.state == "replaced"


def _uuid(member: Member) -> bytes:
    return member.superblock.device_uuid if member.superblock is not None else b""
