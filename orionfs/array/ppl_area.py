"""PplArea: the partial parity log on one member, and where its next record goes.

Records follow each other around the area, and a reader takes the last.  So a record that a cut tears leaves the one
before it in force, which is harmless: what that protected is durable.  The first record of the area has no entries to
speak of; starting over changes only its generation, in the one sector that holds all of it, so that no cut finds the
area without a start.
"""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.member import Member
from orionfs.array.placement import ppl_place
from orionfs.array.ppl_format import (
    HEADER_SIZE,
    UNLOGGED,
    UNPROVEN,
    Entry,
    Record,
    encode_header,
    last_record,
    next_place,
)
from orionfs.array.superblock import Superblock
from orionfs.buffers import Buffer
from orionfs.device import StorageDevice
from orionfs.errors import MediaError, NoSpace
from orionfs.units import SECTOR

#: The least that is of any use: the first record, and one with a page of partial parity.
LEAST = 3 * HEADER_SIZE
#: The sector of a header with at most one entry in which all that varies is.
_VITAL = SECTOR


async def read_record(device: StorageDevice, superblock: Superblock, signature: int) -> tuple[Record | None, bytearray]:
    """The record that counts on *device*, and the area that it lies in; None, and no area, if there is no place for it.

    Raises the device's error.
    """
    place, size = ppl_place(superblock)
    if size < LEAST or place + size > device.geometry.size or (place | size) % device.geometry.logical_block:
        return None, bytearray()
    area = bytearray(size)
    await device.read(place, [area])
    return last_record(area, signature), area


class PplArea:
    """One member's log.  Everything is durable when the call ends; one call at a time."""

    def __init__(self, member: Member, signature: int) -> None:
        assert member.superblock is not None, f"{member.label} has no superblock"
        self.member = member
        self.place, self.size = ppl_place(member.superblock)
        self._signature = signature
        #: The record that a reader would take; None before :meth:`load` or :meth:`reset`, or if there is none.
        self.last: Record | None = None
        #: Whether the first record is one of those that fit the vital sector.
        self._plain = False
        #: What :attr:`last` speaks of: its stripes, the slots that were written for it, and the number of its group.
        self.rows: tuple[int, ...] = ()
        self.touched: frozenset[int] = frozenset()
        self.group = 0

    @property
    def capacity(self) -> int:
        """Bytes of partial parity that fit into one record."""
        return self.size - 2 * HEADER_SIZE

    async def load(self) -> None:
        """Read what there is.  Raises the device's error."""
        assert self.member.superblock is not None
        self.last, area = await read_record(self.member.present, self.member.superblock, self._signature)
        self._plain = self.last is not None and bytes(area[:HEADER_SIZE]) == self._first_again(area)

    def _first_again(self, area: bytearray) -> bytes:
        """The first record of *area* as :meth:`rewind` would write it, if it were one of its own."""
        generation = int.from_bytes(area[520:528], "little")
        for entries in ((), (UNLOGGED,), (UNPROVEN,)):
            header = encode_header(self._signature, generation, entries)
            if header == area[:HEADER_SIZE]:
                return header
        return b""

    async def load_parity(self, record: Record) -> bytearray:
        """The partial parities of *record*, as far as they lie in the area.  Raises the device's error."""
        start = record.at + HEADER_SIZE
        parities = bytearray(max(min(record.length - HEADER_SIZE, self.size - start), 0))
        if parities:
            await self.member.present.read(self.place + start, [parities])
        return parities

    async def reset(self, generation: int, entries: Sequence[Entry]) -> None:
        """Begin anew, whatever was there: a first record with *entries*, of which there is at most one."""
        self.last = None
        device = self.member.present
        await device.write_zeroes(self.place, self.size)
        await self._write(0, [encode_header(self._signature, generation, entries)])
        await self._flush()
        self._started(generation, entries)

    def wraps(self, length: int) -> bool:
        """Whether a record of *length* bytes does not fit behind the last, so that :meth:`rewind` has to come first."""
        return next_place(self.last, length, self.size) == 0

    async def rewind(self, generation: int, entries: Sequence[Entry]) -> None:
        """Start over: a first record with *entries*, of which there is at most one, ends what :attr:`last` says."""
        header = encode_header(self._signature, generation, entries)
        block = self.member.present.geometry.logical_block
        if self._plain and block <= SECTOR:
            await self._write(_VITAL, [header[_VITAL : _VITAL + SECTOR]])
        else:
            await self._write(0, [header])
        await self._flush()
        self._started(generation, entries)

    def _started(self, generation: int, entries: Sequence[Entry]) -> None:
        self.last = Record(0, HEADER_SIZE, generation, tuple(entries))
        self._plain = True
        self.rows, self.touched = (), frozenset()

    async def append(self, generation: int, entries: Sequence[Entry], parities: Sequence[Buffer]) -> None:
        """Put a record behind the last, for which there is room.

        The caller sets :attr:`rows`, :attr:`touched` and :attr:`group`.
        """
        length = HEADER_SIZE + sum(map(len, parities))
        at = next_place(self.last, length, self.size)
        assert at, f"no room for {length} bytes behind the last record of {self.member.label}"
        await self._write(at, [encode_header(self._signature, generation, entries), *parities])
        await self._flush()
        self.last = Record(at, length, generation, tuple(entries))
        self.rows, self.touched = (), frozenset()

    async def _write(self, at: int, buffers: Sequence[Buffer]) -> None:
        device = self.member.present
        if not device.try_write(self.place + at, buffers):
            await device.write(self.place + at, buffers)

    async def _flush(self) -> None:
        try:
            await self.member.present.flush()
        except NoSpace as error:
            # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
            raise MediaError(error.message) from error
