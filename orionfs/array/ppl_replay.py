"""Replay: what the partial parity logs of a dirty array say, put to use.

The rules are those of the kernel (drivers/md/raid5-ppl.c): of each member the last record counts; for each of its
entries the parity becomes the XOR of its partial parity and of what the members that were being written hold now.  An
entry that was being written to a member that is not there is passed over: only the block that was being written is in
doubt then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from orionfs.array.layout import StripedLayout
from orionfs.array.member import Member
from orionfs.array.ppl_area import PplArea
from orionfs.array.ppl_format import UNLOGGED, UNPROVEN, Entry
from orionfs.array.transfer import Transfer, on_each, read_all, write_all
from orionfs.buffers import Buffer
from orionfs.errors import MediaError, NoSpace, OrionError
from orionfs.kernels.checksums import crc32c
from orionfs.kernels.parity import xor
from orionfs.units import SECTOR

Failures = list[tuple[Member, OrionError]]


class Replayed(NamedTuple):
    """How a replay went.

    ``entries`` were put to use, or passed over; ``torn`` are those whose partial parity is not right, as when a record
    was being written and its stripes were not yet.  ``mismatches`` are logs and entries that cannot be believed, or
    whose data cannot be read: nobody knows about their stripes.  ``unlogged`` says that stripes were being written
    without a record, ``unproven`` that there was parity that did not agree to begin with.  ``failures`` are the members
    that did not take their parity: the caller has to do without them.
    """

    entries: int = 0
    torn: int = 0
    mismatches: int = 0
    unlogged: bool = False
    unproven: bool = False
    failures: tuple[tuple[Member, OrionError], ...] = ()

    @property
    def proven(self) -> bool:
        """Whether all parity agrees with its data now, by the kernel's rule: something was replayed, and all of it."""
        return self.believed and not self.torn and not self.unlogged and self.entries > 0

    @property
    def believed(self) -> bool:
        """Whether what is left to prove can only be stripes that were being written when the array was left."""
        trouble = self.mismatches or self.failures or self.unproven
        return not trouble and (self.entries > 0 or self.torn > 0 or self.unlogged)


class Span(NamedTuple):
    """What an entry speaks of: the bytes [low, high) of the data areas in the *slots* written; where the parity is."""

    low: int
    high: int
    slots: tuple[int, ...]
    parity: int


def span_of(entry: Entry, layout: StripedLayout) -> Span | None:
    """Where the chunks of *entry* are; None for an entry that no writer of this array can have made."""
    chunk, columns = layout.chunk, layout.columns
    size = entry.data_size
    if not size or (size | entry.pp_size) % SECTOR or entry.data_sector * SECTOR >= layout.size:
        return None
    number, low = divmod(entry.data_sector * SECTOR, chunk)
    row, column = divmod(number, columns)
    length, rest = (entry.pp_size, size % entry.pp_size) if entry.pp_size else divmod(size, columns)
    if rest or not length or length % SECTOR or low + length > chunk:
        return None
    count = size // length
    place = layout.row(row)
    if not entry.pp_size and column:
        return None
    if not count or column + count > columns or (entry.pp_size and count == columns):
        return None
    if entry.parity_disk != place.parity:
        return None
    base = row * chunk + low
    return Span(base, base + length, place.data[column : column + count], place.parity)


async def replay(areas: Sequence[PplArea], members: Sequence[Member], layout: StripedLayout) -> Replayed:
    """Replay the logs in *areas*, which are loaded; all parity is durable when this returns.  May be done again."""
    found: Counter[str] = Counter()
    failures: Failures = []
    written: dict[int, Member] = {}
    for area in areas:
        if members[area.member.slot] is not area.member:
            continue  # the copy of another member, whose log says the same
        for entry, partial in await _entries(area, found):
            span = span_of(entry, layout)
            if entry == UNLOGGED:
                found["unlogged"] += 1
            elif entry == UNPROVEN:
                found["unproven"] += 1
            elif span is None or len(partial) != entry.pp_size or span.parity != area.member.slot:
                found["mismatches"] += 1
            elif crc32c(partial) != entry.checksum:
                found["torn"] += 1
            else:
                try:
                    failures += await renew(span, partial, members)
                except OrionError:
                    found["mismatches"] += 1  # a member that holds the data cannot be read
                else:
                    found["entries"] += 1
                    for member in (area.member, area.member.copy):
                        if member is not None:
                            written[id(member)] = member
    failures += await on_each(list(written.values()), _flush)
    return Replayed(
        found["entries"],
        found["torn"],
        found["mismatches"],
        found["unlogged"] > 0,
        found["unproven"] > 0,
        tuple(failures),
    )


async def _entries(area: PplArea, found: Counter[str]) -> list[tuple[Entry, memoryview]]:
    """The entries that count on one member, with their partial parities as far as they are there."""
    if area.last is None:
        found["mismatches"] += 1
        return []
    try:
        parities = memoryview(await area.load_parity(area.last))
    except OrionError:
        found["mismatches"] += 1
        return []
    entries = []
    at = 0
    for entry in area.last.entries:
        entries.append((entry, parities[at : at + entry.pp_size]))
        at += entry.pp_size
    return entries


async def renew(span: Span, partial: Buffer, members: Sequence[Member]) -> Failures:
    """Make the parity of *span* agree with its data, given the XOR of the other data; the members that did not take it.

    Does nothing if somebody is missing.  Raises what a member raises that holds the data.
    """
    low, high = span.low, span.high
    if any(high > members[slot].valid for slot in span.slots) or low >= members[span.parity].valid:
        return []
    buffers = [memoryview(bytearray(high - low)) for _ in span.slots]
    reads = [Transfer(slot, low, high, [buffer]) for slot, buffer in zip(span.slots, buffers, strict=True)]
    for failure in await read_all(members, reads):
        raise failure.error
    parity = memoryview(bytearray(high - low))
    xor(parity, [*buffers, partial] if len(partial) else buffers)
    failed = await write_all(members, [Transfer(span.parity, low, high, [parity])])
    return [(failure.member, failure.error) for failure in failed]


async def _flush(member: Member) -> None:
    try:
        await member.present.flush()
    except NoSpace as error:
        # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
        raise MediaError(error.message) from error
