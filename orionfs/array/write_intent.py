"""WriteIntent: the write-intent bitmap of one running array, kept on all its members.

The rule: before a byte is written, the bit of its chunk is set durably on every member that will take part.  Bits are
cleared lazily, as md does, when everything that was written there is durable and redundant.  So after an unclean stop
only chunks with a bit can disagree, and a member that was away needs only those that were written meanwhile: for that,
``events_cleared`` is the event count up to which bits have been forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import trio

from orionfs.array.bitmap import (
    HEADER_SIZE,
    MAX_LENGTH,
    PAGE,
    Bitmap,
    BitmapError,
    DamagedBitmap,
    UnsupportedBitmap,
    default_chunk,
    length_of,
    runs,
)
from orionfs.array.member import Member
from orionfs.array.placement import bitmap_place
from orionfs.array.superblock import FEATURE_BITMAP, Superblock
from orionfs.array.transfer import on_each
from orionfs.device import StorageDevice
from orionfs.errors import MediaError, NoSpace, OrionError
from orionfs.units import MIB, SECTOR, round_up

#: A stream sets the bits of so many bytes at once, or a 32nd of the array: however small the chunks are, it waits for
#: the members only now and then.
_STREAM = 64 * MIB
_STREAM_SHARE = 32

Failures = list[tuple[Member, OrionError]]


class Found(NamedTuple):
    """What the members' bitmaps say together; *stale*: nothing, so every bit of *bitmap* is set."""

    bitmap: Bitmap
    stale: bool
    notices: tuple[str, ...]


async def read_bitmap(device: StorageDevice, superblock: Superblock) -> Bitmap:
    """The bitmap that *superblock*, that of *device*, speaks of.

    Raises a :class:`~orionfs.array.bitmap.BitmapError` whose message begins with a verb, or the error of the device.
    """
    place, space = bitmap_place(superblock)
    block = device.geometry.logical_block
    space = min(space, device.geometry.size - place, MAX_LENGTH)
    if space <= HEADER_SIZE or place % block:
        raise DamagedBitmap(
            "has a superblock that leaves no place for the write-intent bitmap that it speaks of",
            hint="everything is resynced if the array was not closed properly",
        )
    head = bytearray(min(PAGE, space))
    await device.read(place, [head])
    length = Bitmap.parse_header(head, space).length()
    whole = bytearray(min(round_up(length, PAGE), space))
    await device.read(place, [whole])
    return Bitmap.parse(whole)


async def find_bitmap(
    members: Sequence[tuple[str, Superblock, StorageDevice]], *, freshest: Superblock, sync_size: int
) -> Found:
    """What the bitmaps on the current *members* of an array say: label, superblock and device of each.

    *freshest* is the superblock with the highest event count, *sync_size* the sectors that the array's bitmap covers.
    A bitmap counts if its event count is not behind that of *freshest*; a chunk is dirty if any of those that count
    says so, for before a write its bits were on all members.  If none counts, every chunk is dirty.

    Raises :class:`~orionfs.array.bitmap.UnsupportedBitmap` for one that this release must not write to, and
    :class:`~orionfs.array.bitmap.DamagedBitmap` if the superblocks leave no place for one.
    """
    good: list[Bitmap] = []
    late: list[Bitmap] = []
    notices: list[str] = []
    for label, superblock, device in members:
        if not superblock.feature_map & FEATURE_BITMAP:
            continue
        try:
            bitmap = await read_bitmap(device, superblock)
        except UnsupportedBitmap as error:
            raise UnsupportedBitmap(f"{label} {error.message}", hint=error.hint) from error
        except BitmapError as error:
            notices.append(f"{label} {error.message}")
        except OrionError as error:
            notices.append(f"the write-intent bitmap of {label} cannot be read: {error.message}")
        else:
            if bitmap.uuid != freshest.set_uuid:
                notices.append(f"{label} has the write-intent bitmap of another array")
            elif bitmap.events < freshest.events or not bitmap.is_trustworthy:
                notices.append(f"{label} has a write-intent bitmap that is out of date")
                late.append(bitmap)
            else:
                good.append(bitmap)
    if good:
        return Found(_merge(good, sync_size), False, tuple(notices))
    notices.append("no write-intent bitmap is up to date: every chunk counts as dirty")
    return Found(_everything(freshest, late, sync_size), True, tuple(notices))


