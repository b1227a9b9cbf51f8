"""JournalRing: which records live in the ring of a journal, where, and which stripes they touch.  Pure bookkeeping."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

    from orionfs.errors import OrionError


class LiveRecord:
    """A record that a replay would put in place, from the moment its space is taken.

    ``finished`` is set for a record whose writer had to wait, when it and all before it are done; ``error`` says why
    it was given up.  ``pieces`` is what it puts where, until that is in the members' overlays.
    """

    __slots__ = ("done", "error", "finished", "length", "offset", "pieces", "rows", "sequence")

    def __init__(self, sequence: int, offset: int, length: int, rows: Sequence[int]) -> None:
        self.sequence = sequence
        self.offset = offset
        self.length = length
        self.rows = rows
        self.done = False
        self.error: OrionError | None = None
        self.finished: trio.Event | None = None
        self.pieces: Sequence[tuple[int, int, memoryview]] = ()


class JournalRing:
    """*size* bytes, given out in order and taken back in order; no record crosses the end.

    Sequences are used once.  ``next`` is that of the next record; ``tail`` that of the oldest one that lives, or else
    ``next``.
    """

    def __init__(self, size: int, first: int = 1) -> None:
        self.size = size
        self.next = first
        #: Where the next record begins if it fits there.
        self.head = 0
        #: Bytes of the records that live.
        self.used = 0
        self._live: deque[LiveRecord] = deque()
        self._rows: dict[int, int] = {}

    @property
    def tail(self) -> int:
        """Sequence of the oldest record that lives."""
        return self._live[0].sequence if self._live else self.next

    def __len__(self) -> int:
        return len(self._live)

    def take(self, length: int, rows: Sequence[int]) -> LiveRecord | None:
        """Space for a record that touches the stripes *rows*; None if there is none at the moment."""
        live = self._live
        head = self.head
        if not live:
            head = 0
            if length > self.size:
                return None
        else:
            oldest = live[0].offset
            if head > oldest:
                if length > self.size - head:
                    # An end that meets the start of the oldest record would look like an empty ring.
                    if length >= oldest:
                        return None
                    head = 0
            elif length >= oldest - head:
                return None
        return self._put(head, length, rows)

    def place(self, offset: int, length: int, rows: Sequence[int]) -> LiveRecord:
        """The record that a replay has found at *offset*; the next one in order."""
        return self._put(offset, length, rows)

    def _put(self, offset: int, length: int, rows: Sequence[int]) -> LiveRecord:
        sequence = self.next
        record = LiveRecord(sequence, offset, length, rows)
        self.next = sequence + 1
        self.head = offset + length
        self.used += length
        self._live.append(record)
        index = self._rows
        for row in rows:
            index[row] = sequence
        return record

    def touches(self, first: int, end: int) -> bool:
        """Whether a live record has a part in the stripes [first, end)."""
        rows = self._rows
        if end - first == 1:
            return first in rows
        if end - first <= len(rows):
            return any(row in rows for row in range(first, end))
        return any(first <= row < end for row in rows)

    def place_of(self, sequence: int) -> int:
        """Where the record *sequence* begins, or is to begin unless there is no room for it."""
        for record in self._live:
            if record.sequence >= sequence:
                return record.offset
        return self.head

    def retire(self, limit: int) -> None:
        """The records before *limit* live no longer."""
        live, rows = self._live, self._rows
        gone: list[LiveRecord] = []
        while live and live[0].sequence < limit:
            record = live.popleft()
            self.used -= record.length
            gone.append(record)
        if not live:
            rows.clear()
            return
        for row in _all_rows(gone):
            if rows.get(row, limit) < limit:
                del rows[row]


def _all_rows(records: Iterable[LiveRecord]) -> Iterable[int]:
    for record in records:
        yield from record.rows
