"""Journal: a redo log that leaves a parity array without a write hole.

A write of part of a stripe goes as one record, data and parity, to the same place on each of the *log members*, one
more of them than losses are tolerated, and from there to the members' overlays, which reads see.  It returns then.
What happens later:

- a *flush* makes the log durable, and with it all that write() has returned for;
- a *drain* makes the log durable, puts everything pending in place, makes that durable, and moves the tail of the log,
  from which a replay would begin, past it.  Nothing is put in place before its record is durable on all log members,
  and no record is given up before its contents are in place, durably.

So at each cut a replay of what the log holds finishes every stripe that was being written.  Writes of whole stripes
need no old data and leave nothing behind that they do not replace: they go past the log unless a record that lives
would overwrite them in a replay, or the policy wants every block old or new at all times.

The header names the superblock that each member has or is about to get, which is how a later start knows that nobody
else has run the array since (:mod:`orionfs.array.journal_replay`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import trio

from orionfs.array.engine import Faults, RowWrite
from orionfs.array.journal_copies import Failures, flush_members
from orionfs.array.journal_head import JournalHead, Site, everyone, takes_part
from orionfs.array.journal_log import JournalLog
from orionfs.array.journal_pieces import select_rows
from orionfs.array.journal_replay import FoundRecord, JournalVerdict
from orionfs.array.journal_ring import JournalRing
from orionfs.array.member import Member
from orionfs.array.policies import Policies
from orionfs.array.transfer import Transfer, write_all
from orionfs.environment import Environment
from orionfs.errors import NoSpace, OrionError

__all__ = ["Journal", "Site"]

#: Pause after which what is pending is put in place, and the longest that the log is not durable.
IDLE_S = 1.0
#: Buffers of one transfer into place, and transfers between two checkpoints.
_MOST_BUFFERS = 256
_BATCH = 128

#: A segment of an overlay: where it begins; where it ends, its bytes, and the record that it came with.
_Placed: TypeAlias = tuple[int, tuple[int, memoryview, int]]
#: Where it begins and ends in the data area, and its bytes.
_Run: TypeAlias = tuple[int, int, list[memoryview]]
Put = Callable[[list[Transfer]], Awaitable[None]]


class Journal(JournalLog):
    """The journal of one running array: its :class:`~orionfs.array.engine.StripeLog`.

    *members* is the engine's own list.  *proven* says whether the redundancy of the array can be trusted but for what
    is in flight; *report* is told, once for each cause, why the background work does not get on.  With *read_only*
    nothing is ever written: what was loaded is served, and stays in the log.

    Life: :meth:`load` what :func:`~orionfs.array.journal_replay.examine` found; :meth:`start` puts it in place and
    begins a new epoch, at the latest with the first :meth:`witness` or :meth:`write`; :meth:`run` is the background;
    :meth:`drain` leaves nothing to be replayed.  Nothing here may be called with a lock held that
    ``faults.member_failed`` takes, but for :meth:`witness`, which never calls it, and :meth:`member_changed`.
    """

    noun = "journal"

    def __init__(
        self,
        members: Sequence[Member],
        site: Site,
        *,
        faults: Faults,
        policies: Policies,
        environment: Environment,
        proven: Callable[[], bool],
        report: Callable[[str], object] = lambda _message: None,
        read_only: bool = False,
    ) -> None:
        head = JournalHead(members, site, proven=proven, randomness=environment.randomness)
        super().__init__(members, head, faults=faults, policies=policies)
        self._chunk = site.chunk
        self._clock = environment.clock
        self._report = report
        self._read_only = read_only
        #: Why the background work does not get on; empty if it does.
        self.trouble = ""
        self._loaded: tuple[FoundRecord, ...] = ()
        self._leveled = False
        self._start_turn = trio.Lock()
        self._reform_wanted = False

    # --- writing ---------------------------------------------------------------------------------------------------

    async def write(self, transfers: list[Transfer], rows: Sequence[RowWrite], put: Put) -> None:
        """Part of :class:`~orionfs.array.engine.StripeLog`.

        Raises :class:`~orionfs.errors.NoSpace` if a log member has no room for the record: nothing of it is pending
        then, but for the blocks of the records before it if there was more than one to write.
        """
        if len(rows) == 1 and rows[0].cells and self._policies.write_policy == "back":
            numbers = (rows[0].row,)
            record = self._place_at_once(transfers, numbers)
            if record is None:
                await self._log(transfers, numbers)
            elif rest := self._issue(record, transfers):
                await self._finish(record, rest)
            return
        everything = self._policies.whole_stripes == "journal"
        touches = self._ring.touches
        logged = [row.row for row in rows if row.cells or everything or touches(row.row, row.row + 1)]
        if len(logged) < len(rows):
            direct = transfers
            if logged:
                chosen = set(logged)
                direct = select_rows(transfers, [row.row for row in rows if row.row not in chosen], self._chunk)
                transfers = select_rows(transfers, chosen, self._chunk)
            try:
                await put(direct)
            except OrionError:
                if self._head.epoch and self._head.stale:
                    await self._write_header()
                raise
            if not logged:
                return
        await self._log(transfers, logged)
        if self._policies.write_policy == "through":
            await self.drain()

    async def settle(self, first: int, end: int) -> None:
        """Part of :class:`~orionfs.array.engine.StripeLog`.  Raises what :meth:`drain` does."""
        while self._ring.touches(first, end):
            await self.drain()

    # --- durability ------------------------------------------------------------------------------------------------

    async def flush(self) -> Failures:
        """Make everything durable that :meth:`write` has returned for, and all else that the members were given.

        The members whose flush failed, if any; then nothing is promised: the caller fails them, and calls this again.
        Raises :class:`~orionfs.errors.NoSpace` if a header that this needs cannot be written.
        """
        if self._loaded and not self._read_only:
            async with self._start_turn:
                await self._level()
        if self._head.epoch and self._head.stale:
            await self._write_header()
        if self._done > self._durable and not self._head.logs:
            await self.drain()
        covers = self._done
        failures = await flush_members([member for member in everyone(self._members) if takes_part(member)])
        if not failures:
            self._durable = max(self._durable, covers)
        return failures

    async def drain(self) -> None:
        """Put in place, durably, all that was pending when this was called; a replay would find nothing of it.

        Raises :class:`~orionfs.errors.NoSpace`, or what ``member_failed`` raises; what is not in place then is still
        pending, and still in the log.
        """
        if self._loaded:
            await self.start()
        if not self._read_only:
            await self._drain_to(self._done)

    async def _drain_to(self, limit: int) -> None:
        while self._ring.tail < limit:
            async with self._drain_turn:
                if self._ring.tail < limit:
                    await self._drain_once()

    async def _drain_once(self) -> None:
        limit = self._done
        # Taken before the log is made durable: what is written meanwhile is not.
        jobs = [(slot, overlay.snapshot()) for slot, overlay in enumerate(self._pending) if overlay]
        await self._commit()
        touched: dict[int, Member] = {}
        for slot, segments in jobs:
            for first in range(0, len(segments), _BATCH):
                if first:
                    await trio.lowlevel.checkpoint()
                for member in await self._place(slot, segments[first : first + _BATCH]):
                    touched[id(member)] = member
        while failures := await flush_members([member for member in touched.values() if takes_part(member)]):
            await self._fail(failures)
        self._head.tail = limit
        await self._write_header(prune=True)
        self._forget(limit)
        self._note("")

    async def _place(self, slot: int, segments: Sequence[_Placed]) -> list[Member]:
        """Write *segments* to the member in *slot*, and to the copy that is made of it; who has got some.

        Raises NoSpace when all have been tried, and what ``member_failed`` raises.
        """
        member = self._members[slot]
        copy = member.copy
        # Nearly always there is nothing to decide, and nobody to wait for.
        failures: Failures = []
        if member.active and copy is None and not member.bad:
            rest = _put_at_once(member, segments, failures)
        else:
            rest = list(_joined(segments))
        if rest:
            done = await write_all(self._members, [Transfer(slot, *run) for run in rest])
            failures += [(failure.member, failure.error) for failure in done]
        full: NoSpace | None = None
        for failed, error in failures:
            failed.counters.write_errors += 1
            if isinstance(error, NoSpace) and failed.active:
                full = error
            elif takes_part(failed):  # one that is being filled can be done without
                await self._faults.member_failed(failed, error)
        if full is not None:
            raise full
        return [member] if copy is None else [member, copy]

    def _forget(self, limit: int) -> None:
        self._ring.retire(limit)
        self._head.voids = [void for void in self._head.voids if void.sequence >= limit]
        for slot, overlay in enumerate(self._pending):
            if overlay:
                overlay.forget(limit)
                if not overlay:
                    self._members[slot].pending = None

    # --- headers ---------------------------------------------------------------------------------------------------

    # --- life ------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise :class:`~orionfs.errors.Refused` if these members have no room for a journal."""
        self._head.check()

    def load(self, found: JournalVerdict) -> None:
        """Serve what a usable journal holds; nothing is written before :meth:`start`.

        Of one that is not usable only the generation is taken, above which ours have to be.
        """
        head, header = self._head, found.header
        head.generation = found.generation
        if not found.usable or header is None or not found.records:
            return
        head.adopt(header, found.slots)
        self._most = head.most
        ring = self._ring = JournalRing(header.ring_size, header.sequence)
        voids = {void.sequence: void for void in header.voids}
        for record in found.records:
            while ring.next < record.sequence:
                void = voids[ring.next]
                ring.place(void.offset, void.length, ())
            rows: set[int] = set()
            for slot, offset, data in record.pieces:
                rows.update(range(offset // self._chunk, -(-(offset + len(data)) // self._chunk)))
                self._pending[slot].add(offset, data, record.sequence)
                self._members[slot].pending = self._pending[slot]
            ring.place(record.offset, len(record.raw), sorted(rows))
        self._loaded = found.records
        self._done, self._durable = ring.next, header.sequence

    @property
    def _started(self) -> bool:
        return bool(self._head.epoch) and not self._loaded

    async def start(self) -> None:
        """Put in place what was loaded, and begin a new epoch; nothing if that has been done.

        Raises :class:`~orionfs.errors.Refused` if too few members have room for a journal, and what :meth:`drain` does.
        """
        if self._read_only:
            return
        with trio.CancelScope(shield=True):
            async with self._start_turn:
                if self._loaded:
                    await self._level()
                    await self._drain_to(self._done)
                    # Behind a record that was lost there may be later ones of this epoch.
                    await self._reform()
                    self._loaded = ()
                elif not self._head.epoch:
                    async with self._header_turn:
                        if not self._head.epoch:
                            await self._form()
                    await self._write_header()

    async def _level(self) -> None:
        """One header, and all that was loaded, on all log members that are left: a second cut may leave any of them."""
        if not self._loaded or self._leveled:
            return
        await self._write_header()
        for record in self._loaded:
            for log in self._head.logs:
                if log.place.device_uuid not in record.lacking:
                    continue
                try:
                    await log.member.present.write(log.ring + record.offset, [record.raw])
                except OrionError as error:
                    await self._fail([(log.member, error)])
        self._durable = self._head.tail
        self._leveled = True

    async def _reform(self) -> None:
        """Begin a new epoch, on as many members as it takes now, with nothing pending."""
        async with self._drain_turn:
            self._reforming, self._ready, self._reform_wanted = True, False, False
            try:
                await self._empty_flight()
                while len(self._ring):
                    await self._drain_once()
                async with self._header_turn:
                    await self._form()
                await self._write_header()
                self._ready = self._head.complete
            finally:
                self._reforming = False

    async def member_changed(self) -> None:
        """A member has gone, or has become active.  Returns at once: a better set of log members comes in its time."""
        if self._head.improvable:
            self._reform_wanted = True
            self._pressed.set()

    async def discard(self) -> None:
        """Drain, and leave no journal behind, for an array that is to have another log, or none."""
        await self.drain()
        async with self._header_turn:
            self._ready = False
            await self._head.erase()

    # --- background ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Put in place what was loaded, what fills the log, and what has been pending for a while; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_room)
            nursery.start_soon(self._keep_time)

    async def _keep_room(self) -> None:
        while True:
            await self._pressed.wait()
            self._pressed = trio.Event()
            await self._attempt(self._reform if self._reform_wanted else self.drain)

    async def _keep_time(self) -> None:
        if self._loaded:
            await self._attempt(self.start)
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            seen = self._done
            await self._clock.sleep(IDLE_S)
            if self._reform_wanted:
                await self._attempt(self._reform)
            elif seen == self._done:
                await self._attempt(self.drain)
            else:
                await self._attempt(self._commit)
            if len(self._ring) or self._reform_wanted:
                self._stirred.set()

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """Background work; what keeps it from getting on is reported once, and it is tried again later."""
        try:
            await work()
        except OrionError as error:
            self._note(error.message)

    def _note(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            self._report(trouble)
        self.trouble = trouble

    # --- facts -----------------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether a replay would find nothing."""
        return not len(self._ring)

    def describe(self) -> dict[str, Any]:
        """For status: JSON values; sizes in bytes."""
        return {
            "members": [log.member.label for log in self._head.logs],
            "size": self._ring.size,
            "used": self._ring.used,
            "records": len(self._ring),
            "trouble": self.trouble,
        }


def _joined(segments: Iterable[_Placed]) -> Iterator[_Run]:
    """*segments* of one member with neighbors made one."""
    start = at = -1
    views: list[memoryview] = []
    for offset, (end, data, _sequence) in segments:
        if offset == at and len(views) < _MOST_BUFFERS:
            views.append(data)
        else:
            if views:
                yield start, at, views
            start, views = offset, [data]
        at = end
    if views:
        yield start, at, views


def _put_at_once(member: Member, segments: Iterable[_Placed], failures: Failures) -> list[_Run]:
    """Write what takes no waiting of *segments* to *member*, adding to *failures*; what would have to wait."""
    base, try_write = member.data_offset, member.present.try_write
    waiting = []
    for run in _joined(segments):
        try:
            if not try_write(base + run[0], run[2]):
                waiting.append(run)
        except OrionError as error:
            failures.append((member, error))
    return waiting
