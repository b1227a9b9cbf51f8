"""Replay: which journal an array that was not closed properly has, whether it may be believed, and what it holds.

:func:`choose_header` is the verdict, and pure: it sees headers and superblocks.  :func:`examine` does the reading
around it.  Nothing is written here: the records go to the members' overlays (:meth:`Journal.load
<orionfs.array.journal.Journal.load>`), from where they are served, and later put in place.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orionfs.array.journal_copies import Slots, read_slots
from orionfs.array.journal_format import (
    MAX_RECORD,
    RECORD_MAGIC,
    RECORD_MAGIC_AT,
    Area,
    Header,
    RecordHead,
    area_of,
    check_record,
    head_size,
    mark_of,
    parse_head,
    record_pieces,
)
from orionfs.array.superblock import RESYNC_DONE, Superblock
from orionfs.device import StorageDevice
from orionfs.errors import OrionError
from orionfs.units import KIB, SECTOR

_READ_AHEAD = 256 * KIB


class Present(NamedTuple):
    """A device that is there, its superblock as it was read, and the gap of it (offset and length in bytes)."""

    label: str
    device: StorageDevice
    superblock: Superblock
    gap: tuple[int, int] | None


class FoundRecord(NamedTuple):
    """A record that is to be put in place: *pieces* are (slot, offset, bytes).

    *lacking* are the log members, by device uuid, that do not have it: they need *raw* at *offset* of their ring before
    anything is put in place, because a second cut may leave only them.
    """

    sequence: int
    offset: int
    raw: memoryview
    pieces: list[tuple[int, int, memoryview]]
    lacking: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class JournalVerdict:
    """What the journals of some devices add up to.

    ``usable``: the journal is this array's, nobody has changed a superblock since it was written, and the array was
    dirty.  Then ``records`` restore every stripe that was being written in part, and ``proven`` says that the
    redundancy of everything else agrees, but for whole stripes in flight: with both, a dirty array may start degraded.
    ``disowned`` are present devices that had failed when the journal was written, whatever their superblocks say: they
    have to be set aside as stale.

    Otherwise ``reason`` says why not, a clause for a person (empty: the array was closed properly); the journal is then
    worthless, and the array plain MD.  Only if it is ``damaged`` it was to be replayed and cannot be: flushed data may
    be lost, so the array should not start unless somebody insists.
    """

    usable: bool
    reason: str = ""
    records: tuple[FoundRecord, ...] = ()
    header: Header | None = None
    disowned: tuple[str, ...] = ()
    damaged: bool = False
    #: Whether a journal is worthless that may still hold writes: somebody else has run the array since, or moved it.
    discarded: bool = False
    #: The highest generation that was seen: new headers have to be above it.
    generation: int = 0
    #: By device uuid the slot with the newest header.
    slots: Mapping[bytes, int] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether redundancy may be trusted once the records are in place."""
        return self.usable and self.header is not None and self.header.proven


class Choice(NamedTuple):
    """The header to go by, or the reason why there is none; and who had failed when it was written.

    ``outdated`` is a header that somebody else's run of the array has made worthless.
    """

    header: Header | None
    reason: str = ""
    disowned: tuple[str, ...] = ()
    outdated: Header | None = None


class _Found(NamedTuple):
    """A present device with what its header slots hold."""

    present: Present
    area: Area
    slots: Slots


async def examine(devices: Sequence[Present]) -> JournalVerdict:
    """Read the journals of *devices* and judge them.

    Reads at most the header slots and one ring of each log member.  Media that cannot be read make the journal damaged
    or let another copy serve; nothing is raised.
    """
    found = []
    for present in devices:
        area = area_of(*present.gap) if present.gap is not None else None
        if area is not None:
            found.append(_Found(present, area, await read_slots(present.device, area)))
    superblocks = [(present.label, present.superblock) for present in devices]
    headers = [
        (item.present.superblock, item.area, item.slots.newest) for item in found if item.slots.newest is not None
    ]
    generation = max((header.generation for _sb, _area, header in headers), default=0)
    header, reason, disowned, outdated = choose_header(headers, superblocks)
    current = current_members([superblock for _label, superblock in superblocks])
    if header is None:
        discarded = bool(reason and generation)
        if outdated is not None and (logs := _logs_of(outdated, found, current)):
            records, trouble = await _Walk(outdated, logs).collect()
            discarded = bool(records or trouble)
        return JournalVerdict(False, reason, discarded=discarded, generation=generation)
    logs = _logs_of(header, found, current)
    records, trouble = await _Walk(header, logs).collect()
    return JournalVerdict(
        usable=not trouble,
        reason=trouble,
        records=tuple(records),
        header=header,
        disowned=disowned,
        damaged=bool(trouble),
        generation=generation,
        slots={item.present.superblock.device_uuid: item.slots.slot for item in logs},
    )