def _merge(good: Sequence[Bitmap], sync_size: int) -> Bitmap:
    """One bitmap that lists whatever one of *good* lists, in the shape of the newest."""
    newest = max(good, key=lambda bitmap: bitmap.events)
    merged = newest.resized(sync_size)
    for bitmap in good:
        merged.events_cleared = max(merged.events_cleared, bitmap.events_cleared)
        for low, high in bitmap.dirty_ranges():
            merged.set(low, min(high, sync_size * SECTOR))
    return merged


def _everything(freshest: Superblock, late: Sequence[Bitmap], sync_size: int) -> Bitmap:
    """A bitmap that lists everything, with the chunk that a late one had."""
    _place, space = bitmap_place(freshest)
    if space <= HEADER_SIZE:
        raise DamagedBitmap(
            "the superblocks leave no place for the write-intent bitmap that they speak of",
            hint="open the array read-only, or remove the bitmap with mdadm --grow --bitmap=none",
        )
    space = min(space, MAX_LENGTH)
    chunks = [bitmap.chunksize for bitmap in late if length_of(sync_size, bitmap.chunksize) <= space]
    events = freshest.events
    # A bitmap may follow the superblock directly, with other things behind it that nobody has on record.
    chunk = chunks[0] if chunks else default_chunk(sync_size, min(PAGE, space), freshest.chunksize * SECTOR)
    bitmap = Bitmap(freshest.set_uuid, events, events, sync_size, chunk)
    bitmap.set_all()
    return bitmap


