"""Arrays as subjects of campaigns: toy geometry, drawn from a seed or given."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.superblock import OFFSET, RESYNC_DONE, ROLE_FAULTY, SIZE, Superblock
from orionfs.testing.crash import DiskState, load
from orionfs.testing.oracle import Mask, Violation
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation
from orionfs.units import KIB, MIB, SECTOR

from .campaign import running

#: Where mdadm puts the data of a member this small.
DATA = MIB
#: A resync of some hundred KiB that takes longer than this many simulated seconds hangs.
PATIENCE_S = 60


class Event(NamedTuple):
    kind: str
    message: str
    severity: str


class Events:
    """Keeps the events of one array and puts them into the trace; logs nothing."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.seen: list[Event] = []

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> None:
        self._sim.trace(kind, subject, message)
        self.seen.append(Event(kind, message, severity))


@dataclass(frozen=True)
class ArraySubject:
    """An array of *level* with members whose data areas have these *sizes* (bytes).

    ``absent`` are left out at assembly; ``force`` insists.  ``patch`` is called with each array that is made, to plant
    a bug.
    """

    level: str
    layout: str
    chunk: int
    sizes: tuple[int, ...]
    logical_block: int = SECTOR
    absent: frozenset[str] = frozenset()
    force: bool = False
    patch: Callable[[Any], None] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        layout = f" {self.layout}" if self.layout else ""
        sizes = ", ".join(f"{size // KIB}K" for size in self.sizes)
        return f"{self.level}{layout}, chunk {self.chunk // KIB}K, data areas {sizes}, blocks {self.logical_block}"

    @property
    def redundant(self) -> bool:
        return self.level in ("raid1", "raid5")

    def without(self, *names: str) -> ArraySubject:
        return replace(self, absent=self.absent | set(names))

    # --- part of campaign.Subject ----------------------------------------------------------------------------------

    def make_disks(self, sim: Simulation) -> list[SimDisk]:
        return [
            SimDisk(f"d{slot}", DATA + size, machine=sim.machine, logical_block=self.logical_block)
            for slot, size in enumerate(self.sizes)
        ]

    async def create(self, sim: Simulation, disks: Sequence[SimDisk]) -> None:
        level = LEVELS[self.level]
        layout = level.layouts[self.layout or level.default_layout]
        spec = MdSpec(level.md_level, "sim", layout, self.chunk // SECTOR)
        await create_array(disks, spec=spec, environment=sim.environment, freshly_made=True)

    @asynccontextmanager
    async def open(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        sources = [
            Source(disk.name, None, "it is not there") if disk.name in self.absent else Source(disk.name, disk)
            for disk in disks
        ]
        events = Events(sim)
        array = await assemble("sim", sources, environment=sim.environment, events=events, force=self.force)
        array.sim_events = events
        if self.patch is not None:
            self.patch(array)
        async with running(sim, array, array.run):
            yield array

    async def settle(self, sim: Simulation, device: Any) -> None:
        clock = sim.environment.clock
        end = clock.monotonic() + PATIENCE_S
        while device._engine.sync.needed and device._engine.can_sync:
            if clock.monotonic() > end:
                raise Violation(f"the resync does not end: {device.describe().details}")
            await clock.sleep(0.05)

    def check_redundancy(self, disks: Sequence[SimDisk]) -> None:
        """The disks of a closed array: clean, one event count, and copies or parity that agree."""
        if not self.redundant:
            return
        states = [disk.state() for disk in disks]
        now = standing(states)
        current = [disk for disk in disks if disk.name not in now.lost]
        if len(current) == 1 or (self.level == "raid5" and len(current) < len(disks)):
            return  # nothing is left that could agree
        if now.dirty:
            raise Violation("the array was closed and is not clean")
        length = max(mark.size for state in states if (mark := read_superblock(state))) * SECTOR
        areas = [np.frombuffer(disk.content(DATA, length), np.uint8) for disk in current]
        wrong = reduce(np.bitwise_xor, areas) if self.level == "raid5" else _differences(areas)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise Violation(f"the array is clean, and its redundancy does not agree at byte {at} of the data areas")

    # --- what only arrays have -------------------------------------------------------------------------------------

    def stripes_of(self, blocks: Mask) -> Mask:
        """The blocks that share a stripe with any of *blocks*."""
        if self.level != "raid5":
            return blocks
        width = (len(self.sizes) - 1) * self.chunk // SECTOR
        return np.repeat(blocks.reshape(-1, width).any(axis=1), width)


def _differences(areas: Sequence[np.ndarray[Any, Any]]) -> Any:
    return reduce(np.bitwise_or, [area ^ areas[0] for area in areas])


def read_superblock(state: DiskState) -> Superblock | None:
    return Superblock.parse(b"".join(load(state.visible, OFFSET, SIZE)), state.size)


class Standing(NamedTuple):
    """What the superblocks of some disks say, read without the code under test."""

    dirty: bool
    lost: tuple[str, ...]


def standing(states: Sequence[DiskState], absent: frozenset[str] = frozenset()) -> Standing:
    """By the newest superblocks alone: is the array dirty, and which members do they disown or miss?"""
    marks = {state.name: mark for state in states if state.name not in absent and (mark := read_superblock(state))}
    events = max(mark.events for mark in marks.values())
    newest = [mark for mark in marks.values() if mark.events == events]
    lost = [name for name, mark in marks.items() if any(_disowned(mark, other) for other in newest)]
    dirty = any(mark.resync_offset != RESYNC_DONE for mark in newest)
    return Standing(dirty, tuple(lost) + tuple(sorted(absent)))


def _disowned(mark: Superblock, other: Superblock) -> bool:
    return other.role_of(mark.dev_number) >= ROLE_FAULTY


def draw(seed: int, level: str | None = None) -> ArraySubject:
    """A toy array, all of it drawn from *seed*."""
    generator = random.Random(f"subject/{seed}")
    name = level or generator.choice(sorted(LEVELS))
    rules = LEVELS[name]
    layout = generator.choice(sorted(rules.layouts)) if len(rules.layouts) > 1 else ""
    chunk = generator.choice((4 * KIB, 4 * KIB, 8 * KIB)) if rules.chunked else 0
    block = generator.choice((512, 512, 512, 4096))
    match name:
        case "raid1":
            sizes = [generator.randrange(5, 36) * 4 * KIB] * generator.choice((2, 2, 3))
        case "raid5":
            count = generator.choice((2, 3, 3, 4, 5))
            sizes = [generator.randrange(3, 9) * chunk] * count
        case "raid0":
            sizes = [generator.randrange(3, 9) * chunk for _ in range(generator.choice((2, 3)))]
        case _:
            sizes = [generator.randrange(3, 9) * 4 * KIB for _ in range(generator.choice((1, 2, 3)))]
    if name in ("raid1", "raid5"):  # the surplus of larger members is not used
        sizes = [size + generator.choice((0, 0, 4 * KIB)) for size in sizes]
    return ArraySubject(name, layout, chunk, tuple(sizes), block)
