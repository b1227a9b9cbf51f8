"""JournalLog: the log half of a journal: how records and headers get onto the log members, and become durable."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import trio

from orionfs.array.engine import Faults
from orionfs.array.journal_copies import Failures, LogMember, flush_members
from orionfs.array.journal_format import MAX_VOIDS, Void, encode_record, record_length
from orionfs.array.journal_head import JournalHead, everyone, takes_part
from orionfs.array.journal_pieces import cut_to_size
from orionfs.array.journal_ring import JournalRing, LiveRecord
from orionfs.array.member import Member
from orionfs.array.pending import Pending
from orionfs.array.policies import Policies
from orionfs.array.transfer import Transfer, on_each
from orionfs.errors import NoSpace, OrionError

#: Records whose writers wait for a slow log member at the same time.
_MOST_IN_FLIGHT = MAX_VOIDS // 2
#: Drains that a writer waits for before he has precedence.
_PATIENCE = 3


class _Rest(NamedTuple):
    """What is left of writing a record: its bytes, the log members that have to wait for it, and those that failed."""

    data: memoryview
    waiting: list[LogMember]
    failures: Failures


class JournalLog(abc.ABC):
    """Appends records, in order, to all log members, and puts them into the members' overlays.

    Two rules hold at all times.  Before a record is written that leaves out a member that has failed, a durable header
    leaves it out too: else a replay would take that member for current.  And a record that was given up halfway is
    named in a durable header before anybody writes to its stripes again.
    """

    def __init__(self, members: Sequence[Member], head: JournalHead, *, faults: Faults, policies: Policies) -> None:
        self._members = members
        self._head = head
        self._faults = faults
        self._policies = policies
        self._ring = JournalRing(0)
        self._most = 0
        self._pending = [Pending() for _ in members]
        #: Records before it are in the overlays, or void; those before ``_durable`` are durable on all log members.
        self._done = 1
        self._durable = 1
        self._in_flight: deque[LiveRecord] = deque()
        #: Whether records may be written without another look: the newest header is durable and says what is so.
        self._ready = False
        self._reforming = False
        self._vouched = False
        #: Whether somebody has waited so long for space that others must not come before him; he holds the door.
        self._starving = False
        self._door = trio.Lock()
        self._header_turn = trio.Lock()
        self._drain_turn = trio.Lock()
        #: Set when there is something to put in place, and when that presses.
        self._stirred = trio.Event()
        self._pressed = trio.Event()

    @property
    @abc.abstractmethod
    def _started(self) -> bool:
        """Whether there is an epoch of ours."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Begin the first epoch."""

    @abc.abstractmethod
    async def drain(self) -> None:
        """Put everything in place, durably, and the tail past it."""

    @abc.abstractmethod
    async def _reform(self) -> None:
        """Begin another epoch, on as many members as it takes now."""

    # --- records ---------------------------------------------------------------------------------------------------

    def _place_at_once(self, transfers: Sequence[Transfer], rows: Sequence[int]) -> LiveRecord | None:
        """Space in the ring for the record of *transfers*, if nothing at all is in its way."""
        if not self._ready or self._starving or len(self._in_flight) >= _MOST_IN_FLIGHT:
            return None
        for member in self._head.listed:
            if member.state == "failed":
                return None
        length = record_length(transfers, self._head.unit)
        return self._take(length, rows) if length <= self._most else None

    async def _log(self, transfers: list[Transfer], rows: Sequence[int]) -> None:
        """Log *transfers*, which touch the stripes *rows*, and make them pending."""
        record = self._place_at_once(transfers, rows)
        if record is not None:
            await self._finish(record, self._issue(record, transfers))
            return
        await self._prepare()
        for part in cut_to_size(transfers, self._most, self._head.unit):
            record = await self._wait_for_space(part, rows)
            await self._finish(record, self._issue(record, part))

    def _take(self, length: int, rows: Sequence[int]) -> LiveRecord | None:
        ring = self._ring
        if ring.used and ring.used + length > self._policies.stripe_cache:
            return None
        return ring.take(length, rows)

    async def _wait_for_space(self, transfers: Sequence[Transfer], rows: Sequence[int]) -> LiveRecord:
        """Space in the ring for the record; no checkpoint after it was taken.

        Whoever is quick takes what a drain has freed, until somebody has waited for several of them: then all others
        wait for him.
        """
        drains, first = 0, False
        try:
            while True:
                await self._prepare()
                if self._starving and not first:
                    async with self._door:
                        continue
                waiting = self._in_flight
                if len(waiting) >= _MOST_IN_FLIGHT:
                    await _finished(waiting[0])
                    continue
                record = self._take(record_length(transfers, self._head.unit), rows)
                if record is not None:
                    return record
                used = self._ring.used
                await self.drain()
                if self._ring.used == used and waiting:
                    await _finished(waiting[0])
                drains += 1
                if drains == _PATIENCE:
                    await self._door.acquire()
                    first = self._starving = True
        finally:
            if first:
                self._starving = False
                self._door.release()

    def _issue(self, record: LiveRecord, transfers: Sequence[Transfer]) -> _Rest | None:
        """Write *record*, whose space is taken, on all log members; what is left to do for :meth:`_finish`.

        What can be is written at once, and where that is everything, the record is pending.
        """
        head = self._head
        data, at = encode_record(head.epoch, record.sequence, self._durable, transfers, head.unit)
        pieces = []
        for transfer in transfers:
            start, at = at, at + transfer.end - transfer.offset
            pieces.append((transfer.slot, transfer.offset, data[start:at]))
        record.pieces = pieces
        rest: _Rest | None = None
        for log in head.copies:
            member = log.member
            if not member.active:
                continue
            try:
                if not member.present.try_write(log.ring + record.offset, (data,)):
                    rest = rest or _Rest(data, [], [])
                    rest.waiting.append(log)
            except OrionError as error:
                rest = rest or _Rest(data, [], [])
                rest.failures.append((member, error))
        if rest is None and self._in_flight:
            rest = _Rest(data, [], [])
        if rest is None:
            self._accept(record)
        else:
            record.finished = trio.Event()
            self._in_flight.append(record)
        return rest

    async def _finish(self, record: LiveRecord, rest: _Rest | None) -> None:
        """The rest of a record that could not be written at once, or not before others; it is pending afterwards."""
        if rest is None:
            return
        # Short, and half of it would be worse than waiting for the other half.
        with trio.CancelScope(shield=True):
            failures = rest.failures
            if rest.waiting:
                rings = {id(log.member): log.ring for log in rest.waiting}
                failures += await on_each(
                    [log.member for log in rest.waiting],
                    lambda member: member.present.write(rings[id(member)] + record.offset, [rest.data]),
                )
            if failures:
                record.error = await self._failed_to_log(record, failures)
            record.done = True
            self._accept_in_order()
            await _finished(record)
        if record.error is not None:
            raise record.error

    async def _empty_flight(self) -> None:
        """Return when no record is on its way."""
        while self._in_flight:
            await _finished(self._in_flight[-1])

    def _accept_in_order(self) -> None:
        """What write() has returned for has to be found by a replay, so a record waits for all before it."""
        waiting = self._in_flight
        while waiting and waiting[0].done:
            record = waiting.popleft()
            self._accept(record)
            assert record.finished is not None
            record.finished.set()

    def _accept(self, record: LiveRecord) -> None:
        sequence = record.sequence
        if record.error is None:
            overlays = self._pending
            for slot, offset, data in record.pieces:
                overlay = overlays[slot]
                if not overlay:
                    self._members[slot].pending = overlay
                overlay.add(offset, data, sequence)
        record.pieces = ()
        self._done = sequence + 1
        ring = self._ring
        self._stirred.set()
        if 2 * ring.used > min(ring.size, self._policies.stripe_cache):
            self._pressed.set()

    async def _failed_to_log(self, record: LiveRecord, failures: Failures) -> OrionError | None:
        """Why *record* had to be given up; None if the members that failed it could be done without."""
        full: OrionError | None = None
        for member, error in failures:
            member.counters.write_errors += 1
            if isinstance(error, NoSpace):
                full = error
                continue
            try:
                await self._faults.member_failed(member, error)
            except OrionError as fatal:
                return fatal
        if full is None:
            return None
        # Some copies have it and some do not.  Whoever writes to its stripes next reckons without it, so a replay has
        # to know that before.
        self._head.give_up(Void(record.sequence, record.offset, record.length))
        self._ready = False
        try:
            await self._write_header()
        except OrionError as error:
            return error
        return full

    async def _prepare(self) -> None:
        """Return when records may be written: the journal is started, and its newest header says what is so."""
        head = self._head
        while True:
            if self._reforming:
                async with self._drain_turn:
                    continue
            if not self._started:
                await self.start()
            elif not head.logs:
                await self._reform()
            elif len(head.voids) >= MAX_VOIDS - _MOST_IN_FLIGHT:
                await self.drain()
            elif not self._ready or any(member.state == "failed" for member in head.listed):
                await self._write_header(prune=True)
            else:
                return

    # --- durability ------------------------------------------------------------------------------------------------

    async def _commit(self) -> None:
        """Make all records that are in the overlays durable on all log members."""
        while True:
            if self._head.stale:
                await self._write_header()
            covers = self._done
            logs = self._head.logs
            if covers <= self._durable or not logs:
                return
            failures = await flush_members([log.member for log in logs])
            if not failures:
                self._durable = max(self._durable, covers)
                return
            await self._fail(failures)

    async def _fail(self, failures: Failures) -> None:
        """Have the members recorded as failed; raises what cannot be survived, and NoSpace."""
        full: OrionError | None = None
        for member, error in failures:
            if isinstance(error, NoSpace):
                full = error
            elif takes_part(member):
                await self._faults.member_failed(member, error)
        if full is not None:
            raise full

    # --- headers ---------------------------------------------------------------------------------------------------

    async def witness(self, expected: Mapping[bytes, tuple[int, int]], events: int, utime: int) -> Failures:
        """The superblocks of these devices are about to change: by device uuid the checksum of each, and its next one.

        Durable on all log members when this returns nothing; else the log members that failed, for the caller to deal
        with.  Called before any of the superblocks is written, with their next ``events`` and ``utime``.
        """
        with trio.CancelScope(shield=True):
            async with self._header_turn:
                self._head.expect(expected, events, utime)
                if not self._head.epoch:
                    await self._form()
                failures = await self._put_headers()
        return failures

    async def _write_header(self, *, prune: bool = False) -> None:
        """Write the header as things are now, durably; with *prune*, whoever takes no part any more is not in it."""
        while True:
            with trio.CancelScope(shield=True):
                async with self._header_turn:
                    if prune:
                        self._head.prune()
                    failures = await self._put_headers()
            if not failures:
                return
            await self._fail(failures)

    async def _put_headers(self) -> Failures:
        """The caller holds the header's turn, and deals with the log members that failed."""
        head = self._head
        if not self._vouched:
            # After a kill what the superblocks say may be in the page cache only: a cut must not take it back once a
            # header counts on it.
            failures = await flush_members([member for member in everyone(self._members) if takes_part(member)])
            if failures:
                return failures
            self._vouched = True
        covers = self._done
        failures = await head.put(self._ring.place_of(head.tail))
        if head.logs and not failures:
            self._durable = max(self._durable, covers)
            self._ready = self._started and head.complete and not self._reforming
        return failures

    async def _form(self) -> None:
        """Begin an epoch; nothing is pending, and the caller holds the header's turn.  Raises :class:`Refused`."""
        await self._head.form(self._done)
        self._ring = JournalRing(self._head.ring_size, self._done)
        self._most = self._head.most
        self._durable = self._done


async def _finished(record: LiveRecord) -> None:
    assert record.finished is not None
    await record.finished.wait()