class WriteIntent:
    """The bitmap of a running array: what is being written, or was not long ago.

    Addresses are sync addresses in bytes (see :class:`~orionfs.array.engine.Engine`).  A writer calls :meth:`begin`,
    then :meth:`set` if that says so, writes, and calls :meth:`end` in any case.  Members whose superblock has no bitmap
    are left alone.  Failures are returned, not raised: as long as there are any, what was to be set does not count as
    set, and the caller has to do without those members and call again.  One at a time reaches the members; those who
    wait find their bits set along.

    The members are those of *members* that data are written to, and their copies.  Nothing is written before the first
    change, which then writes the bitmap whole.
    """

    def __init__(self, members: Sequence[Member], bitmap: Bitmap, *, stale: bool = False) -> None:
        self._members = members
        self._bitmap = bitmap
        self.stale = stale
        self._shift = bitmap.chunksize.bit_length() - 1
        self._ahead = min(_STREAM, bitmap.sync_size * SECTOR // _STREAM_SHARE) >> self._shift
        bitmap.state = 0
        #: The bits that are known to be set durably on every member.
        self._durable = bytearray(len(bitmap.bits))
        #: Writes in flight by chunk; 0: ended since the last snapshot.
        self._recent: dict[int, int] = {}
        #: Sectors of the stored bitmap that say something else in memory, or might.
        self._unwritten = set(range(-(-bitmap.length() // SECTOR)))
        self._lock = trio.Lock()
        #: The event count at the last snapshot.
        self._counted = bitmap.events_cleared

    # --- writers ---------------------------------------------------------------------------------------------------

    def begin(self, low: int, high: int) -> bool:
        """A write to [low, high) begins; whether its bits are set durably already, and it may go ahead."""
        first, last = low >> self._shift, high - 1 >> self._shift
        recent = self._recent
        if first == last:
            recent[first] = recent.get(first, 0) + 1
            if self._durable[first >> 3] & 1 << (first & 7):
                return True
        else:
            for chunk in range(first, last + 1):
                recent[chunk] = recent.get(chunk, 0) + 1
            if self._is_durable(first, last):
                return True
        self._want(first, last)
        return False

    def end(self, low: int, high: int) -> None:
        """The write is over, well or not."""
        first, last = low >> self._shift, high - 1 >> self._shift
        if first == last:
            self._recent[first] -= 1
        else:
            for chunk in range(first, last + 1):
                self._recent[chunk] -= 1

    async def set(self, low: int, high: int) -> Failures:
        """Return when the bits of [low, high), for which :meth:`begin` was called, are set durably on all members."""
        first, last = low >> self._shift, high - 1 >> self._shift
        async with self._lock:
            if self._is_durable(first, last):
                return []
            self._want(first, last)
            return await self._write_out()

    def _is_durable(self, first: int, last: int) -> bool:
        durable = self._durable
        return all(durable[chunk >> 3] & 1 << (chunk & 7) for chunk in range(first, last + 1))

    def _want(self, first: int, last: int) -> None:
        """Have the next update set these bits, and those ahead of a stream."""
        if first and first - 1 in self._recent:
            last = min(last + self._ahead, self._bitmap.chunks - 1)
        self._bitmap.set_chunks(first, last)
        self._unwritten.update(range(_sector_of(first), _sector_of(last) + 1))

    # --- keeping it ------------------------------------------------------------------------------------------------

    async def note_events(self, events: int) -> Failures:
        """The superblocks are about to say *events*: say so first, durably, on all members.  Sets wanted bits too."""
        async with self._lock:
            self._bitmap.events = events
            # A kernel counts back when it marks an array clean.
            self._bitmap.events_cleared = min(self._bitmap.events_cleared, events)
            self._unwritten.add(0)
            return await self._write_out()

    @property
    def untidy(self) -> bool:
        """Whether any bit is set."""
        bits = self._bitmap.bits
        return bits.count(0) != len(bits)

    def snapshot(self) -> frozenset[int]:
        """The chunks that nobody has written to since the last snapshot, for :meth:`tidy`."""
        self._counted = self._bitmap.events
        idle = frozenset(chunk for chunk in self._bitmap.dirty_chunks() if chunk not in self._recent)
        self._recent = {chunk: writes for chunk, writes in self._recent.items() if writes}
        return idle

    async def tidy(self, snapshot: frozenset[int]) -> Failures:
        """Clear the bits of *snapshot*, but for chunks that somebody has begun to write to since.

        Only for an array with all its members in sync and nothing left to prove, and only if everything that was
        written before the snapshot is in place, in all copies, and durable.
        """
        async with self._lock:
            bitmap = self._bitmap
            if bitmap.events_cleared < self._counted:
                # Whoever left before this count is not covered any more, and that must be known before a bit goes.
                # Whoever leaves while this is under way has all that was written before the snapshot, durably.
                bitmap.events_cleared = self._counted
                self._unwritten.add(0)
                if bitmap.length() > SECTOR:
                    failures = await self._write_out()
                    if failures:
                        return failures
            for chunk in snapshot:
                if chunk not in self._recent and bitmap[chunk]:
                    bitmap.clear_chunk(chunk)
                    self._durable[chunk >> 3] &= ~(1 << (chunk & 7))
                    self._unwritten.add(_sector_of(chunk))
            return await self._write_out()

    async def set_all(self) -> Failures:
        """Set every bit, durably: nothing is known to agree any more."""
        async with self._lock:
            self._bitmap.set_all()
            self._bitmap.events_cleared = self._bitmap.events
            self._unwritten.update(range(-(-self._bitmap.length() // SECTOR)))
            return await self._write_out()

    async def store_on(self, member: Member) -> Failures:
        """Write the whole bitmap to *member*, durably.

        For one that joins: when data begin to be written to it, so that no bit passes it by between this and that.
        """
        async with self._lock:
            image = self._bitmap.encode()
            return await on_each([member], lambda each: _put(each, [(0, image)]))

    async def _write_out(self) -> Failures:
        """Make all members' bitmaps say what this says, durably; the caller holds the lock."""
        sectors, self._unwritten = self._unwritten, set()
        if not sectors:
            return []
        done = False
        try:
            targets = list(self._targets())
            image = bytes(self._bitmap.encode())
            unit = max([member.present.geometry.logical_block for member in targets], default=SECTOR) // SECTOR
            units = sorted({sector // unit for sector in sectors})
            step = unit * SECTOR
            pieces = [(low * step, memoryview(image)[low * step : high * step]) for low, high in runs(units)]
            # What takes no waiting takes no task either: a stream over a small array does this every few MiB.
            written = {id(member) for member in targets if _put_at_once(member, pieces)}
            waiting = [member for member in targets if id(member) not in written or not member.present.try_flush()]
            if waiting:
                failures = await on_each(waiting, lambda member: _put(member, () if id(member) in written else pieces))
            else:
                failures = []
            done = not failures
        finally:
            if not done:
                self._unwritten |= sectors
        if done:
            # What was wanted meanwhile is not in the image.
            for at, data in pieces:
                start = max(at, HEADER_SIZE)
                end = min(at + len(data), HEADER_SIZE + len(self._durable))
                self._durable[start - HEADER_SIZE : end - HEADER_SIZE] = data[start - at : end - at]
        return failures

    def _targets(self) -> Iterator[Member]:
        for member in self._members:
            for each in (member, member.copy):
                if each is None or each.device is None or each.superblock is None:
                    continue
                written = each.valid > 0 or each.state in ("rebuilding", "replacing")
                if written and each.superblock.feature_map & FEATURE_BITMAP:
                    yield each

    # --- facts -----------------------------------------------------------------------------------------------------

    def is_dirty(self, low: int, high: int) -> bool:
        """Whether the bit of any byte of [low, high) is set."""
        bitmap = self._bitmap
        last = min(high - 1 >> self._shift, bitmap.chunks - 1)
        return any(bitmap[chunk] for chunk in range(low >> self._shift, last + 1))

    def dirty_ranges(self) -> list[tuple[int, int]]:
        """What may disagree after an unclean stop: ranges [low, high), in order."""
        return self._bitmap.dirty_ranges()

    def covers(self, events: int) -> bool:
        """Whether a member that was away since the event count *events* lacks nothing but what has its bit set."""
        return events >= self._bitmap.events_cleared

    @property
    def chunk(self) -> int:
        """Bytes that one bit stands for."""
        return self._bitmap.chunksize

    def describe(self) -> dict[str, Any]:
        """Facts for status: bytes of a chunk, chunks in all, and how many of them have their bit set."""
        dirty = int.from_bytes(self._bitmap.bits, "little").bit_count()
        return {"chunk": self.chunk, "chunks": self._bitmap.chunks, "dirty_chunks": dirty}


def _sector_of(chunk: int) -> int:
    """The sector of the stored bitmap that holds the bit of *chunk*."""
    return (HEADER_SIZE + (chunk >> 3)) // SECTOR


def _put_at_once(member: Member, pieces: Sequence[tuple[int, bytes | bytearray | memoryview]]) -> bool:
    """Write *pieces* to *member* if that takes no waiting; False if it does, or fails: :func:`_put` finds out."""
    assert member.superblock is not None, f"{member.label} has no superblock"
    place, space = bitmap_place(member.superblock)
    device = member.present
    try:
        return all(device.try_write(place + at, [data[: space - at]]) for at, data in pieces)
    except OrionError:
        return False


async def _put(member: Member, pieces: Sequence[tuple[int, bytes | bytearray | memoryview]]) -> None:
    assert member.superblock is not None, f"{member.label} has no superblock"
    place, space = bitmap_place(member.superblock)
    for at, data in pieces:
        await member.present.write(place + at, [data[: space - at]])  # the padding of the last page may not fit
    try:
        await member.present.flush()
    except NoSpace as error:
        # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
        raise MediaError(error.message) from error
