"""Planted bugs: each is a mistake that a campaign has to find, or it is not worth its time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from unittest import mock

from orionfs.array.bookkeeping import Mark
from orionfs.array.superblock import OFFSET
from orionfs.array.transfer import Transfer, write_all


class Bug(NamedTuple):
    """A patch for a running array, the level where it shows, and the operation that has to fail for that, if any.

    ``cancel`` is not an operation: requests have to be given up; ``manage`` is not one either: members have to come and
    go.  *consistency* is that of the array, drawn if empty.  A bug of modules, not of one array, is an ``around``.
    """

    name: str
    level: str
    fault: str
    patch: Callable[[Any], None] | None
    consistency: str = ""
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


def swap(thing: Any, name: str, new: Any) -> Any:
    """Replace a method of one object; what was there.  An unknown name is an error: the plant would be nothing."""
    old = getattr(thing, name)
    setattr(thing, name, new)
    return old


async def nothing(*_arguments: Any) -> None:
    """What the bug does instead."""


def no_dirty_mark(array: Any) -> None:
    async def mark() -> None:
        array._mark = Mark.DIRTY
        array._dirtied.set()

    swap(array, "_mark_dirty", mark)


def clean_without_flush(array: Any) -> None:
    swap(array, "_flush_or_lose", nothing)


def flush_does_nothing(array: Any) -> None:
    swap(array, "flush", nothing)


def superblocks_not_flushed(array: Any) -> None:
    async def put(member: Any, image: bytes) -> None:
        await member.present.write(OFFSET, [image])

    swap(array._superblocks, "_put", put)


def loss_not_recorded(array: Any) -> None:
    async def forget() -> None:
        array._unrecorded = False

    swap(array, "_record_losses", forget)


def loss_recorded_at_the_next_flush(array: Any) -> None:
    record = swap(array, "_record_losses", nothing)
    flush = array.flush

    async def late() -> None:
        await record()
        await flush()

    swap(array, "flush", late)


def flush_failures_ignored(array: Any) -> None:
    flush_members = array._flush_members

    async def all_well() -> list[Any]:
        await flush_members()
        return []

    swap(array, "_flush_members", all_well)


def write_failures_ignored(array: Any) -> None:
    swap(array._engine, "_settle", nothing)


def last_member_written_late(array: Any) -> None:
    """Acknowledges before the last of the members that a write concerns has it: parity, or the second copy."""
    engine = array._engine
    late: list[Transfer] = []

    async def put_all_but_one(members: Any, transfers: list[Transfer]) -> list[Any]:
        await drain()
        last = [each for each in transfers if each.slot == max(other.slot for other in transfers)]
        late.extend(_copy(transfer) for transfer in last)
        return await write_all(members, [each for each in transfers if each not in last])

    async def drain() -> None:
        waiting, late[:] = late[:], []
        await write_all(engine.members, waiting)

    async def flush_members() -> Any:
        await drain()
        return await flush()

    async def write(offset: int, buffers: Any, length: int) -> None:
        module = sys.modules[type(engine).write.__module__]
        with mock.patch.object(module, "write_all", put_all_but_one):
            await original(offset, buffers, length)

    original = swap(engine, "write", write)
    flush = swap(array, "_flush_members", flush_members)


def _copy(transfer: Transfer) -> Transfer:
    buffers = [memoryview(bytes(buffer)) for buffer in transfer.buffers]
    return Transfer(transfer.slot, transfer.offset, transfer.end, buffers)


def resync_does_nothing(array: Any) -> None:
    swap(array._engine, "sync_units", nothing)


def half_done_writes_forgotten(array: Any) -> None:
    swap(array._engine, "_suspect", lambda _first, _end: None)


def resync_never_ends(array: Any) -> None:
    async def too_slow(_unit: int, _count: int) -> None:
        await array.clock.sleep(1e6)

    swap(array._engine, "sync_units", too_slow)


def resync_stops_halfway(array: Any) -> None:
    sync = array._engine.sync
    if sync.position < sync.unit_count:
        sync.position = max(sync.position, sync.unit_count // 2)


def no_resync_after_an_unclean_stop(array: Any) -> None:
    array._engine.sync.position = array._engine.sync.unit_count


def reads_any_copy_while_they_may_differ(array: Any) -> None:
    engine = array._engine
    engine.policies.read_policy = "round-robin"
    swap(engine, "_free", lambda _offset, _length: True)


def zeros_for_what_cannot_be_read(array: Any) -> None:
    async def zeros(transfer: Transfer, _error: Any) -> None:
        for view in transfer.buffers:
            view[:] = bytes(len(view))

    swap(array._engine, "_restore", zeros)


BUGS = [
    Bug("no dirty mark", "raid1", "", no_dirty_mark),
    Bug("no dirty mark", "raid5", "", no_dirty_mark),
    Bug("marked clean without a flush", "raid1", "", clean_without_flush),
    Bug("marked clean without a flush", "raid5", "", clean_without_flush),
    Bug("flush does nothing", "linear", "", flush_does_nothing),
    Bug("flush does nothing", "raid0", "", flush_does_nothing),
    Bug("flush does nothing", "raid1", "", flush_does_nothing),
    Bug("flush does nothing", "raid5", "", flush_does_nothing),
    Bug("superblocks are not flushed", "raid1", "", superblocks_not_flushed),
    Bug("superblocks are not flushed", "raid5", "", superblocks_not_flushed),
    Bug("a loss is not recorded", "raid1", "write", loss_not_recorded),
    Bug("a loss is not recorded", "raid5", "write", loss_not_recorded),
    Bug("a loss is recorded at the next flush", "raid1", "write", loss_recorded_at_the_next_flush),
    Bug("flush failures are ignored", "raid1", "flush", flush_failures_ignored),
    Bug("flush failures are ignored", "raid5", "flush", flush_failures_ignored),
    Bug("write failures are ignored", "raid1", "write", write_failures_ignored),
    Bug("write failures are ignored", "raid5", "write", write_failures_ignored),
    Bug("acknowledged before the last copy", "raid1", "write", last_member_written_late),
    Bug("acknowledged before the parity", "raid5", "write", last_member_written_late),
    Bug("the resync does nothing", "raid1", "", resync_does_nothing),
    Bug("the resync does nothing", "raid5", "", resync_does_nothing),
    Bug("the resync stops halfway", "raid5", "", resync_stops_halfway),
    Bug("no resync after an unclean stop", "raid1", "", no_resync_after_an_unclean_stop),
    Bug("no resync after an unclean stop", "raid5", "", no_resync_after_an_unclean_stop),
    Bug("any copy is read while they may differ", "raid1", "", reads_any_copy_while_they_may_differ),
    Bug("half-done writes are forgotten", "raid1", "cancel", half_done_writes_forgotten),
    Bug("half-done writes are forgotten", "raid5", "cancel", half_done_writes_forgotten),
    Bug("zeros for what cannot be read", "raid5", "read", zeros_for_what_cannot_be_read),
]
