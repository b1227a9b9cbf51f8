"""Planted bugs: mistakes in a journal that the cuts have to find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import trio

from orionfs.array.journal_copies import LogMember
from orionfs.array.journal_format import SLOT
from orionfs.array.transfer import Transfer
from orionfs.errors import MediaError
from orionfs.testing.simulation import Simulation
from orionfs.testing.workload import Step, User
from orionfs.units import KIB

from .journal_cuts import Script
from .journal_kit import BLOCK, CHUNK, Shape, TinyArray


class Plant(NamedTuple):
    """``how`` are the options of :func:`tests.arrays.journal_cuts.trial` that bring it to light."""

    name: str
    patch: Callable[[TinyArray], None]
    how: dict[str, Any]


async def nothing(*_arguments: Any, **_options: Any) -> None:
    """What the bug does instead."""


def not_durable_before_in_place(array: TinyArray) -> None:
    array.journal._commit = nothing


def not_durable_in_place_before_the_tail_moves(array: TinyArray) -> None:
    place = array.journal._place

    async def forget(slot: int, segments: Any) -> list[Any]:
        await place(slot, segments)
        return []

    array.journal._place = forget


def tail_moves_early(array: TinyArray) -> None:
    journal = array.journal
    place = journal._place

    async def early(slot: int, segments: Any) -> list[Any]:
        journal._head.tail = journal._done
        await journal._write_header()
        return await place(slot, segments)

    journal._place = early


def overwrites_records_that_live(array: TinyArray) -> None:
    journal = array.journal
    take = journal._take

    def force(length: int, rows: Any) -> Any:
        record = take(length, rows)
        if record is None:
            journal._ring.retire(journal._done)
            record = take(length, rows)
        return record

    journal._take = force


def one_copy(array: TinyArray) -> None:
    array.journal._head.wanted = lambda: 1


def records_on_one_member(array: TinyArray) -> None:
    journal = array.journal
    issue = journal._issue

    def first_only(record: Any, transfers: Any) -> Any:
        copies = journal._head.copies
        journal._head.copies = copies[:1]
        try:
            return issue(record, transfers)
        finally:
            journal._head.copies = copies

    journal._issue = first_only


def one_epoch(array: TinyArray) -> None:
    head = array.journal._head
    form = head.form

    async def same(first: int) -> None:
        await form(first)
        head.epoch = 1

    head.form = same


def flush_forgets_the_log(array: TinyArray) -> None:
    async def flush() -> list[Any]:
        return []

    array.journal.flush = flush


def whole_stripes_past_records_that_live(array: TinyArray) -> None:
    journal = array.journal
    write = journal.write

    async def past(transfers: Any, rows: Any, put: Any) -> None:
        if any(not row.cells for row in rows) and len(rows) == 1:
            await put(transfers)
        else:
            await write(transfers, rows, put)

    journal.write = past


def nobody_settles(array: TinyArray) -> None:
    array.journal.settle = nothing


def parity_is_not_logged(array: TinyArray) -> None:
    journal = array.journal
    log = journal._issue

    def without(record: Any, transfers: Any) -> Any:
        rest = log(record, transfers[:-1])
        last: Transfer = transfers[-1]
        pending = journal._pending[last.slot]
        pending.add(last.offset, memoryview(b"".join(last.buffers)), record.sequence)
        journal._members[last.slot].pending = pending
        return rest

    journal._issue = without


def given_up_records_stay(array: TinyArray) -> None:
    array.journal._head.give_up = lambda void: None


def headers_are_not_flushed(array: TinyArray) -> None:
    head = array.journal._head
    put = head.put

    async def unflushed(offset: int) -> Any:
        for log in head.copies:
            log.__class__ = _Unflushed
        return await put(offset)

    head.put = unflushed


class _Unflushed(LogMember):
    __slots__ = ()

    async def end_header(self, begun: Any) -> None:
        if begun.block:
            await self.member.present.write(self.area.base + begun.target * SLOT, [begun.block])
        self.slot = begun.target


def replay_does_not_level(array: TinyArray) -> None:
    array.journal._level = nothing


def failed_members_stay_in_the_header(array: TinyArray) -> None:
    journal = array.journal
    journal._head.prune = lambda: None
    prepare = journal._prepare

    async def careless() -> None:
        if journal._started and journal._head.logs:
            journal._ready = True
            journal._head.listed = []
            return
        await prepare()

    journal._prepare = careless


def acknowledged_out_of_order(array: TinyArray) -> None:
    journal = array.journal

    def at_once() -> None:
        for record in list(journal._in_flight):
            if record.done:
                journal._in_flight.remove(record)
                done = journal._done
                journal._accept(record)
                journal._done = max(done, journal._done)
                record.finished.set()

    journal._accept_in_order = at_once


# --- short lives that bring them to light ----------------------------------------------------------------------------


def _steps(*steps: Step) -> Script:
    async def script(_sim: Simulation, _array: TinyArray, user: User) -> int | None:
        for step in steps:
            await user.step(step)
        return None

    return script


_FLUSH = Step("flush")
_ROW = 2 * CHUNK  # of three members


def _block(number: int) -> Step:
    return Step("write", number * BLOCK, BLOCK)


part_then_whole = _steps(_block(1), _FLUSH, Step("write", 0, _ROW), _FLUSH, _block(5), _FLUSH)
part_then_zeroes = _steps(_block(1), _FLUSH, Step("write_zeroes", 0, _ROW), _FLUSH, _block(5), _FLUSH)
much = _steps(*[step for number in range(7) for step in (_block(number), _FLUSH)])


async def two_unflushed(sim: Simulation, _array: TinyArray, user: User) -> int:
    await user.step(_block(15))
    await user.step(_FLUSH)
    first = sim.machine.operations
    await user.step(_block(0))
    await user.step(_block(5))
    return first


async def several_at_once(sim: Simulation, _array: TinyArray, user: User) -> int:
    await user.step(_block(15))
    first = sim.machine.operations
    async with trio.open_nursery() as nursery:
        for number in (0, 4, 8, 12):
            nursery.start_soon(user.step, _block(number))
    return first


async def one_fails_while_another_writes(sim: Simulation, array: TinyArray, user: User) -> int:
    for number in (0, 8, 16):
        await user.step(_block(number))
    await user.step(_FLUSH)
    first = sim.machine.operations
    async with trio.open_nursery() as nursery:
        nursery.start_soon(array.member_failed, array.members[1], MediaError("failed by the test"))
        for number in (1, 2, 7, 9):
            nursery.start_soon(user.step, _block(number))
    return first


_THREE = Shape(3, 1, rows=4, ring=48 * KIB)
_FIVE = Shape(5, 2, rows=4, ring=64 * KIB)


def _short(script: Script, shape: Shape = _THREE, **options: Any) -> dict[str, Any]:
    return {"shape": shape, "script": script, "per_point": 12, "whole": 1000} | options


_RANDOM = {"every": 3, "per_point": 4, "whole": 1000}

PLANTS = [
    Plant("put in place before the record is durable", not_durable_before_in_place, _RANDOM),
    Plant("the tail moves before what is in place is durable", not_durable_in_place_before_the_tail_moves, _RANDOM),
    Plant("the tail moves early", tail_moves_early, _RANDOM),
    Plant("the ring overwrites records that live", overwrites_records_that_live, _short(much)),
    Plant("one log member", one_copy, _RANDOM),
    Plant("records on one log member", records_on_one_member, _RANDOM),
    Plant("epochs are not told apart", one_epoch, _RANDOM | {"whole": 1, "again": 1}),
    Plant("flush forgets the log", flush_forgets_the_log, _RANDOM),
    Plant("whole stripes past records that live", whole_stripes_past_records_that_live, _short(part_then_whole)),
    Plant("nobody waits for records that live", nobody_settles, _short(part_then_zeroes)),
    Plant("parity is not logged", parity_is_not_logged, _RANDOM),
    Plant("records that were given up stay", given_up_records_stay, _RANDOM | {"fault": "space"}),
    Plant("headers are not flushed", headers_are_not_flushed, _RANDOM),
    Plant("a replay does not level the copies", replay_does_not_level, _short(two_unflushed, whole=1, again=6)),
    Plant(
        "failed members stay in the header",
        failed_members_stay_in_the_header,
        _short(one_fails_while_another_writes, _FIVE, sets=9),
    ),
    Plant("acknowledged out of order", acknowledged_out_of_order, _short(several_at_once)),
]
