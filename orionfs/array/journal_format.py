"""The journal's format: a codec without I/O.

The journal of a parity array lies in the gap before ``data_offset`` of some of its members, the *log members*; each has
the same records at the same places.  MD knows nothing of it.  All integers are little-endian, ``base`` is the first
4 KiB boundary of the gap:

========================  ============================================================================================
``base``                  two header slots of 8 KiB, written in turn: a torn header leaves the one before it
``base + 16384``          the ring: records, none of which crosses its end
========================  ============================================================================================

A record is a head of one sector (more if it lists more than 29 transfers) and the bytes of the transfers, all that a
write puts on the members, parity included.  It carries the epoch, which is drawn anew for each start, and a sequence
number that is used once within it: what lies in the ring from before never passes for a record.  A record begins where
the one before it ends, or at the start of the ring.

The media are hostile input: the parsers return None for whatever is not sound, in bounded time and memory.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from orionfs.array.superblock import Superblock
from orionfs.buffers import Buffer
from orionfs.units import MIB, SECTOR, round_down, round_up

if TYPE_CHECKING:
    from orionfs.array.transfer import Transfer

VERSION = 1
#: What the journal's area, and the pieces that large records are cut into, are aligned to.
BLOCK = 4096
#: One header slot, and the space before the ring.
SLOT = 8192
HEADER_SPACE = 2 * SLOT
#: More than this of a gap is not used: a ring is drained long before.
MAX_RING = 64 * MIB
#: A record is at most this long, so that a scan for one is bounded.
MAX_RECORD = MIB
#: How many of each a header has room for.
MAX_LOGS, MAX_VOIDS, MAX_WITNESSED = 8, 64, 118
#: Counting on from here never overflows.
_MAX_COUNT = 2**62

_MAGIC = b"ORIONJNL"
_HEADER = struct.Struct("<8sIIQ16s16sQQQQQQIIHHHxx")
_LOG = struct.Struct("<16sQ")
_VOID = struct.Struct("<QII")
_WITNESS = struct.Struct("<16sIQQIQQ")
_CRC = struct.Struct("<I")
_HEADER_CRC_AT = 8
# What is a log member's own.
_OWN_UUID, _OWN_PLACE = struct.Struct("<16s"), struct.Struct("<Q")
_DEVICE_UUID_AT, _DATA_OFFSET_AT, _BASE_AT = 40, 56, 88
_PROVEN = 1

RECORD_MAGIC = b"ORJR"
#: The CRC-32 of all that follows it, then magic, epoch, sequence, durable, bytes of payload and number of entries.
_RECORD = struct.Struct("<I4sQQQIH2x")
_ENTRY = struct.Struct("<QIH2x")
#: Where the magic lies, with the epoch behind it.
RECORD_MAGIC_AT = 4
_MOST_ENTRIES = 1024

_SUPERBLOCK_CHECKSUM_AT = 216


class Mark(NamedTuple):
    """One version of one superblock: its ``sb_csum``, ``events`` and ``utime``.  0 for both: they are not known."""

    checksum: int
    events: int
    utime: int

    def fits(self, other: Mark) -> bool:
        """Whether *other*, which is known in full, is this version."""
        if self.checksum != other.checksum:
            return False
        return (self.events, self.utime) in ((0, 0), (other.events, other.utime))


class Witnessed(NamedTuple):
    """What a member's superblock is, or is about to be."""

    before: Mark
    after: Mark


class LogPlace(NamedTuple):
    """A log member, by device uuid, and the byte of it where its journal begins."""

    device_uuid: bytes
    base: int


class Void(NamedTuple):
    """A record that was given up: *length* bytes at *offset* of the ring that a replay passes over."""

    sequence: int
    offset: int
    length: int


class Area(NamedTuple):
    """Where the journal of one member lies: its first byte, and how many bytes its ring could have."""

    base: int
    ring_size: int

    @property
    def ring(self) -> int:
        """The byte of the member where the ring begins."""
        return self.base + HEADER_SPACE


def area_of(offset: int, length: int) -> Area | None:
    """The journal's area in a gap of *length* bytes at *offset* of a member; None if it has no room for a ring."""
    base = round_up(offset, BLOCK)
    ring_size = min(round_down(offset + length, BLOCK) - base - HEADER_SPACE, MAX_RING)
    return Area(base, ring_size) if ring_size >= BLOCK else None


def minimum_ring(members: int, unit: int = SECTOR) -> int:
    """The least ring that can journal every write to an array of *members* members: two records of one block each."""
    return 2 * round_up(_head_size(members) + members * BLOCK, unit)


