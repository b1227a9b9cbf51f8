"""Transfers: one vectored request to one member each, and how a set of them is carried out.

First every member is asked to serve its part at once; only what would wait gets a task.  So nothing is spawned while
all members answer from the page cache, and members that do wait, wait together.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import trio

from orionfs.array.layout import Piece
from orionfs.array.member import Member
from orionfs.buffers import Buffer, window
from orionfs.errors import OrionError


class Transfer:
    """*buffers* go to, or come from, ``[offset, end)`` of the data area of the member in *slot*."""

    __slots__ = ("buffers", "end", "offset", "slot")

    def __init__(self, slot: int, offset: int, end: int, buffers: list[memoryview]) -> None:
        self.slot = slot
        self.offset = offset
        self.end = end
        self.buffers = buffers


class Failure(NamedTuple):
    """A transfer that did not happen, and why."""

    transfer: Transfer
    error: OrionError


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


async def read_all(members: Sequence[Member], transfers: Iterable[Transfer]) -> list[Failure]:
    """Read every transfer; those that failed, with their errors, when all are done."""
    failures: list[Failure] = []
    waiting: list[Transfer] = []
    for transfer in transfers:
        member = members[transfer.slot]
        try:
            if not member.present.try_read(member.data_offset + transfer.offset, transfer.buffers):
                waiting.append(transfer)
        except OrionError as error:
            failures.append(Failure(transfer, error))
    if waiting:

        def read(transfer: Transfer) -> Awaitable[None]:
            member = members[transfer.slot]
            return member.present.read(member.data_offset + transfer.offset, transfer.buffers)

        failures += await settle(waiting, read)
    return failures


async def write_all(members: Sequence[Member], transfers: Iterable[Transfer]) -> list[Failure]:
    """Write every transfer whose member is (still) active; those that failed, with their errors, when all are done."""
    failures: list[Failure] = []
    waiting: list[Transfer] = []
    for transfer in transfers:
        member = members[transfer.slot]
        if not member.active:
            continue
        try:
            if not member.present.try_write(member.data_offset + transfer.offset, transfer.buffers):
                waiting.append(transfer)
        except OrionError as error:
            failures.append(Failure(transfer, error))
    if waiting:

        def write(transfer: Transfer) -> Awaitable[None]:
            member = members[transfer.slot]
            return member.present.write(member.data_offset + transfer.offset, transfer.buffers)

        failures += await settle(waiting, write)
    return failures


async def zero_all(members: Sequence[Member], transfers: Sequence[Transfer]) -> list[Failure]:
    """Zero the place of every transfer whose member is active (their buffers are not used)."""

    def zero(transfer: Transfer) -> Awaitable[None]:
        member = members[transfer.slot]
        return member.present.write_zeroes(member.data_offset + transfer.offset, transfer.end - transfer.offset)

    return await settle([transfer for transfer in transfers if members[transfer.slot].active], zero)


async def settle(transfers: Sequence[Transfer], act: Callable[[Transfer], Awaitable[None]]) -> list[Failure]:
    """Do *act* on all transfers, together; the ones that raised an :class:`OrionError`."""
    failures: list[Failure] = []

    async def attempt(transfer: Transfer) -> None:
        try:
            await act(transfer)
        except OrionError as error:
            failures.append(Failure(transfer, error))

    if len(transfers) == 1:
        await attempt(transfers[0])
    else:
        async with trio.open_nursery() as nursery:
            for transfer in transfers:
                nursery.start_soon(attempt, transfer)
    return failures
