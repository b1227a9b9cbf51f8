"""The conformance suite: does a device keep the contract of :mod:`orionfs.device`?

One call for whoever writes a backend, a layer or an array level::

    async def test_my_device_keeps_the_contract():
        await check_device(make)        # make() opens a fresh one, at least 64 blocks long

The data checks keep a plain copy of what the device should hold and compare every byte.  All choices come from *seed*.
What no program can see from outside, such as whether a flush reached the medium, is left to the simulated disk.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

import trio

from orionfs.buffers import Buffer
from orionfs.errors import OutOfRange
from orionfs.extents import Kind
from orionfs.testing.dice import Dice
from orionfs.testing.trial import ConformanceError, Make, Trial, compare, garbage
from orionfs.units import round_down

#: One check.
Check: TypeAlias = Callable[[Trial], Awaitable[None]]

_PIECES = 1500  # more than the kernel takes in one vector


async def check_device(
    make: Make,
    *,
    reopen: Make | None = None,
    any_offset: bool = False,
    stores: bool = True,
    seed: int = 0,
    requests: int = 100,
    timeout_s: float = 120,
) -> None:
    """Raise :class:`ConformanceError` unless the device that *make* opens keeps the contract.

    The device may hold anything; it is overwritten.  *reopen* opens the same device again after it was closed, and its
    contents must still be there.  *any_offset* is for devices that take unaligned requests, ``stores=False`` for one
    that always reads zeros.  *requests* is how many random ones each check of contents makes.
    """
    with trio.move_on_after(timeout_s):
        device = await make()
        try:
            trial = Trial(device, Dice(seed), any_offset=any_offset, stores=stores, requests=requests)
            await trial.begin()
            for check in CHECKS:
                await _run(check, trial)
            await device.aclose()
            await device.aclose()
        finally:
            with contextlib.suppress(Exception):  # whatever went wrong before is the news
                await device.aclose()
        if reopen is not None:
            again = await reopen()
            try:
                await trial.compare_all("after it was closed and opened again", again)
            finally:
                await again.aclose()
        return
    raise ConformanceError(f"the device hangs: its checks took more than {timeout_s:g} s")


async def _run(check: Check, trial: Trial) -> None:
    try:
        await check(trial)
    except Exception as error:
        reason = str(error) if isinstance(error, ConformanceError) else f"the device raised {error!r}"
        raise ConformanceError(f"{check.__name__}: {reason}") from error


# --- the checks ----------------------------------------------------------------------------------------------------


async def check_round_trips(trial: Trial) -> None:
    """What was written is read, through any scatter and gather; nothing else changes."""
    for _ in range(trial.requests):
        offset, length = trial.pick_range()
        if trial.dice.below(2):
            await trial.write(offset, trial.dice.bytes(length))
        await trial.check_range(*trial.pick_range(), "in the middle of random requests")
        await trial.check_range(offset, length, "after it was written")
    await trial.compare_all("after random requests")


async def check_many_pieces(trial: Trial) -> None:
    """One request may have more pieces than the kernel takes at once."""
    length = min(trial.span, round_down(64 * trial.block, trial.block))
    await trial.write(0, trial.dice.bytes(length), _PIECES)
    await trial.check_range(0, length, f"after a write of {_PIECES} pieces", _PIECES)


async def check_empty_requests(trial: Trial) -> None:
    """No bytes are a request too, and change nothing."""
    device = trial.device
    await device.read(0, [])
    await device.write(0, [])
    await device.write(trial.block, [b""])
    device.try_read(0, [])
    device.try_write(0, [])
    await device.write_zeroes(0, 0)
    await device.discard(0, 0)
    if [extent async for extent in device.extents(0, 0)]:
        raise ConformanceError("an empty range has extents")
    await trial.compare_all("after empty requests")


async def check_last_block(trial: Trial) -> None:
    """The device ends where its geometry says."""
    device, block = trial.device, trial.block
    last = device.geometry.size - block
    data = trial.dice.bytes(block)
    found = garbage(block)
    await device.write(last, [data])
    await device.read(last, [found])
    if found != (data if trial.stores else bytes(block)):
        raise ConformanceError("the last block does not hold what was written to it")
    if last < trial.span:
        trial.expect(last, data)


async def check_try_calls(trial: Trial) -> None:
    """``try_read`` and ``try_write`` do all or nothing, and agree with ``read`` and ``write``."""
    device = trial.device
    for _ in range(trial.requests):
        offset, length = trial.pick_range()
        data = trial.dice.bytes(length)
        if device.try_write(offset, [data]):
            trial.expect(offset, data)
        found = garbage(length)
        await device.read(offset, [found])
        compare(found, trial.expected[offset : offset + length], offset, "after try_write")
        found = garbage(length)
        if device.try_read(offset, [found]):
            compare(found, trial.expected[offset : offset + length], offset, "in try_read")
    await trial.compare_all("after try_write")


async def check_refusals(trial: Trial) -> None:
    """What is not aligned or not inside the device raises OutOfRange and changes nothing."""
    size, block = trial.device.geometry.size, trial.block
    outside = [(size, block), (size - block, 2 * block), (-block, block), (-block, 2 * block), (size + 2**40, block)]
    unaligned = [] if trial.any_offset else [(1, block), (0, block - 1), (block // 2, block // 2), (0, block + 1)]
    for offset, length in outside + unaligned:
        await _expect_refusal(trial, offset, length)
    await trial.compare_all("after requests that were refused")


async def _expect_refusal(trial: Trial, offset: int, length: int) -> None:
    device = trial.device
    data = trial.dice.bytes(length)

    async def list_extents() -> None:
        [extent async for extent in device.extents(offset, length)]

    async def attempt(call: Callable[[int, Sequence[Buffer]], bool], buffer: Buffer) -> None:
        if not call(offset, [buffer]):
            raise OutOfRange("it would have to wait, and the caller meets the error later")

    for verb, request in {
        "read": lambda: device.read(offset, [bytearray(length)]),
        "write": lambda: device.write(offset, [data]),
        "try_read": lambda: attempt(device.try_read, bytearray(length)),
        "try_write": lambda: attempt(device.try_write, data),
        "write_zeroes": lambda: device.write_zeroes(offset, length),
        "discard": lambda: device.discard(offset, length),
        "extents": list_extents,
    }.items():
        try:
            await request()
        except OutOfRange:
            continue
        except Exception as error:
            raise ConformanceError(f"{verb} of {length} bytes at {offset} raised {error!r}, not OutOfRange") from error
        raise ConformanceError(f"{verb} of {length} bytes at {offset} was not refused")


async def check_zeroes(trial: Trial) -> None:
    """A range that was zeroed reads as zeros; what is beside it stays."""
    await trial.write(0, trial.dice.bytes(trial.span))
    for _ in range(trial.requests // 4 + 1):
        await trial.write(*_random_data(trial))
        offset, length = trial.pick_range()
        await trial.device.write_zeroes(offset, length)
        trial.expect(offset, bytes(length))
        await trial.compare_all("after write_zeroes")
        await trial.write(offset, trial.dice.bytes(length))
        await trial.compare_all("when it was written again after write_zeroes")


async def check_discards(trial: Trial) -> None:
    """A block that was discarded holds what it held, or zeros, and keeps to that; what is beside it stays."""
    await trial.write(0, trial.dice.bytes(trial.span))
    for _ in range(trial.requests // 4 + 1):
        await trial.write(*_random_data(trial))
        offset, length = trial.pick_range()
        before = bytes(trial.expected[offset : offset + length])
        await trial.device.discard(offset, length)
        found = await trial.read(offset, length)
        trial.either(found, offset, before, bytes(length), when="after a discard")
        await trial.compare_all("after a discard")


async def check_extents(trial: Trial) -> None:
    """Extents cover a range in order and without gaps, and only what reads as zeros is called a hole or zero."""
    await trial.device.write_zeroes(0, trial.span)
    trial.expect(0, bytes(trial.span))
    for _ in range(6):
        await trial.write(*_random_data(trial))
    for offset, length in [(0, trial.span), *(trial.pick_range() for _ in range(8))]:
        position = offset
        for extent in [extent async for extent in trial.device.extents(offset, length)]:
            if extent.offset != position or extent.length <= 0 or extent.end > offset + length:
                raise ConformanceError(f"{extent} does not continue the extents of [{offset}, {offset + length})")
            if extent.kind is not Kind.DATA and any(trial.expected[extent.offset : extent.end]):
                raise ConformanceError(f"{extent} is called a {extent.kind.value} and holds data")
            position = extent.end
        if position != offset + length:
            raise ConformanceError(f"the extents of [{offset}, {offset + length}) end at {position}")


def _random_data(trial: Trial) -> tuple[int, bytes]:
    offset, length = trial.pick_range()
    return offset, trial.dice.bytes(length)


async def check_concurrency(trial: Trial) -> None:
    """Neighbors that are written and read at the same time do not disturb each other."""
    tasks = 8
    await trial.write(0, trial.dice.bytes(trial.span))
    wide = round_down(trial.span // tasks, trial.unit)
    narrow = trial.block + trial.block // 3 if trial.any_offset else 3 * trial.block  # neighbors meet inside a block
    for width in (wide, narrow):
        calls = (partial(_disturb, trial, index * width, width, trial.requests // tasks + 1) for index in range(tasks))
        await trial.together(*calls)
        await trial.compare_all("after concurrent requests")


async def _disturb(trial: Trial, start: int, width: int, requests: int) -> None:
    for _ in range(requests):
        offset, length = trial.pick_range(start, start + width)
        match trial.dice.below(4):
            case 0:
                await trial.device.write_zeroes(offset, length)
                trial.expect(offset, bytes(length))
            case 1:
                await trial.device.flush()
            case _:
                await trial.write(offset, trial.dice.bytes(length))
        await trial.check_range(start, width, "while its neighbors were written")


async def check_overlaps(trial: Trial) -> None:
    """Where writes overlap that are in flight together, each block is from one of them."""
    for _ in range(trial.requests // 10 + 1):
        length = min(trial.span, 16 * trial.block)
        offset = trial.dice.below((trial.span - length) // trial.block + 1) * trial.block
        first, second = trial.dice.bytes(length), trial.dice.bytes(length)
        write = trial.device.write
        await trial.together(partial(write, offset, [first]), partial(write, offset, [second]))
        found = await trial.read(offset, length)
        if trial.stores:
            trial.either(found, offset, first, second, when="after two writes at the same place")
    await trial.compare_all("after writes at the same place")


async def check_cancellation(trial: Trial) -> None:
    """A write that was cancelled leaves each block old or new; a cancelled read leaves everything."""
    await trial.write(0, trial.dice.bytes(trial.span))
    for patience in range(12):
        offset, length = trial.pick_range()
        offset, length = round_down(offset, trial.block), max(trial.block, round_down(length, trial.block))
        before, data = bytes(trial.expected[offset : offset + length]), trial.dice.bytes(length)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trial.device.write, offset, [data])
                nursery.start_soon(trial.device.read, 0, [bytearray(trial.span)])
                for _ in range(patience):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        found = await trial.read(offset, length)
        if trial.stores:
            trial.either(found, offset, before, data, when="after a write that was cancelled")
        await trial.compare_all("after requests that were cancelled")


async def check_flush(trial: Trial) -> None:
    """A flush can be had at any time, again and again, and changes nothing."""
    await trial.write(0, trial.dice.bytes(trial.span))
    for _ in range(3):
        await trial.write(*_random_data(trial))
        await trial.device.flush()
        await trial.device.flush()
    await trial.compare_all("after a flush")


async def check_description(trial: Trial) -> None:
    """The device describes itself in words and figures that JSON takes."""
    device = trial.device
    description = device.describe()
    if description.name != device.name or description.geometry != device.geometry:
        raise ConformanceError("describe() tells another name or geometry than the device")
    if not description.kind or not description.state:
        raise ConformanceError("describe() leaves out kind or state")
    if not all(isinstance(value, int) for value in description.counters.values()):
        raise ConformanceError("describe() counts with something else than integers")
    try:
        json.dumps(description.to_json(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(f"describe() has something that JSON does not take: {error}") from error
    allocated = device.allocated()
    if not isinstance(allocated, int) or not 0 <= allocated <= device.geometry.size:
        raise ConformanceError(f"allocated() says {allocated} of {device.geometry.size} bytes")


#: Every check, in the order in which they run.
CHECKS: tuple[Check, ...] = (
    check_description,
    check_round_trips,
    check_many_pieces,
    check_empty_requests,
    check_last_block,
    check_try_calls,
    check_refusals,
    check_zeroes,
    check_discards,
    check_extents,
    check_concurrency,
    check_overlaps,
    check_cancellation,
    check_flush,
    check_description,
)