# --- headers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """What a log member says of its journal.

    ``generation`` grows with every header; the highest that is found is the truth.  A replay begins with record
    ``sequence`` at ``offset`` of the ring.  ``unit`` is what the lengths of records are multiples of.  ``proven`` says
    that the redundancy of the array agrees everywhere, but for what the records restore and for whole stripes that
    were being written.  ``witness`` has, by device uuid, every member that took part when this was written: a member
    that is not in it had failed.
    """

    generation: int
    set_uuid: bytes
    device_uuid: bytes
    data_offset: int
    base: int
    epoch: int
    sequence: int
    offset: int
    ring_size: int
    unit: int
    proven: bool
    logs: tuple[LogPlace, ...]
    voids: tuple[Void, ...] = ()
    witness: Mapping[bytes, Witnessed] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes of a slot."""
        parts = [
            _HEADER.pack(
                _MAGIC,
                0,
                VERSION,
                self.generation,
                self.set_uuid,
                self.device_uuid,
                self.data_offset,
                self.epoch,
                self.sequence,
                self.offset,
                self.base,
                self.ring_size,
                self.unit,
                _PROVEN if self.proven else 0,
                len(self.logs),
                len(self.voids),
                len(self.witness),
            )
        ]
        parts += [_LOG.pack(*place) for place in self.logs]
        parts += [_VOID.pack(sequence, at // SECTOR, length // SECTOR) for sequence, at, length in self.voids]
        parts += [_WITNESS.pack(uuid, *before, *after) for uuid, (before, after) in self.witness.items()]
        block = bytearray(b"".join(parts).ljust(SLOT, b"\0"))
        _CRC.pack_into(block, _HEADER_CRC_AT, zlib.crc32(block))
        return bytes(block)


def readdressed(block: bytes, place: LogPlace, data_offset: int) -> bytes:
    """The encoded header *block* as it has to be on another log member."""
    other = bytearray(block)
    _OWN_UUID.pack_into(other, _DEVICE_UUID_AT, place.device_uuid)
    _OWN_PLACE.pack_into(other, _DATA_OFFSET_AT, data_offset)
    _OWN_PLACE.pack_into(other, _BASE_AT, place.base)
    _CRC.pack_into(other, _HEADER_CRC_AT, 0)
    _CRC.pack_into(other, _HEADER_CRC_AT, zlib.crc32(other))
    return bytes(other)


def parse_header(raw: Buffer) -> Header | None:
    """The header in *raw*, the bytes of a slot; None if there is none, or it is damaged or of another version."""
    block = bytearray(raw[:SLOT])
    if len(block) < SLOT or block[: len(_MAGIC)] != _MAGIC:
        return None
    values = _HEADER.unpack_from(block)
    _CRC.pack_into(block, _HEADER_CRC_AT, 0)
    logs, voids, witnessed = values[14:17]
    if values[1] != zlib.crc32(block) or values[2] != VERSION:
        return None
    if not 1 <= logs <= MAX_LOGS or voids > MAX_VOIDS or witnessed > MAX_WITNESSED:
        return None
    at = _HEADER.size
    places = tuple(LogPlace(*_LOG.unpack_from(block, at + _LOG.size * index)) for index in range(logs))
    at += _LOG.size * logs
    passed = []
    for index in range(voids):
        sequence, offset, length = _VOID.unpack_from(block, at + _VOID.size * index)
        passed.append(Void(sequence, offset * SECTOR, length * SECTOR))
    at += _VOID.size * voids
    witness = {}
    for index in range(witnessed):
        uuid, *marks = _WITNESS.unpack_from(block, at + _WITNESS.size * index)
        witness[uuid] = Witnessed(Mark(*marks[:3]), Mark(*marks[3:]))
    header = Header(
        generation=values[3],
        set_uuid=values[4],
        device_uuid=values[5],
        data_offset=values[6],
        epoch=values[7],
        sequence=values[8],
        offset=values[9],
        base=values[10],
        ring_size=values[11],
        unit=values[12],
        proven=bool(values[13] & _PROVEN),
        logs=places,
        voids=tuple(passed),
        witness=witness,
    )
    return header if _sound(header) else None


def _sound(header: Header) -> bool:
    unit, size = header.unit, header.ring_size
    return (
        max(header.generation, header.sequence) < _MAX_COUNT
        and SECTOR <= unit <= MIB
        and unit & (unit - 1) == 0
        and BLOCK <= size <= MAX_RING
        and size % unit == 0
        and _inside(header.offset, 0, header)
        and all(_inside(void.offset, void.length, header) for void in header.voids)
        and header.base % BLOCK == 0
        and any(place == (header.device_uuid, header.base) for place in header.logs)
    )


def _inside(offset: int, length: int, header: Header) -> bool:
    return offset % header.unit == 0 and length % header.unit == 0 and offset + length <= header.ring_size


def mark_of(superblock: Superblock) -> Mark:
    """The version of a superblock that was parsed from its bytes and not changed since."""
    return Mark(_CRC.unpack_from(superblock.raw, _SUPERBLOCK_CHECKSUM_AT)[0], superblock.events, superblock.utime)


# --- records ---------------------------------------------------------------------------------------------------------


class RecordHead(NamedTuple):
    """The head of a record: everything but its payload.  ``durable``: all records before this one were durable when it
    was written.  ``length`` is the whole record, padding included; ``entries`` are (slot, offset, length) in bytes.
    """

    epoch: int
    sequence: int
    durable: int
    length: int
    head_size: int
    payload: int
    crc: int
    entries: tuple[tuple[int, int, int], ...]


class Encoded(NamedTuple):
    """A record to be written: its bytes, and where in them the payload begins."""

    data: memoryview
    payload_at: int


@cache
def _head_struct(count: int) -> struct.Struct:
    """Head and entries of a record with *count* transfers, padded to whole sectors; without the CRC before them."""
    size = _RECORD.size + _ENTRY.size * count
    return struct.Struct("<" + _RECORD.format[2:] + _ENTRY.format[1:] * count + f"{round_up(size, SECTOR) - size}x")


def _head_size(count: int) -> int:
    return _head_struct(count).size + _CRC.size


def record_length(transfers: Sequence[Transfer], unit: int) -> int:
    """Bytes of the ring that the record of *transfers* takes."""
    size = _head_size(len(transfers))
    for transfer in transfers:
        size += transfer.end - transfer.offset
    return round_up(size, unit)


def encode_record(epoch: int, sequence: int, durable: int, transfers: Sequence[Transfer], unit: int) -> Encoded:
    """The record of *transfers*, in memory of its own."""
    entries: list[int] = []
    buffers: list[Buffer] = [b"", b""]
    payload = 0
    for transfer in transfers:
        offset = transfer.offset
        length = transfer.end - offset
        payload += length
        entries += (offset, length, transfer.slot)
        buffers += transfer.buffers
    count = len(transfers)
    layout = _head_struct(count)
    buffers[1] = layout.pack(RECORD_MAGIC, epoch, sequence, durable, payload, count, *entries)
    crc = 0
    for buffer in buffers:
        crc = zlib.crc32(buffer, crc)
    buffers[0] = _CRC.pack(crc)
    size = layout.size + _CRC.size
    spare = -(size + payload) % unit
    if spare:
        buffers.append(bytes(spare))
    return Encoded(memoryview(b"".join(buffers)), size)


def head_size(raw: Buffer) -> int:
    """Bytes of the head that begins with the sector *raw*; 0 if no record begins there."""
    if len(raw) < _RECORD.size or bytes(raw[RECORD_MAGIC_AT : RECORD_MAGIC_AT + len(RECORD_MAGIC)]) != RECORD_MAGIC:
        return 0
    count: int = _RECORD.unpack_from(raw)[6]
    return _head_size(count) if 1 <= count <= _MOST_ENTRIES else 0


def parse_head(raw: Buffer, unit: int) -> RecordHead | None:
    """The head in *raw*, which holds all :func:`head_size` bytes of it; None if its fields contradict each other.

    Nothing is known of its truth before :func:`check_record` has seen the payload too.
    """
    size = head_size(raw)
    if not size or len(raw) < size:
        return None
    crc, _magic, epoch, sequence, durable, payload, count = _RECORD.unpack_from(raw)
    entries = []
    for index in range(count):
        offset, length, slot = _ENTRY.unpack_from(raw, _RECORD.size + _ENTRY.size * index)
        if not length or (offset | length) % SECTOR or offset >= _MAX_COUNT:
            return None
        entries.append((slot, offset, length))
    length = round_up(size + payload, unit)
    if sum(entry[2] for entry in entries) != payload or length > max(MAX_RECORD, unit) or sequence >= _MAX_COUNT:
        return None
    return RecordHead(epoch, sequence, durable, length, size, payload, crc, tuple(entries))


def check_record(raw: Buffer, head: RecordHead) -> bool:
    """Whether *raw*, the whole record with that *head*, is what was written."""
    end = head.head_size + head.payload
    return len(raw) >= end and zlib.crc32(memoryview(raw)[_CRC.size : end]) == head.crc


def record_pieces(raw: Buffer, head: RecordHead) -> list[tuple[int, int, memoryview]]:
    """What the record *raw* puts on the members, as (slot, offset, bytes); the bytes are views of *raw*."""
    view = memoryview(raw)
    found = []
    at = head.head_size
    for slot, offset, length in head.entries:
        found.append((slot, offset, view[at : at + length]))
        at += length
    return found
