"""Planted bugs of redundancy and of members that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from orionfs.array import superblocks
from orionfs.array.superblock import FEATURE_RECOVERY_OFFSET

from .planted import Bug, nothing, swap


def p_and_q_swapped(array: Any) -> None:
    row = array._engine.layout.row
    swap(array._engine.layout, "row", lambda number: _swapped(row(number)))


def _swapped(place: Any) -> Any:
    return place._replace(parity=place.q, q=place.parity)


def q_is_p(array: Any) -> None:
    """All exponents are 0, so that Q is the XOR of the data."""
    row = array._engine.layout.row

    def plain(number: int) -> Any:
        place = row(number)
        return place._replace(exponents=tuple(0 for _ in place.exponents))

    swap(array._engine.layout, "row", plain)


def rebuild_writes_nothing(array: Any) -> None:
    async def believe(target: Any, _low: int, high: int) -> None:
        target.valid = high

    swap(array._engine, "rebuild", believe)


def rebuild_reads_the_target(array: Any) -> None:
    """What is rebuilt is made from what the new member happens to hold."""
    engine = array._engine
    rebuild = engine.rebuild

    async def from_itself(target: Any, low: int, high: int) -> None:
        buffer = bytearray(high - low)
        await target.present.read(target.data_offset + low, [buffer])
        await rebuild(target, low, high)
        await target.present.write(target.data_offset + low, [buffer])

    swap(engine, "rebuild", from_itself)


@contextmanager
def rebuild_recorded_ahead_of_the_data() -> Iterator[None]:
    ahead = superblocks.recovery_sector

    def recovery_sector(member: Any) -> int:
        return ahead(member) + 64

    with mock.patch.object(superblocks, "recovery_sector", recovery_sector):
        yield


@contextmanager
def a_member_being_filled_counts_as_filled() -> Iterator[None]:
    note = superblocks._note_progress

    def note_progress(own: Any, member: Any) -> None:
        note(own, member)
        own.feature_map &= ~FEATURE_RECOVERY_OFFSET

    with mock.patch.object(superblocks, "_note_progress", note_progress):
        yield


def replacement_misses_writes(array: Any) -> None:
    engine = array._engine
    write = engine.write

    async def without_copies(*arguments: Any) -> None:
        copies = [(member, member.copy) for member in engine.members if member.copy is not None]
        for member, _copy in copies:
            member.copy = None
        try:
            await write(*arguments)
        finally:
            for member, copy in copies:
                if member.active:
                    member.copy = copy

    swap(engine, "write", without_copies)


def rebuilt_member_misses_writes(array: Any) -> None:
    engine = array._engine
    write = engine.write

    async def without_filling(*arguments: Any) -> None:
        filling = [(member, member.valid) for member in engine.members if member.state == "rebuilding"]
        for member, _valid in filling:
            member.valid = 0
        try:
            await write(*arguments)
        finally:
            for member, valid in filling:
                if member.state == "rebuilding":
                    member.valid = max(valid, member.valid)

    swap(engine, "write", without_filling)


def admitted_without_a_flush(array: Any) -> None:
    """A member that was filled counts as in sync before what it was filled with is durable."""
    admit = array.admit

    async def admit_at_once(target: Any) -> None:
        device = target.present
        flush = swap(device, "flush", nothing)
        try:
            await admit(target)
        finally:
            device.flush = flush

    swap(array, "admit", admit_at_once)


BUGS = [
    Bug("P and Q swapped", "raid6", "", p_and_q_swapped),
    Bug("Q is P", "raid6", "", q_is_p),
    Bug("the rebuild writes nothing", "raid1", "manage", rebuild_writes_nothing),
    Bug("the rebuild writes nothing", "raid5", "manage", rebuild_writes_nothing),
    Bug("the rebuild reads the target", "raid10", "manage", rebuild_reads_the_target),
    Bug("the rebuild reads the target", "raid6", "manage", rebuild_reads_the_target),
    Bug("the rebuild is recorded ahead", "raid5", "manage", None, "journal", rebuild_recorded_ahead_of_the_data),
    Bug("filled before it is filled", "raid5", "manage", None, "journal", a_member_being_filled_counts_as_filled),
    Bug("a replacement misses writes", "raid1", "manage", replacement_misses_writes),
    Bug("a replacement misses writes", "raid5", "manage", replacement_misses_writes, "resync"),
    Bug("a rebuilt member misses writes", "raid1", "manage", rebuilt_member_misses_writes),
    Bug("a rebuilt member misses writes", "raid4", "manage", rebuilt_member_misses_writes, "resync"),
    Bug("admitted without a flush", "raid1", "manage", admitted_without_a_flush),
]
