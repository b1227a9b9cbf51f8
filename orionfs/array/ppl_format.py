"""The partial parity log (PPL) of Linux MD: a codec without I/O.

Each member of a RAID 5 has an area with records, one after the other: a header of 4 KiB, then the partial parities of
its entries.  Format: the kernel's ``uapi/linux/raid/md_p.h`` (``struct ppl_header``); integers are little-endian.  The
media are hostile input: what is not a right record is none, and :func:`last_record` reads no more than its area.

An entry says that neighboring data chunks of one stripe are being written, all over the same bytes of the chunk, and
holds the XOR of those that are not: with what the members then hold, whatever that is, it gives a parity that agrees.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from orionfs.buffers import Buffer
from orionfs.kernels.checksums import crc32c
from orionfs.units import SECTOR

HEADER_SIZE = 4096
MAX_ENTRIES = 148

_RESERVED = 512
_HEAD = struct.Struct("<IIQII")
_ENTRY = struct.Struct("<QIIII")
_CHECKSUM_AT = _RESERVED + 20


class Entry(NamedTuple):
    """One entry, in the numbers of the format.

    ``data_sector`` is the sector of the array at which the first of the chunks is written; ``pp_size`` bytes of partial
    parity, as many as are written of each chunk, or 0 if all chunks of the stripe are; ``data_size`` bytes of data in
    all; ``parity_disk`` the slot with the parity; ``checksum`` the CRC-32C of the partial parity.
    """

    data_sector: int
    pp_size: int
    data_size: int
    parity_disk: int
    checksum: int


#: Entries that never fit their (empty) partial parity: a reader counts them as a mismatch, and so resyncs the array
#: after it has replayed the others.  The first says that stripes were being written without a record, the second that
#: parity was not proven to begin with.
UNLOGGED = Entry(0, 0, 0, 0, 1)
UNPROVEN = Entry(0, 0, 0, 0, 2)


class Record(NamedTuple):
    """A record as it lies in its area: at byte *at*, *length* bytes with its partial parities."""

    at: int
    length: int
    generation: int
    entries: tuple[Entry, ...]


def signature_of(set_uuid: bytes) -> int:
    """What marks the records of the array with that uuid."""
    return crc32c(set_uuid)


def encode_header(signature: int, generation: int, entries: Sequence[Entry]) -> bytes:
    """The 4 KiB before the partial parities of *entries*, at most :data:`MAX_ENTRIES` of them."""
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{len(entries)} entries do not fit into one record")
    block = bytearray(b"\xff" * _RESERVED)
    block += _HEAD.pack(signature, 0, generation, len(entries), 0)
    for entry in entries:
        block += _ENTRY.pack(*entry)
    block += bytes(HEADER_SIZE - len(block))
    struct.pack_into("<I", block, _CHECKSUM_AT, crc32c(block))
    return bytes(block)


def decode_header(raw: Buffer, signature: int, at: int = 0) -> Record | None:
    """The record whose header *raw* (4 KiB) is, found at byte *at* of its area; None if it is not that of a record."""
    block = bytearray(raw)
    if len(block) != HEADER_SIZE:
        return None
    found, _zero, generation, count, checksum = _HEAD.unpack_from(block, _RESERVED)
    struct.pack_into("<I", block, _CHECKSUM_AT, 0)
    if found != signature or count > MAX_ENTRIES or crc32c(block) != checksum:
        return None
    first = _RESERVED + _HEAD.size
    entries = tuple(Entry(*_ENTRY.unpack_from(block, first + index * _ENTRY.size)) for index in range(count))
    length = HEADER_SIZE + sum(entry.pp_size // SECTOR * SECTOR for entry in entries)
    return Record(at, length, generation, entries)


def last_record(area: Buffer, signature: int) -> Record | None:
    """The record that counts of the *area* of one member: the last one in sequence from its start.

    The sequence goes on while headers are right and their generation does not fall, and not into the last 4 KiB, as
    the kernel reads it.  None if there is not even one.  Its partial parities may reach beyond the area.
    """
    view = memoryview(area)
    last: Record | None = None
    at = 0
    while at < len(view) - HEADER_SIZE:
        record = decode_header(view[at : at + HEADER_SIZE], signature, at)
        if record is None or (last is not None and record.generation < last.generation):
            break
        last = record
        at += record.length
    return last


def next_place(record: Record | None, length: int, size: int) -> int:
    """The byte of an area of *size* bytes at which a record of *length* bytes may follow *record*; 0: at the start."""
    at = record.at + record.length if record is not None else 0
    return at if at < size - HEADER_SIZE and at + length <= size else 0
