"""Groups of writes that share their records in a partial parity log, and what each of them puts into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import trio

from orionfs.array.ppl_format import MAX_ENTRIES
from orionfs.array.transfer import Transfer
from orionfs.buffers import Buffer, window
from orionfs.errors import OrionError

#: Room for the entry that says what else is the matter.
MOST_ENTRIES = MAX_ENTRIES - 1


class Piece(NamedTuple):
    """What becomes one entry: the bytes [low, high) of *chunks* data chunks of stripe *row* from *column* on.

    *partial* is the XOR of the other data chunks over these bytes; None if there are no others.
    """

    slot: int
    row: int
    low: int
    high: int
    column: int
    chunks: int
    partial: Buffer | None

    @property
    def size(self) -> int:
        """Bytes of partial parity."""
        return self.high - self.low if self.partial is not None else 0


class Job:
    """One request, or as much of it as goes into one record for each parity member."""

    __slots__ = ("pieces", "transfers")

    def __init__(self, pieces: list[Piece], transfers: list[Transfer]) -> None:
        self.pieces = pieces
        self.transfers = transfers


class Group:
    """Jobs that share their records.  *left* of them have not ended."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        #: By parity member: entries and bytes of partial parity, also those of jobs that have left.
        self._taken: dict[int, tuple[int, int]] = {}
        self.left = 0
        self.led = False
        self.recorded = False
        self.changed = trio.Event()
        self.error: OrionError | None = None
        #: Its place in the sequence of groups; 0 before it has the turn.
        self.number = 0

    def take(self, job: Job, capacity: int) -> bool:
        """Let *job* in if there is room for it, *capacity* bytes of partial parity on each member; whether there was.

        There always is for the first.
        """
        taken = dict(self._taken)
        for piece in job.pieces:
            entries, size = taken.get(piece.slot, (0, 0))
            taken[piece.slot] = entries, size = entries + 1, size + piece.size
            if self.jobs and (entries > MOST_ENTRIES or size > capacity):
                return False
        self._taken = taken
        self.jobs.append(job)
        self.left += 1
        return True


def by_slot(pieces: Iterable[Piece]) -> dict[int, list[Piece]]:
    """*pieces* by the member that holds their parity."""
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.slot, []).append(piece)
    return found


def steps(low: int, high: int, most: int) -> Iterator[tuple[int, int]]:
    """[low, high) in ranges of at most *most*."""
    while low < high:
        end = min(low + most, high)
        yield low, end
        low = end


def cut(transfers: Sequence[Transfer], begin: int, end: int | None) -> list[Transfer]:
    """The parts of *transfers* at the member addresses [begin, end)."""
    parts = []
    for transfer in transfers:
        low = max(transfer.offset, begin)
        high = transfer.end if end is None else min(transfer.end, end)
        if low < high:
            buffers = window(transfer.buffers, low - transfer.offset, high - low)
            parts.append(Transfer(transfer.slot, low, high, buffers))
    return parts
