"""Planted bugs of journals, partial parity logs and bitmaps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from orionfs.array import journal_replay

from .planted import Bug, nothing, swap

# --- journal ---------------------------------------------------------------------------------------------------------


def in_place_before_the_log_is_durable(array: Any) -> None:
    swap(array.log, "_commit", nothing)


def tail_past_what_is_not_durable(array: Any) -> None:
    """Moves the tail over records whose contents are written in place, and not flushed."""
    place = array.log._place

    async def forgetful(*arguments: Any) -> list[Any]:
        await place(*arguments)
        return []

    swap(array.log, "_place", forgetful)


def tail_before_anything_is_in_place(array: Any) -> None:
    log = array.log

    async def early() -> None:
        log._head.tail = log._done
        await log._write_header()
        await drain()

    drain = swap(log, "_drain_once", early)


def log_on_one_member_only(array: Any) -> None:
    swap(array.log._head, "wanted", lambda: 1)


def superblocks_change_without_a_witness(array: Any) -> None:
    async def unheard(*_arguments: Any) -> list[Any]:
        return []

    swap(array.log, "witness", unheard)


def flush_leaves_the_log_out(array: Any) -> None:
    async def forgotten() -> list[Any]:
        return []

    swap(array.log, "flush", forgotten)


def zeros_in_place_over_a_live_log(array: Any) -> None:
    swap(array.log, "settle", nothing)


def whole_stripes_in_place_over_a_live_log(array: Any) -> None:
    ring = type(array.log._ring)
    swap(array.log, "write", _blind(array.log.write, ring))


def _blind(write: Any, ring: Any) -> Any:
    async def blindly(*arguments: Any) -> None:
        with mock.patch.object(ring, "touches", return_value=False):
            await write(*arguments)

    return blindly


def failed_members_stay_in_the_journal(array: Any) -> None:
    """Records go on without a member that failed, and the header still counts on it."""
    log = array.log
    swap(log._head, "prune", lambda: None)
    log._ready = True

    async def prepare() -> None:
        if not log._started:
            await log.start()
        elif not log._head.logs:
            await log._reform()

    swap(log, "_prepare", prepare)


@contextmanager
def replay_of_any_epoch() -> Iterator[None]:
    """What lay in the ring from before passes for a record."""
    parse = journal_replay.parse_head

    def parse_head(raw: Any, unit: int) -> Any:
        head = parse(raw, unit)
        return None if head is None else head._replace(epoch=_Any(), sequence=_Any())

    with mock.patch.object(journal_replay, "parse_head", parse_head):
        yield


class _Any(int):
    """Equal to every number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__


@contextmanager
def replay_stops_at_the_first_record() -> Iterator[None]:
    examine = journal_replay._Walk.collect

    async def collect(self: Any) -> Any:
        records, trouble = await examine(self)
        return records[:1], trouble

    with mock.patch.object(journal_replay._Walk, "collect", collect):
        yield


# --- partial parity log ----------------------------------------------------------------------------------------------


def no_ppl_record(array: Any) -> None:
    swap(array.log, "_record", nothing)


def ppl_record_not_flushed(array: Any) -> None:
    record = array.log._record

    async def hasty(group: Any) -> None:
        areas = [area for area in array.log._areas.values()]
        flushes = [area._flush for area in areas]
        for area in areas:
            area._flush = nothing
        try:
            await record(group)
        finally:
            for area, flush in zip(areas, flushes, strict=True):
                area._flush = flush

    swap(array.log, "_record", hasty)


def next_ppl_record_before_the_last_stripes_are_durable(array: Any) -> None:
    swap(array.log, "_make_durable", nothing)


@contextmanager
def ppl_replay_does_nothing() -> Iterator[None]:
    from orionfs.array import ppl
    from orionfs.array.ppl_replay import Replayed

    async def replay(*_arguments: Any) -> Any:
        return Replayed(entries=1)

    with mock.patch.object(ppl, "replay", replay):
        yield


# --- bitmap ----------------------------------------------------------------------------------------------------------