def _logs_of(header: Header, found: Sequence[_Found], current: Sequence[Superblock]) -> list[_Found]:
    """Those of *found* that have the journal of *header*, and are members still."""
    bases = dict(header.logs)
    return [
        item
        for item in found
        if bases.get(item.present.superblock.device_uuid) == item.area.base
        and item.area.ring_size >= header.ring_size
        and _among(item.present.superblock, current)
    ]


# --- the verdict -----------------------------------------------------------------------------------------------------


def current_members(superblocks: Sequence[Superblock]) -> list[Superblock]:
    """Those of the devices that are members now by the newest of their superblocks: in a slot, and at most one event
    behind, as a cut between two updates leaves it.
    """
    events = max((superblock.events for superblock in superblocks), default=0)
    newest = [superblock for superblock in superblocks if superblock.events == events]
    return [
        superblock
        for superblock in superblocks
        if superblock.events + 1 >= events
        and superblock.role < superblock.raid_disks
        and all(account.role_of(superblock.dev_number) == superblock.role for account in newest)
    ]


def choose_header(
    headers: Sequence[tuple[Superblock, Area, Header]], superblocks: Sequence[tuple[str, Superblock]]
) -> Choice:
    """The header to replay by.

    *headers* are the newest of each device, with its superblock and where its journal belongs; *superblocks* those of
    all present devices.  A journal is discarded if any superblock of a current member is not one of the two that the
    header names: then somebody else has run the array since.  What stale members say counts for nothing.
    """
    current = current_members([superblock for _label, superblock in superblocks])
    own = [
        header
        for superblock, area, header in headers
        if _among(superblock, current)
        and (header.set_uuid, header.device_uuid, header.data_offset, header.base)
        == (superblock.set_uuid, superblock.device_uuid, superblock.data_offset, area.base)
        and header.ring_size <= area.ring_size
    ]
    if not own:
        return Choice(None, "there is no journal")
    header = max(own, key=lambda found: found.generation)
    disowned = []
    for label, superblock in superblocks:
        if not _among(superblock, current):
            continue
        witnessed = header.witness.get(superblock.device_uuid)
        if witnessed is None:
            disowned.append(label)
        elif not any(mark.fits(mark_of(superblock)) for mark in witnessed):
            reason = f"{label} was changed by somebody else after the journal was written"
            return Choice(None, reason, outdated=header)
    events = max(superblock.events for superblock in current)
    if all(superblock.resync_offset == RESYNC_DONE for superblock in current if superblock.events == events):
        return Choice(None)  # the array was closed properly: there is nothing to replay, and nothing to tell
    return Choice(header, "", tuple(disowned))


def _among(superblock: Superblock, members: Sequence[Superblock]) -> bool:
    """Whether this very superblock is one of them: two devices may hold equal ones."""
    return any(superblock is member for member in members)


# --- reading the ring ------------------------------------------------------------------------------------------------


