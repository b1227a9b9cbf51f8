"""The oracle: each 512-byte block is a register, and this is the set of values that it may hold.

It hears of every write and flush as they begin and end, in logical time, and then answers: what may a read return, what
may be there after a power cut at that moment, what after a kill.  All three come from one rule.  A write is *settled*
if it is known to have taken effect where it counts (for a cut: it completed before a flush began that completed before
the cut).  A block may hold the value of every write that had been issued, except of those that had ended when a
settled write to that block was issued.

Contents are *tags*: a block is one 64-bit number, 64 times over, that belongs to one write and one block number.  So a
torn, misplaced or invented block is told from a right one, and a whole device is compared in a few array operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orionfs.units import SECTOR

Tags = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_WORDS = SECTOR // 8


class Violation(AssertionError):
    """The device broke its contract: a block holds what it must not."""


@dataclass(eq=False, slots=True)
class Write:
    """One write in the history.  ``ended`` is None in flight; ``sure`` says that it completed without error."""

    number: int
    first: int
    tags: Tags
    issued: int
    ended: int | None = None
    sure: bool = False
    optional: bool = False
    what: str = "write"

    @property
    def end(self) -> int:
        """The block after its last one."""
        return self.first + len(self.tags)


class Oracle:
    """The history of a device of *blocks* blocks.  *tick* is the machine's: it orders what happens here and there."""

    def __init__(self, blocks: int, tick: Callable[[], int], initial: Tags | None = None) -> None:
        self.blocks = blocks
        self._tick = tick
        self._number = 0
        start = np.zeros(blocks, np.uint64) if initial is None else initial
        self.history = [Write(0, 0, start, 0, 0, True, what="initial contents")]
        self._flushes: list[tuple[int, int]] = []
        self._unsure = False

    # --- what happens ----------------------------------------------------------------------------------------------

    def issue(self, first: int, count: int, *, zero: bool = False, optional: bool = False, what: str = "") -> Write:
        """A write begins; :func:`render` makes the data that it has to carry.

        With *optional* (a discard) even its success does not say that it took effect.
        """
        self._number += 1
        tags = np.zeros(count, np.uint64) if zero else make_tags(self._number, first, count)
        write = Write(self._number, first, tags, self._tick(), None, False, optional, what or "write")
        self.history.append(write)
        self._unsure |= optional
        return write

    def done(self, write: Write) -> None:
        """It completed."""
        write.ended = self._tick()
        write.sure = not write.optional

    def failed(self, write: Write) -> None:
        """It ended with an error or was cancelled: each block is old or new, from now on."""
        write.ended = self._tick()
        self._unsure = True

    def flush_begins(self) -> int:
        """A flush begins; give what this returns to :meth:`flush_done`, if that time comes."""
        return self._tick()

    def flush_done(self, began: int) -> None:
        """That flush completed: what had completed when it began is durable."""
        self._flushes.append((began, self._tick()))

    def read_begins(self) -> int:
        """A read begins; give what this returns to :meth:`check_read`."""
        return self._tick()

    def check_read(self, first: int, data: bytes, began: int) -> None:
        """A read has returned *data*: raise :class:`Violation` if it could not be that."""
        now = self._tick()
        tags = read_tags(data, first)
        self._check(first, tags, issued_by=now, settled_before=began, when="a read")
        if self._unsure:
            self._observe(first, tags, began, now)

    def _observe(self, first: int, tags: Tags, began: int, now: int) -> None:
        """Old or new is decided by the first read that nothing raced with."""
        end = first + len(tags)
        for write in self.history:
            if write.first < end and first < write.end and (write.ended is None or write.ended >= began):
                return
        self.history.append(Write(-self._number, first, tags, began, now, True, what="observed by a read"))

    # --- what may be there -----------------------------------------------------------------------------------------

    def durable_before(self, at: int) -> int:
        """Writes that ended before this tick are durable at tick *at*."""
        return max((began for began, done in self._flushes if done <= at), default=1)

    def check_cut(self, data: bytes, at: int, *, only: Mask | None = None) -> Tags:
        """The whole device after a power cut at tick *at*; *only* limits it to some blocks.

        Returns the tags, which are the initial contents of the next life: what was read once must not change again.
        """
        tags = read_tags(data, 0)
        when = f"a power cut at tick {at}"
        self._check(0, tags, issued_by=at, settled_before=self.durable_before(at), when=when, only=only)
        return tags

    def check_kill(self, data: bytes, at: int, *, only: Mask | None = None, observed: bool = True) -> Tags:
        """The whole device after a kill of the process at tick *at*: completed writes are there, flushed or not.

        Unless *observed*, what reads have shown of writes that failed counts for nothing: a member that is gone too may
        have been the only one to have it.
        """
        tags = read_tags(data, 0)
        when = f"a kill at tick {at}"
        self._check(0, tags, issued_by=at, settled_before=at + 1, when=when, only=only, observed=observed)
        return tags

    def open_blocks(self, at: int) -> Mask:
        """The blocks that may hold more than one value after a power cut at tick *at*."""
        durable = self.durable_before(at)
        settled = self._settled(0, self.blocks, durable)
        several = np.zeros(self.blocks, np.bool_)
        for write in self.history:
            if write.issued > at or (write.sure and write.ended is not None and write.ended < durable):
                continue
            ended = at if write.ended is None else write.ended
            several[write.first : write.end] |= settled[write.first : write.end] <= ended
        return several

    def unsettled(self, at: int, settled_before: int) -> list[Write]:
        """The writes issued by tick *at* that need not have taken effect, whoever ended before *settled_before*.

        Those of which nothing can be seen any more, because settled ones cover them, are left out.
        """
        settled = self._settled(0, self.blocks, settled_before)
        found = []
        for write in self.history:
            if write.issued > at or (write.sure and write.ended is not None and write.ended < settled_before):
                continue
            ended = at if write.ended is None else write.ended
            if (settled[write.first : write.end] <= ended).any():
                found.append(write)
        return found

    def check_units(
        self, tags: Tags, unit: int, at: int, settled_before: int, *, only: Mask | None = None, when: str = ""
    ) -> None:
        """No aligned unit of *unit* blocks shows a part of a write: old or new, never a mix.

        For contents that :meth:`check_cut` or :meth:`check_kill` has passed; *at* and *settled_before* as there.
        A discard may do as it likes, and so may a write that has failed by then.  *only* limits the check to units in
        which all blocks are set.
        """
        for write in self.unsettled(at, settled_before):
            if write.optional or (write.ended is not None and write.ended <= at and not write.sure):
                continue
            seen = tags[write.first : write.end] == write.tags
            if seen.all() or not seen.any():
                continue
            first = write.first // unit
            for number in range(first, -(-write.end // unit)):
                low, high = max(number * unit, write.first), min((number + 1) * unit, write.end)
                part = seen[low - write.first : high - write.first]
                if part.all() or not part.any():
                    continue
                if only is not None and not only[number * unit : (number + 1) * unit].all():
                    continue
                blocks = np.arange(low, high)
                if self._explained(write, tags, blocks[part], blocks[~part], at):
                    continue
                raise Violation(
                    f"{write.what} {write.number} (blocks {write.first} to {write.end - 1}) is torn inside the unit of"
                    f" {unit} blocks from {number * unit}: only {blocks[part].tolist()} have it{when}"
                )

    def _explained(
        self, write: Write, tags: Tags, new: npt.NDArray[np.int_], old: npt.NDArray[np.int_], at: int
    ) -> bool:
        """Whether *new* may come from another write, or what hides *write* in *old* may be younger than it."""
        others = [other for other in self.history if other is not write and other.issued <= at]
        if all(any(_shows(other, tags, int(block)) for other in others) for block in new):
            return True
        younger = [other for other in others if other.ended is None or other.ended > write.issued]
        return all(any(_shows(other, tags, int(block)) for other in younger) for block in old)

    def acknowledged(self, at: int) -> int:
        """How many writes were durable at tick *at*."""
        durable = self.durable_before(at)
        return sum(
            write.number > 0 and write.sure and write.ended is not None and write.ended < durable
            for write in self.history
        )

    def _settled(self, first: int, end: int, before: int, observed: bool = True) -> npt.NDArray[np.int64]:
        """For each block, when the last write that is settled was issued."""
        settled = np.zeros(end - first, np.int64)
        for write in self.history:
            if write.number < 0 and not observed:
                continue
            if write.sure and write.ended is not None and write.ended < before:
                low, high = max(first, write.first), min(end, write.end)
                if low < high:
                    part = settled[low - first : high - first]
                    np.maximum(part, write.issued, out=part)
        return settled

    def _check(
        self,
        first: int,
        tags: Tags,
        *,
        issued_by: int,
        settled_before: int,
        when: str,
        only: Mask | None = None,
        observed: bool = True,
    ) -> None:
        fine = self._fine(first, tags, issued_by, settled_before, observed)
        if only is not None:
            fine |= ~only
        if not fine.all():
            bad = np.flatnonzero(~fine) + first
            raise Violation(self._explain(bad, int(tags[bad[0] - first]), issued_by, settled_before, when))

    def possible(self, tags: Tags, at: int) -> Mask:
        """Which blocks of the whole device may look like this after a power cut at tick *at*."""
        return self._fine(0, tags, at, self.durable_before(at))

    def unsettled_blocks(self, at: int) -> Mask:
        """The blocks that no write is sure to have reached after a power cut at tick *at*."""
        return np.asarray(self._settled(0, self.blocks, self.durable_before(at), observed=False) == 0)

    def _fine(self, first: int, tags: Tags, issued_by: int, settled_before: int, observed: bool = True) -> Mask:
        """Which of the blocks from *first* on hold what they may."""
        end = first + len(tags)
        settled = self._settled(first, end, settled_before, observed)
        fine = np.zeros(len(tags), np.bool_)
        for write in self.history:
            low, high = max(first, write.first), min(end, write.end)
            if low >= high or write.issued > issued_by:
                continue
            place = slice(low - first, high - first)
            right = tags[place] == write.tags[low - write.first : high - write.first]
            if write.ended is not None:
                right &= settled[place] <= write.ended
            fine[place] |= right
        return fine

    def _explain(self, bad: npt.NDArray[np.intp], seen: int, issued_by: int, settled_before: int, when: str) -> str:
        block = int(bad[0])
        settled = int(self._settled(block, block + 1, settled_before)[0])
        lines = [f"block {block} (byte {block * SECTOR}) and {len(bad) - 1} more are wrong after {when}:"]
        found = "a value that nobody wrote, or a mix"
        for write in self.history:
            if not write.first <= block < write.end or write.issued > issued_by:
                continue
            tag = int(write.tags[block - write.first])
            allowed = write.ended is None or settled <= write.ended
            if tag == seen:
                found = f"{write.what} {write.number}"
            ended = "in flight" if write.ended is None else f"{'done' if write.sure else 'ended'} at {write.ended}"
            lines.append(
                f"  {'allowed' if allowed else '       '} {write.what} {write.number}, blocks {write.first} to "
                f"{write.end - 1}, issued at {write.issued}, {ended}"
            )
        lines.insert(1, f"  it holds: {found}")
        return "\n".join(lines)


def _shows(write: Write, tags: Tags, block: int) -> bool:
    return write.first <= block < write.end and tags[block] == write.tags[block - write.first]


# --- contents ------------------------------------------------------------------------------------------------------


def make_tags(number: int, first: int, count: int) -> Tags:
    """The tags of write *number* for *count* blocks from *first*: all different, none of them 0 in practice."""
    with np.errstate(over="ignore"):
        mixed = np.arange(first, first + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed += np.uint64(number) * np.uint64(0xD1B54A32D192ED03)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return mixed ^ (mixed >> np.uint64(31))


def render(tags: Tags) -> bytes:
    """The bytes of blocks with these *tags*."""
    return np.repeat(tags, _WORDS).tobytes()


def read_tags(data: bytes, first: int) -> Tags:
    """The tags in *data*; raises :class:`Violation` for a block that is not one tag throughout."""
    words = np.frombuffer(data, np.uint64).reshape(-1, _WORDS)
    tags = words[:, 0].copy()
    torn = np.flatnonzero((words != tags[:, None]).any(axis=1))
    if len(torn):
        raise Violation(f"block {first + int(torn[0])} and {len(torn) - 1} more hold a mix of contents, or garbage")
    return tags
