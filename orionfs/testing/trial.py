"""Trial: a device under test beside a plain copy of what it should hold."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from orionfs.buffers import Buffer
from orionfs.device import StorageDevice
from orionfs.testing.dice import Dice
from orionfs.units import MIB, SECTOR, round_down, round_up

#: Where the checks of contents stay: the first bytes of the device.
SPAN = MIB
_LEAST_BLOCKS = 64

#: Opens a device.
Make: TypeAlias = Callable[[], Awaitable[StorageDevice]]


class ConformanceError(AssertionError):
    """The device broke the contract; the message says how."""


@dataclass(slots=True)
class Trial:
    """A device under test, and what it should hold."""

    device: StorageDevice
    dice: Dice
    any_offset: bool
    stores: bool
    requests: int
    unit: int = 1
    block: int = SECTOR
    span: int = 0
    expected: bytearray = field(default_factory=bytearray)

    async def begin(self) -> None:
        """Learn the shape of the device and what it holds."""
        geometry = self.device.geometry
        self.block = geometry.logical_block
        self.unit = 1 if self.any_offset else self.block
        check_geometry(self.device)
        self.span = round_down(min(SPAN, geometry.size), self.block)
        self.expected = garbage(self.span)
        await self.device.read(0, [self.expected])
        if not self.stores and any(self.expected):
            raise ConformanceError("a device that stores nothing read something else than zeros")

    # --- requests ----------------------------------------------------------------------------------------------------

    def pick_range(self, start: int = 0, end: int | None = None) -> tuple[int, int]:
        """A random range of [start, end): often small, sometimes all of it, never empty."""
        end = self.span if end is None else end
        units = (end - start) // self.unit
        longest = (1, 8 * self.block // self.unit, 256 * self.block // self.unit, units)[self.dice.below(4)]
        count = 1 + self.dice.below(min(longest, units))
        return start + self.dice.below(units - count + 1) * self.unit, count * self.unit

    async def read(self, offset: int, length: int, pieces: int = 0) -> bytes:
        """What the device holds, read in one of the ways that the contract offers."""
        parts = _Parts(self.dice, length, pieces)
        parts.fill(garbage(length))
        await self._request("read", self.device.try_read, self.device.read, offset, parts.views)
        parts.check_guards()
        return parts.joined()

    async def write(self, offset: int, data: bytes, pieces: int = 0) -> None:
        """Write *data*; what the device should hold changes with it."""
        parts = _Parts(self.dice, len(data), pieces)
        parts.fill(data)
        await self._request("write", self.device.try_write, self.device.write, offset, parts.mixed())
        parts.check_guards()
        if parts.joined() != data:
            raise ConformanceError(f"a write of {len(data)} bytes at {offset} changed the buffers of its caller")
        self.expect(offset, data)

    async def _request(
        self,
        verb: str,
        attempt: Callable[[int, Sequence[Buffer]], bool],
        request: Callable[[int, Sequence[Buffer]], Awaitable[None]],
        offset: int,
        buffers: Sequence[Buffer],
    ) -> None:
        try:
            if self.dice.below(2) and attempt(offset, buffers):
                return
            await request(offset, buffers)
        except Exception as error:
            length = sum(map(len, buffers))
            raise ConformanceError(f"{verb} of {length} bytes at {offset} raised {error!r}") from error

    def expect(self, offset: int, data: bytes) -> None:
        """The device should hold *data* at *offset* from now on."""
        if self.stores:
            self.expected[offset : offset + len(data)] = data

    async def check_range(self, offset: int, length: int, when: str, pieces: int = 0) -> None:
        """Read a range and compare it."""
        found = await self.read(offset, length, pieces)
        compare(found, self.expected[offset : offset + length], offset, when)

    async def compare_all(self, when: str, device: StorageDevice | None = None) -> None:
        """Compare all of the contents."""
        found = garbage(self.span)
        await (device or self.device).read(0, [found])
        compare(found, self.expected, 0, when)

    def either(self, found: bytes, offset: int, *candidates: bytes, when: str) -> None:
        """Check that each block that was *found* at *offset* is one of the *candidates*', and expect what it is."""
        start, end = offset, offset + len(found)
        while start < end:
            stop = min(round_up(start + 1, self.block), end)
            part = slice(start - offset, stop - offset)
            if not any(found[part] == candidate[part] for candidate in candidates):
                raise ConformanceError(f"{when}, the block at {start} holds none of what it may")
            start = stop
        self.expect(offset, found)

    async def together(self, *calls: Callable[[], Awaitable[None]]) -> None:
        """Run all *calls* at the same time; the first failure is raised when all have ended."""
        failures: list[Exception] = []

        async def run(call: Callable[[], Awaitable[None]]) -> None:
            try:
                await call()
            except Exception as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(run, call)
        if failures:
            raise failures[0]


class _Parts:
    """Memory for one request, cut at random bytes into pieces, with guards between them."""

    _GUARD = b"\xa5\x5a\xc3"

    def __init__(self, dice: Dice, length: int, pieces: int = 0) -> None:
        count = min(pieces or 1 + dice.below(6) * dice.below(2), max(length, 1))
        cuts = sorted(dice.below(length + 1) for _ in range(count - 1))
        self._memory = bytearray(self._GUARD)
        edges = [0, *cuts, length]
        places = []
        for start, end in itertools.pairwise(edges):
            places.append((len(self._memory), len(self._memory) + end - start))
            self._memory += bytes(end - start) + self._GUARD
        self._guards = [0, *(end for _, end in places)]
        whole = memoryview(self._memory)
        self.views = [whole[start:end] for start, end in places]
        self._kinds = [dice.below(3) for _ in places]

    def fill(self, data: bytes | bytearray) -> None:
        start = 0
        for view in self.views:
            view[:] = data[start : start + len(view)]
            start += len(view)

    def mixed(self) -> list[Buffer]:
        """The pieces as each kind of buffer that a caller may hand in."""
        return [(view, bytes(view), bytearray(view))[kind] for view, kind in zip(self.views, self._kinds, strict=True)]

    def joined(self) -> bytes:
        return b"".join(self.views)

    def check_guards(self) -> None:
        for place in self._guards:
            if self._memory[place : place + len(self._GUARD)] != self._GUARD:
                raise ConformanceError("a request wrote beyond the buffers it was given")


def garbage(length: int) -> bytearray:
    """Memory to read into: a device that leaves it as it is must not look as if it had read zeros."""
    return bytearray(b"\xee") * length


def compare(found: bytes | bytearray, expected: bytes | bytearray, offset: int, when: str) -> None:
    """Raise ConformanceError unless the bytes that were *found* at *offset* are as *expected*."""
    if found == expected:
        return
    at = next(index for index, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    raise ConformanceError(f"{when}, byte {offset + at} reads {found[at]:#04x} and should be {expected[at]:#04x}")


def check_geometry(device: StorageDevice) -> None:
    """Raise ConformanceError unless the device has a possible shape."""
    geometry = device.geometry
    block = geometry.logical_block
    if block < SECTOR or block & (block - 1):
        raise ConformanceError(f"its logical block of {block} bytes is not a power of two from {SECTOR} up")
    if geometry.size % block or geometry.size < _LEAST_BLOCKS * block:
        raise ConformanceError(f"its {geometry.size} bytes are not at least {_LEAST_BLOCKS} whole blocks")
    if geometry.preferred_io < 1 or geometry.stripe_width < 0 or geometry.atomic_write < 1:
        raise ConformanceError(f"its geometry makes no sense: {geometry}")
