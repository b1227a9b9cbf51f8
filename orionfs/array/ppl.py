"""PartialParityLog: closes the write hole of RAID 5 the way MD can read, at the price of two flushes for each group.

Before a stripe is written in place, a record with the XOR of the data that are not written lies durably on the member
that holds its parity; the next record comes only when what the last one protects is durable.  After a cut the parity
of whatever was being written can so be made to agree again, and everything that was not being written is intact, also
without one of the members.  The blocks that were being written may be old or new.

Writers are served in groups, one group at a time: one record on each parity member, one flush of those members, then
all their writes, then (when the next group comes) one flush of what they have touched.

Stripes that are written without a record (zeroed whole, resynced, repaired) and parity that is not proven are marked by
an entry that cannot be right: after a cut a reader, the kernel too, then resyncs the array as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import trio

from orionfs.array.engine import Faults, RowWrite
from orionfs.array.layout import StripedLayout
from orionfs.array.member import Member
from orionfs.array.ppl_area import LEAST, PplArea
from orionfs.array.ppl_format import HEADER_SIZE, UNLOGGED, UNPROVEN, Entry, signature_of
from orionfs.array.ppl_group import MOST_ENTRIES, Group, Job, Piece, by_slot, cut, steps
from orionfs.array.ppl_replay import Replayed, Span, renew, replay
from orionfs.array.sync import SyncState
from orionfs.array.transfer import Transfer, on_each
from orionfs.errors import IntegrityError, MediaError, NoSpace, OrionError
from orionfs.kernels.checksums import crc32c
from orionfs.kernels.parity import xor
from orionfs.units import SECTOR, round_down

#: What large partial parities are cut at.
_PAGE = 4096

Failures = list[tuple[Member, OrionError]]
Put = Callable[[list[Transfer]], Awaitable[None]]


class PartialParityLog:
    """The PPL of a running RAID 5.  Satisfies :class:`~orionfs.array.log.Log`.

    Order of life: :meth:`load`, then :meth:`start`.  If the array is dirty, :meth:`replay` comes between them, and
    :meth:`start` only after the superblocks say who is missing: an entry for a member that may still come back must not
    be ended.
    """

    noun = "ppl"

    def __init__(
        self,
        members: Sequence[Member],
        layout: StripedLayout,
        faults: Faults,
        *,
        set_uuid: bytes,
        sync: SyncState,
        busy: Callable[[int, int], bool],
    ) -> None:
        """*members* and *sync* are the engine's.  *busy* says whether somebody holds the lock of a stripe of
        [first, end).
        """
        self._members = members
        self._layout = layout
        self._faults = faults
        self._signature = signature_of(set_uuid)
        self._busy = busy
        self._sync = sync
        self._areas: dict[int, PplArea] = {}
        self._generation = 0
        #: Bytes of partial parity that fit into a record on any member.
        self._capacity = LEAST - 2 * HEADER_SIZE
        self._starting = self._started = False
        self._preparing = trio.Lock()
        #: Held by the group in flight, and by whoever else writes records.
        self._turn = trio.Semaphore(1, max_value=1)
        self._forming: Group | None = None
        self._number = 0
        self._completed = 0
        #: By member: the last group whose writes to it are durable.
        self._flushed: dict[int, int] = {}
        #: Stripes that may be being written without a record, how often there were any, whether records have to say so,
        #: and whether they do.
        self._settled: list[tuple[int, int]] = []
        self._settles = 0
        self._unlogged = False
        self._warned = False
        #: Stripes that a write has left half done, and whose parity agrees with their data nevertheless.
        self._mended: set[int] = set()
        self._records = 0
        self._groups = 0

    # --- life ------------------------------------------------------------------------------------------------------

    async def load(self) -> list[str]:
        """Read the logs of all members; sentences about those that cannot be used.  Writes nothing."""
        notices = []
        for member in self._holders():
            if not member.valid:
                continue  # no parity on it counts yet, and its log may be anything
            area = PplArea(member, self._signature)
            try:
                await area.load()
            except OrionError as error:
                notices.append(f"the partial parity log of {member.label} cannot be read: {error.message}")
            else:
                if area.last is None:
                    notices.append(f"{member.label} has no partial parity log that can be used")
                else:
                    self._generation = max(self._generation, area.last.generation)
            self._areas[id(member)] = area
        return notices

    async def replay(self) -> Replayed:
        """Make the parity of what was being written agree with the data, durably.  For an array that is dirty."""
        return await replay(list(self._areas.values()), self._members, self._layout)

    async def start(self) -> None:
        """End what the logs say, and make one where there is none, for members that have come since too.

        What was to be replayed has been, or was decided against; the engine's ``sync`` says what is left to prove.
        Raises IntegrityError if the superblocks leave no place for a log.
        """
        self._starting = True
        async with self._preparing:
            extra = self._extra()
            failures = []
            if not self._started:
                for member in self._holders():
                    _check_size(PplArea(member, self._signature))
                known = [self._areas[id(member)] for member in self._holders() if id(member) in self._areas]
                failures = await self._each(known, lambda area: self._restart(area, extra))
                self._started = True
            failures += await self._prepare(extra)
            self._capacity = min([area.capacity for area in self._current()], default=self._capacity)
        await self._fail(failures)

    async def _restart(self, area: PplArea, extra: Sequence[Entry]) -> None:
        if area.last is None:
            await area.reset(self._next(), extra)
        elif area.wraps(HEADER_SIZE):
            await area.rewind(self._next(), extra)
        else:
            await area.append(self._next(), extra, ())

    async def _prepare(self, extra: Sequence[Entry]) -> Failures:
        """Logs for members that have none yet; the caller holds the lock for that."""
        # Whoever comes back has been written without a record, so what its log says is out of date.
        here = {id(member) for member in self._holders()}
        self._areas = {key: area for key, area in self._areas.items() if key in here}
        fresh = []
        for member in self._holders():
            if id(member) not in self._areas:
                area = self._areas[id(member)] = PplArea(member, self._signature)
                fresh.append(area)

        async def make(area: PplArea) -> None:
            _check_size(area)
            await area.reset(self._next(), extra)

        return await self._each(fresh, make)

    async def member_changed(self) -> None:
        """A member has come or gone: whoever is new gets an empty log, before anything is written to it."""
        if self._started:
            await self.start()

    async def run(self) -> None:
        """There is nothing to do in the background."""

    # --- writing ---------------------------------------------------------------------------------------------------

    async def write(self, transfers: list[Transfer], rows: Sequence[RowWrite], put: Put) -> None:
        """Part of :class:`~orionfs.array.engine.StripeLog`.  When this returns, *transfers* are in place.

        The cells of a row are neighbors and all reach over its whole span, which is a multiple of the sector.  Raises
        what *put* raises, or, with nothing written, that a record could not be (NoSpace, or the array is lost).
        """
        if not self._started:
            await self.start()
        pieces = [piece for row in rows for piece in self._pieces(row)]
        if not pieces:
            await put(transfers)  # no parity that could be wrong
        elif len(pieces) == 1 and pieces[0].size <= self._capacity:
            await self._commit(Job(pieces, transfers), put)
        else:
            for job in self._split(pieces, transfers):
                await self._commit(job, put)

    def _pieces(self, fact: RowWrite) -> list[Piece]:
        layout = self._layout
        place = layout.row(fact.row)
        slot = place.parity
        if fact.row * layout.chunk >= self._members[slot].valid:
            return []
        if not fact.cells or len(fact.cells) == layout.columns:
            return [Piece(slot, fact.row, fact.low, fact.high, 0, layout.columns, None)]
        assert fact.parity is not None, f"stripe {fact.row} has a parity member, and no parity was computed"
        first = fact.cells[0].column
        partial = memoryview(bytearray(fact.high - fact.low))
        xor(partial, [fact.parity, *(cell.data for cell in fact.cells)])
        most = round_down(self._capacity, _PAGE)
        return [
            Piece(slot, fact.row, low, high, first, len(fact.cells), partial[low - fact.low : high - fact.low])
            for low, high in steps(fact.low, fact.high, most)
        ]

    def _split(self, pieces: list[Piece], transfers: list[Transfer]) -> Iterator[Job]:
        """As few jobs as the room for one record allows, in the order of member addresses."""
        chunk, capacity = self._layout.chunk, self._capacity
        begin = 0
        taken: list[Piece] = []
        room: dict[int, list[int]] = {}
        for piece in sorted(pieces, key=lambda piece: (piece.row, piece.low)):
            entries, size = room.get(piece.slot, (0, 0))
            if entries == MOST_ENTRIES or size + piece.size > capacity:
                end = piece.row * chunk + piece.low
                yield Job(taken, cut(transfers, begin, end))
                begin, taken, room = end, [], {}
                entries = size = 0
            taken.append(piece)
            room[piece.slot] = [entries + 1, size + piece.size]
        yield Job(taken, cut(transfers, begin, None) if begin else transfers)

    async def _commit(self, job: Job, put: Put) -> None:
        """Get *job* on record along with others, then carry it out."""
        group = self._join(job)
        try:
            while not group.recorded:
                if group.led:
                    await group.changed.wait()
                else:
                    await self._lead(group)
            if group.error is not None:
                self._mended |= {piece.row for piece in job.pieces}  # nothing has been written
                raise type(group.error)(group.error.message, hint=group.error.hint) from group.error
            # What is on record is carried out: a stripe that is left half written is in doubt until it is resynced.
            with trio.CancelScope(shield=True):
                try:
                    await put(job.transfers)
                except NoSpace:
                    await self._mend(job)
                    raise
        finally:
            self._leave(group, job)

    async def _mend(self, job: Job) -> None:
        """Make the parity of what *job* has half written agree with the data, if that can be done."""
        for piece in job.pieces:
            self._mended.discard(piece.row)
        for row, pieces in groupby(job.pieces, lambda piece: piece.row):
            if all([await self._renew(piece) for piece in pieces]):
                self._mended.add(row)

    async def _renew(self, piece: Piece) -> bool:
        """As :func:`~orionfs.array.ppl_replay.renew`, for what is on record; whether it worked."""
        base = piece.row * self._layout.chunk
        slots = self._layout.row(piece.row).data[piece.column : piece.column + piece.chunks]
        span = Span(base + piece.low, base + piece.high, slots, piece.slot)
        if any(span.high > self._members[slot].valid for slot in slots):
            return False
        try:
            return not await renew(span, piece.partial or b"", self._members)
        except OrionError:
            return False

    def _join(self, job: Job) -> Group:
        group = self._forming
        if group is None or not group.take(job, self._capacity):
            group = self._forming = Group()
            group.take(job, self._capacity)
        return group

    def _leave(self, group: Group, job: Job) -> None:
        if not group.recorded:
            group.jobs.remove(job)
        group.left -= 1
        if group.left:
            return
        if self._forming is group:
            self._forming = None
        if group.number:
            self._completed = group.number
            self._turn.release()

    async def _lead(self, group: Group) -> None:
        """Wait for the group's turn and put its jobs on record.  Whoever is cancelled leaves it to another one."""
        group.led = True
        try:
            if not group.number:
                await self._turn.acquire()
                self._number += 1
                group.number = self._number
                if self._forming is group:
                    self._forming = None
            with trio.CancelScope(shield=True):
                try:
                    await self._record(group)
                except OrionError as error:
                    group.error = error
            group.recorded = True
        finally:
            group.led = False
            changed, group.changed = group.changed, trio.Event()
            changed.set()

    async def _record(self, group: Group) -> None:
        """Put the entries of all jobs on the members with their parity, durably."""
        self._groups += 1
        if any(id(member) not in self._areas for member in self._holders()):
            await self.start()
        touched = frozenset(transfer.slot for job in group.jobs for transfer in job.transfers)
        records: list[tuple[PplArea, list[Piece]]] = []
        for slot, pieces in by_slot(piece for job in group.jobs for piece in job.pieces).items():
            least = min(piece.row for piece in pieces) * self._layout.chunk
            records += [(area, pieces) for area in self._areas_of(slot) if least < area.member.valid]
        await self._make_durable([area for area, _ in records])
        extra = self._extra()
        full = [area for area, pieces in records if area.wraps(HEADER_SIZE + sum(piece.size for piece in pieces))]
        if full:
            await self._fail(await self._each(full, lambda area: area.rewind(self._next(), extra)))
        by_area = {id(area): pieces for area, pieces in records}
        completed = self._completed

        async def append(area: PplArea) -> None:
            pieces = by_area[id(area)]
            parities = [piece.partial for piece in pieces if piece.partial is not None]
            entries = [*map(self._entry, pieces), *extra]
            await area.append(self._next(), entries, parities)
            self._flushed[id(area.member)] = completed
            area.rows = tuple(piece.row for piece in pieces)
            area.touched = touched
            area.group = group.number

        self._records += len(records)
        left = [area for area, _ in records if area.member.valid]
        await self._fail(await self._each(left, append))

    def _entry(self, piece: Piece) -> Entry:
        layout = self._layout
        sector = ((piece.row * layout.columns + piece.column) * layout.chunk + piece.low) // SECTOR
        checksum = crc32c(piece.partial) if piece.partial is not None else 0
        return Entry(sector, piece.size, (piece.high - piece.low) * piece.chunks, piece.slot, checksum)

    # --- what is written without a record --------------------------------------------------------------------------

    async def settle(self, first: int, end: int) -> None:
        """Part of :class:`~orionfs.array.engine.StripeLog`: a cut from now on makes a reader resync the array."""
        if not self._started:
            if not self._starting:
                return  # so early somebody only mends what could not be read, which changes nothing
            await self.start()
        self._settles += 1
        self._remember(first, end)
        if self._warned and not self._live(first, end):
            return
        await self._turn.acquire()
        try:
            with trio.CancelScope(shield=True):
                self._unlogged = True
                live = self._live(first, end)
                extra = self._extra()
                areas = [area for area in self._current() if area in live or extra[0] not in _said(area)]
                await self._make_durable(areas)
                await self._blank(areas)
                self._warned = True
        finally:
            self._turn.release()

    def _remember(self, first: int, end: int) -> None:
        settled = self._settled
        if settled and settled[-1][0] <= first <= settled[-1][1]:
            settled[-1] = settled[-1][0], max(end, settled[-1][1])
        else:
            settled.append((first, end))
        if len(settled) > 64:
            settled[:] = [(min(low for low, _ in settled), max(high for _, high in settled))]

    def _live(self, first: int, end: int) -> list[PplArea]:
        """The logs that would replay something of the stripes [first, end)."""
        return [area for area in self._current() if any(first <= row < end for row in area.rows)]

    # --- durability ------------------------------------------------------------------------------------------------

    async def flush(self) -> Failures:
        """Make all that :meth:`write` has returned for durable; the members that failed."""
        return await self._flush(list(self._holders()))

    async def drain(self) -> None:
        """Make everything durable and end what the logs say: a replay would find nothing.

        What is being written meanwhile is another matter.  Raises if a member failed and the array is lost, or NoSpace.
        """
        if not self._started:
            await self._fail(await self.flush())
            return
        await self._turn.acquire()
        try:
            with trio.CancelScope(shield=True):
                quiet = not any(self._busy(first, end) for first, end in self._settled)
                settles = self._settles
                await self._fail(await self.flush())
                if quiet and settles == self._settles:
                    # Nobody has told how it went with them.
                    self._mended -= {row for row in self._mended for low, high in self._settled if low <= row < high}
                    self._settled.clear()
                    self._unlogged = self._warned = False  # whoever settles from here on waits for the turn
                extra = tuple(self._extra())
                await self._blank([area for area in self._current() if _said(area) != extra])
        finally:
            self._turn.release()

    async def _make_durable(self, areas: Iterable[PplArea]) -> None:
        """Make durable what the last records of *areas* protect, so that others may follow them."""
        late: dict[int, Member] = {}
        for area in areas:
            for slot in area.touched:
                for member in self._holders_of(slot):
                    if self._flushed.get(id(member), 0) < area.group:
                        late[id(member)] = member
        if late:
            await self._fail(await self._flush(list(late.values())))

    async def _flush(self, members: Sequence[Member]) -> Failures:
        completed = self._completed
        failures = await on_each(members, _flush_member)
        failed = {id(member) for member, _error in failures}
        for member in members:
            if id(member) not in failed:
                self._flushed[id(member)] = max(self._flushed.get(id(member), 0), completed)
        return failures

    async def _blank(self, areas: Sequence[PplArea]) -> None:
        """Let *areas* say nothing but what else is the matter.  The caller has the turn."""
        extra = self._extra()
        await self._fail(await self._each(areas, lambda area: self._restart(area, extra)))

    def _extra(self) -> list[Entry]:
        """What every record says beside its own entries."""
        sync = self._sync
        self._mended &= sync.suspects
        if sync.suspects - self._mended or (not sync.believed and (sync.unproven or sync.position < sync.unit_count)):
            return [UNPROVEN]
        return [UNLOGGED] if self._unlogged or sync.needed else []

    # --- members ---------------------------------------------------------------------------------------------------

    def _holders(self) -> Iterator[Member]:
        """Everybody with a log: the members that data are written to, and their copies."""
        for slot in range(len(self._members)):
            yield from self._holders_of(slot)

    def _holders_of(self, slot: int) -> Iterator[Member]:
        member = self._members[slot]
        for each in (member, member.copy):
            if each is None or each.device is None or each.superblock is None:
                continue
            if each.valid or each.state in ("rebuilding", "replacing"):
                yield each

    def _areas_of(self, slot: int) -> list[PplArea]:
        return [self._areas[id(member)] for member in self._holders_of(slot) if id(member) in self._areas]

    def _current(self) -> list[PplArea]:
        return [area for slot in range(len(self._members)) for area in self._areas_of(slot)]

    def _next(self) -> int:
        self._generation += 1
        return self._generation

    async def _each(self, areas: Sequence[PplArea], act: Callable[[PplArea], Awaitable[None]]) -> Failures:
        if not areas:
            return []
        by_member = {id(area.member): area for area in areas}
        return await on_each([area.member for area in areas], lambda member: act(by_member[id(member)]))

    async def _fail(self, failures: Failures) -> None:
        """Have the members that failed on record.  Raises NoSpace if that was all that was the matter with one."""
        full: OrionError | None = None
        for member, error in failures:
            if isinstance(error, NoSpace):
                full = error
            else:
                await self._faults.member_failed(member, error)
        if full is not None:
            raise full

    # --- facts -----------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether the logs that were loaded tell all that is wrong with the parity: no resync was pending."""
        areas = self._current()
        return bool(areas) and all(area.last is not None and UNPROVEN not in area.last.entries for area in areas)

    def describe(self) -> dict[str, Any]:
        """Facts for status: records and groups so far, and whether a cut now would lead to a resync."""
        return {"records": self._records, "groups": self._groups, "resync_after_a_cut": bool(self._extra())}


def _said(area: PplArea) -> tuple[Entry, ...]:
    """The entries of the record that counts."""
    return area.last.entries if area.last is not None else ()


def _check_size(area: PplArea) -> None:
    if area.size < LEAST:
        raise IntegrityError(
            f"{area.member.label} has a superblock that leaves no place for its partial parity log",
            hint="change the array with mdadm --grow --consistency-policy=resync",
        )


async def _flush_member(member: Member) -> None:
    try:
        await member.present.flush()
    except NoSpace as error:
        # Unlike a write without space, a failed flush cannot be tried again: it is the failure of the member.
        raise MediaError(error.message) from error
