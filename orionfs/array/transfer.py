"""Transfers: one vectored request to one member each, and how a set of them is carried out.

First every member is asked to serve its part at once; only what would wait gets a task.  So nothing is spawned while
all members answer from the page cache, and members that do wait, wait together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import trio

from orionfs.array.layout import Piece
from orionfs.array.member import Member
from orionfs.buffers import Buffer, window
from orionfs.errors import MediaError, OrionError


class Transfer:
    """*buffers* go to, or come from, ``[offset, end)`` of the data area of the member in *slot*."""

    __slots__ = ("buffers", "end", "offset", "slot")

    def __init__(self, slot: int, offset: int, end: int, buffers: list[memoryview]) -> None:
        self.slot = slot
        self.offset = offset
        self.end = end
        self.buffers = buffers


class Failure(NamedTuple):
    """A transfer that did not happen, why, and on which member: that in the slot, or the copy that is made of it."""

    transfer: Transfer
    error: OrionError
    member: Member


def plan(pieces: Iterable[Piece], buffers: Sequence[Buffer]) -> list[Transfer]:
    """The *pieces* of a request joined into as few transfers as adjacency on the members allows.

    Without *buffers* the transfers have places only, as :func:`zero_all` wants them.
    """
    whole = memoryview(buffers[0] if buffers else b"") if len(buffers) < 2 else None
    transfers: list[Transfer] = []
    latest: dict[int, Transfer] = {}
    for slot, offset, at, length in pieces:
        views = [whole[at : at + length]] if whole is not None else window(buffers, at, length)
        transfer = latest.get(slot)
        if transfer is not None and transfer.end == offset:
            transfer.end = offset + length
            transfer.buffers += views
        else:
            transfer = latest[slot] = Transfer(slot, offset, offset + length, views)
            transfers.append(transfer)
    return transfers


def join(transfers: Iterable[Transfer]) -> list[Transfer]:
    """*transfers* in any order, with neighbors on the same member made one."""
    joined: list[Transfer] = []
    for transfer in sorted(transfers, key=_place):
        last = joined[-1] if joined else None
        if last is not None and last.slot == transfer.slot and last.end == transfer.offset:
            joined[-1] = Transfer(last.slot, last.offset, transfer.end, last.buffers + transfer.buffers)
        else:
            joined.append(transfer)
    return joined


def _place(transfer: Transfer) -> tuple[int, int]:
    return transfer.slot, transfer.offset


class ReadWatch(Protocol):
    """Who wants to know how long reads take."""

    def served(self, slot: int, end: int) -> None:
        """A read up to *end* of a data area needed no waiting."""

    def began(self, slot: int) -> int:
        """A read has to wait for its device; what :meth:`ended` is to be told."""

    def ended(self, transfer: Transfer, began: int) -> None:
        """A read that had to wait has come to its end, or failed, or was cancelled."""


async def read_all(
    members: Sequence[Member], transfers: Iterable[Transfer], watch: ReadWatch | None = None
) -> list[Failure]:
    """Read every transfer; those that failed, with their errors, when all are done.

    The members must be valid for what is asked of them.  What a journal holds for them is seen, bad blocks are errors.
    """
    failures: list[Failure] = []
    waiting: list[_Read] = []
    for transfer in transfers:
        member = members[transfer.slot]
        if member.bad and member.bad.touches(transfer.offset, transfer.end):
            failures.append(Failure(transfer, _bad_block(member, transfer), member))
            continue
        # Taken before the device is asked: what is put in place meanwhile is there or here.
        pending = member.pending.over(transfer.offset, transfer.end) if member.pending is not None else ()
        try:
            if not member.present.try_read(member.data_offset + transfer.offset, transfer.buffers):
                waiting.append(_Read(transfer, member, pending))
                continue
            if pending:
                _lay_over(transfer, pending)
            if watch is not None:
                watch.served(transfer.slot, transfer.end)
        except OrionError as error:
            failures.append(Failure(transfer, error, member))
    if waiting:

        async def read(job: _Read) -> None:
            transfer, member, pending = job
            began = watch.began(transfer.slot) if watch is not None else 0
            try:
                await member.present.read(member.data_offset + transfer.offset, transfer.buffers)
            except OrionError as error:
                failures.append(Failure(transfer, error, member))
            else:
                if pending:
                    _lay_over(transfer, pending)
            finally:
                if watch is not None:
                    watch.ended(transfer, began)

        await _together(read, waiting)
    return failures


class _Read(NamedTuple):
    """A transfer that has to wait for its device."""

    transfer: Transfer
    member: Member
    pending: Sequence[tuple[int, memoryview]]


def _bad_block(member: Member, transfer: Transfer) -> MediaError:
    return MediaError(f"{member.label} has bad blocks between {transfer.offset} and {transfer.end} of its data area")


def _lay_over(transfer: Transfer, pending: Sequence[tuple[int, memoryview]]) -> None:
    """Put *pending* over what was read from the device."""
    start = transfer.offset
    for view in transfer.buffers:
        end = start + len(view)
        for offset, data in pending:
            low, high = max(offset, start), min(offset + len(data), end)
            if low < high:
                view[low - start : high - start] = data[low - offset : high - offset]
        start = end


async def write_all(members: Sequence[Member], transfers: Iterable[Transfer]) -> list[Failure]:
    """Write every transfer to its member, and to the copy that is made of it, as far as they are (still) valid.

    Those that failed, with their errors, when all are done.
    """
    failures: list[Failure] = []
    waiting: list[tuple[Transfer, Member]] = []
    for transfer in transfers:
        offset = transfer.offset
        member: Member | None = members[transfer.slot]
        while member is not None:
            # Small writes pass here twice or more each: whatever is looked up again costs them.
            if offset < member.valid:
                device, bad = member.device, member.bad
                assert device is not None, f"slot {member.slot} is empty"
                try:
                    if not device.try_write(member.data_offset + offset, transfer.buffers):
                        waiting.append((transfer, member))
                    elif bad:
                        bad.forget(offset, transfer.end)
                except OrionError as error:
                    failures.append(Failure(transfer, error, member))
            member = member.copy
    if waiting:

        async def write(job: tuple[Transfer, Member]) -> None:
            transfer, member = job
            try:
                await member.present.write(member.data_offset + transfer.offset, transfer.buffers)
            except OrionError as error:
                failures.append(Failure(transfer, error, member))
            else:
                if member.bad:
                    member.bad.forget(transfer.offset, transfer.end)

        await _together(write, waiting)
    return failures


async def zero_all(members: Sequence[Member], transfers: Sequence[Transfer]) -> list[Failure]:
    """As :func:`write_all`, with zeros (the buffers of the transfers are not used)."""
    failures: list[Failure] = []
    jobs: list[tuple[Transfer, Member]] = []
    for transfer in transfers:
        member = members[transfer.slot]
        jobs += [
            (transfer, each) for each in (member, member.copy) if each is not None and transfer.offset < each.valid
        ]

    async def zero(job: tuple[Transfer, Member]) -> None:
        transfer, member = job
        try:
            await member.present.write_zeroes(member.data_offset + transfer.offset, transfer.end - transfer.offset)
        except OrionError as error:
            failures.append(Failure(transfer, error, member))
        else:
            if member.bad:
                member.bad.forget(transfer.offset, transfer.end)

    await _together(zero, jobs)
    return failures


async def on_each(
    members: Iterable[Member], act: Callable[[Member], Awaitable[None]]
) -> list[tuple[Member, OrionError]]:
    """Do *act* on all *members*, together; those for which it raised an :class:`OrionError`."""
    failures: list[tuple[Member, OrionError]] = []

    async def attempt(member: Member) -> None:
        try:
            await act(member)
        except OrionError as error:
            failures.append((member, error))

    await _together(attempt, list(members))
    return failures


_Job = TypeVar("_Job")


async def _together(act: Callable[[_Job], Awaitable[None]], jobs: Sequence[_Job]) -> None:
    """Run *act* on every job; returns when all are done."""
    if len(jobs) == 1:
        await act(jobs[0])
        return
    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(act, job)
