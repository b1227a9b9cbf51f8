"""Arrays over RAM for tests: made like real ones, with every member open to inspection and to faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import trio

from orionfs.array.array import Array
from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB, MIB

ENVIRONMENT = Environment()

#: Every level with every layout, and more member counts worth trying.
SHAPES = [
    *[
        (level.name, layout, max(level.minimum_members + 1, level.fewest(number)))
        for level in LEVELS.values()
        for layout, number in level.layouts.items()
    ],
    ("linear", "", 1),
    ("raid0", "original", 4),
    ("raid1", "", 2),
    ("raid5", "left-symmetric", 2),
    ("raid5", "left-symmetric", 5),
    ("raid6", "left-symmetric", 4),
    ("raid10", "n2", 4),
    ("raid10", "f2", 4),
    ("raid10", "o2", 5),
]


def survivable(level: str, layout: str, members: int) -> list[tuple[int, ...]]:
    """Every set of slots, not empty, that such an array can do without."""
    rules = LEVELS[level]
    number = rules.layouts[layout or rules.default_layout]
    sets = [gone for count in range(1, members) for gone in combinations(range(members), count)]
    return [gone for gone in sets if rules.survives(number, members, gone)]


#: Those that can do without some member.
REDUNDANT = [shape for shape in SHAPES if survivable(*shape)]


@dataclass
class Events:
    """Collects what an array reports."""

    seen: list[tuple[str, str]] = field(default_factory=list)

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> object:
        self.seen.append((kind, message))
        return None

    def kinds(self) -> list[str]:
        return [kind for kind, _message in self.seen]


def ram_members(sizes: Sequence[int], *, always_wait: bool = False) -> list[RamDevice]:
    return [RamDevice(f"d{slot}", size, always_wait=always_wait) for slot, size in enumerate(sizes)]


async def format_members(devices: Sequence[StorageDevice], level: str, layout: str = "", chunk: int = 4 * KIB) -> None:
    rules = LEVELS[level]
    spec = MdSpec(
        level=rules.md_level,
        name="test",
        layout=rules.layouts[layout or rules.default_layout],
        chunksize=chunk // 512 if rules.chunked else 0,
    )
    await create_array(devices, spec=spec, environment=ENVIRONMENT, freshly_made=True)


async def start(devices: Sequence[StorageDevice | None], *, events: Events | None = None, **options: Any) -> Array:
    options.setdefault("consistency", "resync")  # the journal has tests of its own
    sources = [
        Source(f"d{slot}", device, "" if device is not None else "not there") for slot, device in enumerate(devices)
    ]
    return await assemble("test", sources, environment=ENVIRONMENT, events=events or Events(), **options)


@asynccontextmanager
async def running(array: Array) -> AsyncIterator[Array]:
    """*array* with its background work; closed at the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(array.run)
        try:
            yield array
        finally:
            with trio.CancelScope(shield=True):
                await array.aclose()


async def make(
    level: str,
    members: int,
    *,
    layout: str = "",
    chunk: int = 4 * KIB,
    size: int = 2 * MIB,
    sizes: Sequence[int] | None = None,
    always_wait: bool = False,
    events: Events | None = None,
    **options: Any,
) -> tuple[Array, list[FaultyDevice], list[RamDevice]]:
    """A new array, the faulty devices it runs on, and the RAM beneath."""
    ram = ram_members(sizes or [size] * members, always_wait=always_wait)
    await format_members(ram, level, layout, chunk)
    faulty = [FaultyDevice(device) for device in ram]
    return await start(faulty, events=events, **options), faulty, ram


def reopened(ram: Sequence[RamDevice], *, without: Sequence[int] = ()) -> list[RamDevice | None]:
    """The same media in new devices, as after a restart; slots in *without* are not there."""
    devices: list[RamDevice | None] = []
    for slot, old in enumerate(ram):
        device = RamDevice(old.name, old.geometry.size, always_wait=old.always_wait)
        device.data[:] = old.data
        devices.append(None if slot in without else device)
    return devices


async def read(array: StorageDevice, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    await array.read(offset, [buffer])
    return bytes(buffer)