class _Ring:
    """The ring of one log member, read ahead; what cannot be read is noted in ``trouble``."""

    def __init__(self, present: Present, area: Area, header: Header) -> None:
        self.label = present.label
        self.uuid = present.superblock.device_uuid
        self.trouble = ""
        self._device = present.device
        self._ring = area.ring
        self._header = header
        self._start = 0
        self._window = memoryview(b"")

    async def get(self, offset: int, length: int) -> memoryview | None:
        """*length* bytes at *offset*, or as many as there are; None if they cannot be read."""
        size = self._header.ring_size
        end = min(offset + length, size)
        if offset >= end:
            return memoryview(b"")
        if not (self._start <= offset and end <= self._start + len(self._window)):
            ahead = min(max(end, offset + _READ_AHEAD), size)
            for stop in (ahead, end):  # an unreadable sector behind what is wanted is no reason to fail
                buffer = bytearray(stop - offset)
                try:
                    await self._device.read(self._ring + offset, [buffer])
                except OrionError as error:
                    self._window = memoryview(b"")
                    failure = f"{self.label}: {error.message}"
                else:
                    self._start, self._window = offset, memoryview(buffer)
                    break
            else:
                self.trouble = failure
                return None
        return self._window[offset - self._start : end - self._start]

    async def record(self, offset: int, sequence: int) -> tuple[RecordHead, memoryview] | None:
        """The record *sequence* if it is at *offset*, whole."""
        header = self._header
        sector = await self.get(offset, SECTOR)
        size = head_size(sector) if sector is not None else 0
        raw = await self.get(offset, size) if size else None
        head = parse_head(raw, header.unit) if raw is not None else None
        if head is None or (head.epoch, head.sequence) != (header.epoch, sequence):
            return None
        if offset + head.length > header.ring_size:
            return None
        whole = await self.get(offset, head.length)
        return (head, whole) if whole is not None and check_record(whole, head) else None


class _Walk:
    """One pass along the records, from the tail to where they end."""

    def __init__(self, header: Header, logs: Sequence[_Found]) -> None:
        self._header = header
        self._rings = [_Ring(log.present, log.area, header) for log in logs]
        self._voids = {void.sequence: void for void in header.voids}
        geometry = logs[0].present.superblock
        self._slots = geometry.raid_disks
        self._end = geometry.size * SECTOR

    async def collect(self) -> tuple[list[FoundRecord], str]:
        """The records in order, and what is wrong with the log, if anything is."""
        header = self._header
        records: list[FoundRecord] = []
        sequence, offset = header.sequence, header.offset
        left = header.ring_size
        while left > 0:
            void = self._voids.get(sequence)
            if void is not None:
                offset = void.offset + void.length
                left -= max(void.length, header.unit)
            else:
                record = await self._find(sequence, offset)
                if record is None:
                    break
                if any(slot >= self._slots or at + len(data) > self._end for slot, at, data in record.pieces):
                    return records, f"record {sequence} of the journal names places outside of the members' data"
                records.append(record)
                offset = record.offset + len(record.raw)
                left -= len(record.raw)
            sequence += 1
        return records, await self._trouble(sequence, offset)

    async def _find(self, sequence: int, offset: int) -> FoundRecord | None:
        for at in dict.fromkeys((offset, 0)):
            having: dict[bytes, tuple[RecordHead, memoryview]] = {}
            for ring in self._rings:
                ring.trouble = ""
                record = await ring.record(at, sequence)
                if record is not None:
                    having[ring.uuid] = record
            if having:
                head, raw = next(iter(having.values()))
                lacking = frozenset(ring.uuid for ring in self._rings) - having.keys()
                return FoundRecord(sequence, at, raw, record_pieces(raw, head), lacking)
        return None

    async def _trouble(self, sequence: int, offset: int) -> str:
        """Why the log seems to end with a record that is missing, though it was durable once; empty if it does not."""
        unreadable = [ring.trouble for ring in self._rings if ring.trouble]
        if len(unreadable) == len(self._rings):  # one copy that does not have it says that it was never durable
            return f"record {sequence} of the journal cannot be read ({'; '.join(unreadable)})"
        for ring in self._rings:
            for start in dict.fromkeys((offset, 0)):
                if await self._later(ring, start, sequence):
                    return f"record {sequence} of the journal is damaged on all members that should have it"
        return ""

    async def _later(self, ring: _Ring, start: int, sequence: int) -> bool:
        """Whether a record within reach of *start* says that *sequence* was durable before it."""
        pattern = RECORD_MAGIC + struct.pack("<Q", self._header.epoch)
        window = await ring.get(start, MAX_RECORD + SECTOR)
        data = bytes(window) if window is not None else b""
        found_at = data.find(pattern)
        while found_at >= 0:
            at = found_at - RECORD_MAGIC_AT
            head = parse_head(data[at : at + MAX_RECORD], self._header.unit) if at % SECTOR == 0 else None
            if head is not None and head.durable > sequence < head.sequence:
                found = await ring.record(start + at, head.sequence)
                if found is not None:
                    return True
            found_at = data.find(pattern, found_at + 1)
        return False