def bit_set_after_the_data(array: Any) -> None:
    if array.bitmap is None:
        return
    bitmap = array.bitmap
    begin, end = bitmap.begin, bitmap.end
    late: set[tuple[int, int]] = set()

    def begins(low: int, high: int) -> bool:
        late.add((low, high))
        begin(low, high)
        return True

    swap(bitmap, "begin", begins)
    swap(bitmap, "end", end)
    flush = array.flush

    async def flushes() -> None:
        waiting = sorted(late)
        late.clear()
        for low, high in waiting:
            await array._set_bits(low, high)
        await flush()

    swap(array, "flush", flushes)


def bits_cleared_early(array: Any) -> None:
    """Clears the bits of what is being written, and of what is not durable yet."""
    if array.bitmap is None:
        return
    bitmap = array.bitmap
    swap(array, "_may_tidy", lambda: True)
    swap(bitmap, "snapshot", lambda: frozenset(bitmap._bitmap.dirty_chunks()))
    tidy = bitmap.tidy

    async def tidies(snapshot: Any) -> Any:
        recent, bitmap._recent = bitmap._recent, {}
        try:
            return await tidy(snapshot)
        finally:
            bitmap._recent = recent

    swap(bitmap, "tidy", tidies)


def bits_cleared_while_degraded(array: Any) -> None:
    if array.bitmap is None:
        return
    swap(array, "_may_tidy", lambda: True)


def bitmap_covers_every_absence(array: Any) -> None:
    if array.bitmap is None:
        return
    swap(array.bitmap, "covers", lambda _events: True)
    swap(array, "_may_tidy", lambda: True)


def bitmap_lists_nothing(array: Any) -> None:
    if array.bitmap is None:
        return
    swap(array, "marked", lambda *_range: False)


BUGS = [
    Bug("in place before the log is durable", "raid5", "", in_place_before_the_log_is_durable, "journal"),
    Bug("in place before the log is durable", "raid6", "", in_place_before_the_log_is_durable, "journal"),
    Bug("tail past what is not durable", "raid5", "", tail_past_what_is_not_durable, "journal"),
    Bug("tail before anything is in place", "raid5", "", tail_before_anything_is_in_place, "journal"),
    Bug("log on one member only", "raid6", "", log_on_one_member_only, "journal"),
    Bug("log on one member only", "raid5", "", log_on_one_member_only, "journal"),
    Bug("superblocks change without a witness", "raid5", "", superblocks_change_without_a_witness, "journal"),
    Bug("flush leaves the log out", "raid4", "", flush_leaves_the_log_out, "journal"),
    Bug("zeros in place over a live log", "raid5", "", zeros_in_place_over_a_live_log, "journal"),
    Bug("whole stripes in place over a live log", "raid5", "", whole_stripes_in_place_over_a_live_log, "journal"),
    Bug("failed members stay in the journal", "raid5", "write", failed_members_stay_in_the_journal, "journal"),
    Bug("replay of any epoch", "raid5", "", None, "journal", replay_of_any_epoch),
    Bug("replay stops at the first record", "raid5", "", None, "journal", replay_stops_at_the_first_record),
    Bug("no PPL record", "raid5", "", no_ppl_record, "ppl"),
    Bug("PPL record not flushed", "raid5", "", ppl_record_not_flushed, "ppl"),
    Bug("next PPL record too early", "raid5", "", next_ppl_record_before_the_last_stripes_are_durable, "ppl"),
    Bug("PPL replay does nothing", "raid5", "", None, "ppl", ppl_replay_does_nothing),
    Bug("bit set after the data", "raid1", "", bit_set_after_the_data),
    Bug("bit set after the data", "raid5", "", bit_set_after_the_data, "resync"),
    Bug("bits cleared early", "raid1", "", bits_cleared_early),
    Bug("bits cleared early", "raid10", "", bits_cleared_early),
    Bug("bits cleared while degraded", "raid1", "manage", bits_cleared_while_degraded),
    Bug("bitmap covers every absence", "raid1", "manage", bitmap_covers_every_absence),
    Bug("bitmap lists nothing", "raid1", "manage", bitmap_lists_nothing),
]
