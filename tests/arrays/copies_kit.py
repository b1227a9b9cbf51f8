"""Engines that keep copies, without an array around them: RAM members, faults on demand, and where copies should be."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import trio

from orionfs.array.copies_upkeep import CopiesUpkeep
from orionfs.array.layout import MirrorLayout
from orionfs.array.member import Member
from orionfs.array.mirror import MirrorEngine
from orionfs.array.raid10 import Raid10Engine
from orionfs.array.raid10_layout import Raid10Layout
from orionfs.errors import MediaError, OrionError
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB

BLOCK = 512


@dataclass(frozen=True)
class Shape:
    """A layout (MD's number; 0 is RAID 1) on so many members, with a chunk and a component size."""

    name: str
    layout: int
    members: int
    chunk: int = 4 * KIB
    rows: int = 18

    def __str__(self) -> str:
        return f"{self.name}x{self.members}" + (f"-{self.chunk // KIB}K" if self.layout else "")

    @property
    def component(self) -> int:
        return self.rows * self.chunk

    def build(self, members: Sequence[Member], faults: Faults) -> CopiesUpkeep:
        if not self.layout:
            return MirrorEngine(members, MirrorLayout(self.component), faults)
        layout = Raid10Layout(self.chunk, self.members, self.component, self.layout)
        return Raid10Engine(members, layout, faults)


MIRRORS = [Shape("raid1", 0, 2, rows=85), Shape("raid1", 0, 3, rows=85)]
RAID10S = [
    Shape("n2", 0x102, 2),
    Shape("n2", 0x102, 3),
    Shape("n2", 0x102, 4),
    Shape("n2", 0x102, 5),
    Shape("n3", 0x103, 4),
    Shape("n3", 0x103, 5),
    Shape("n4", 0x104, 4),
    Shape("f2", 0x201, 2),
    Shape("f2", 0x201, 3),
    Shape("f2", 0x201, 4),
    Shape("f3", 0x301, 5),
    Shape("o2", 0x10201, 2),
    Shape("o2", 0x10201, 5),
    Shape("o3", 0x10301, 4),
    Shape("n2f2", 0x202, 5),
    Shape("n2", 0x102, 3, 128 * KIB, 4),
    Shape("f2", 0x201, 3, 128 * KIB, 4),
]
SHAPES = MIRRORS + RAID10S


@dataclass
class Faults:
    """What an array does when its engine complains, but for the superblocks."""

    engine: CopiesUpkeep | None = None
    failed: list[Member] = field(default_factory=list)
    corrected: list[Member] = field(default_factory=list)
    wanted: int = 0

    async def member_failed(self, member: Member, error: OrionError) -> None:
        engine = self.engine
        if member.state == "replacing":
            engine.members[member.slot].copy = None
        elif member.state not in ("active", "rebuilding"):
            return
        elif member.active and not survives(engine, {*lost(engine), member.slot}):
            raise MediaError(f"nothing can stand in for {member.label}: {error.message}")
        member.lose(error.message)
        self.failed.append(member)
        copy, member.copy = member.copy, None
        if copy is not None:
            copy.fill(copy.valid)
            engine.members[member.slot] = copy
        engine.member_changed()

    async def read_corrected(self, member: Member) -> None:
        self.corrected.append(member)

    def sync_wanted(self) -> None:
        self.wanted += 1


def lost(engine: CopiesUpkeep) -> set[int]:
    return {member.slot for member in engine.members if not member.active}


def survives(engine: CopiesUpkeep, gone: set[int]) -> bool:
    return all({place.slot for place in group} - gone for group in engine._groups)


def survivable(shape: Shape, most: int = 3) -> list[tuple[int, ...]]:
    """Every set of slots, not empty, that the shape can do without."""
    engine = shape.build([Member(slot, f"d{slot}", None, None, "missing") for slot in range(shape.members)], Faults())
    sets = [gone for count in range(1, most + 1) for gone in combinations(range(shape.members), count)]
    return [gone for gone in sets if len(gone) < shape.members and survives(engine, set(gone))]


@dataclass
class Stage:
    """An engine, the faulty devices of its members, and the RAM beneath."""

    shape: Shape
    engine: CopiesUpkeep
    faults: Faults
    faulty: list[FaultyDevice]
    ram: list[RamDevice]

    @property
    def size(self) -> int:
        return self.engine.layout.size

    async def read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        if not self.try_read(offset, buffer):
            await self.engine.read(offset, [buffer], length)
        return bytes(buffer)

    def try_read(self, offset: int, buffer: bytearray) -> bool:
        """As an array does it."""
        try:
            return self.engine.try_read(offset, [buffer])
        except OrionError:
            return False

    async def write(self, offset: int, data: bytes, cut: int = 0) -> None:
        await self.engine.write(offset, [data[:cut], data[cut:]] if 0 < cut < len(data) else [data], len(data))

    async def fill(self, seed: int = 0) -> bytearray:
        """Write everything; what was written."""
        data = random.Random(seed).randbytes(self.size)
        await self.write(0, data)
        return bytearray(data)

    async def lose(self, *slots: int) -> None:
        for slot in slots:
            await self.faults.member_failed(self.engine.members[slot], MediaError("taken away"))

    def places(self, offset: int) -> list[tuple[int, int]]:
        """(slot, member offset) of every copy of an array byte."""
        group, base, _run = self.engine._find(offset)
        return [(place.slot, base + place.delta) for place in self.engine._groups[group]]

    def new_member(self, slot: int) -> tuple[Member, FaultyDevice, RamDevice]:
        """A device full of garbage, and a member of it that nobody knows yet."""
        ram = RamDevice(f"new{slot}", self.shape.component + 4096, always_wait=self.ram[0].always_wait)
        ram.data[:] = random.Random(slot).randbytes(len(ram.data))
        faulty = FaultyDevice(ram)
        return make_member(slot, f"new{slot}", faulty), faulty, ram

    def check_copies(self, oracle: bytes, ram: Sequence[RamDevice] | None = None) -> None:
        """Every copy on every active member is what *oracle* says."""
        devices = ram or self.ram
        for at in range(0, self.size, BLOCK):
            for slot, where in self.places(at):
                if self.engine.members[slot].active:
                    stored = devices[slot].data[DATA + where : DATA + where + BLOCK]
                    assert stored == oracle[at : at + BLOCK], f"block at {at}: its copy on slot {slot} is wrong"

    def spoil(self, offset: int, slot: int, length: int = BLOCK) -> None:
        """Flip the copy of some array bytes that *slot* has."""
        for at in range(offset, offset + length, BLOCK):
            where = DATA + dict(self.places(at))[slot]
            block = self.ram[slot].data[where : where + BLOCK]
            self.ram[slot].data[where : where + BLOCK] = bytes(byte ^ 0x5A for byte in block)

    def unreadable(self, offset: int, slot: int, length: int = BLOCK, **script: object) -> None:
        """Make the copy of some array bytes on *slot* fail reads until they are written."""
        for at in range(offset, offset + length, BLOCK):
            where = DATA + dict(self.places(at))[slot]
            self.faulty[slot].fail("read", lambda: MediaError("bad sector"), forever=True, within=(where, where + 1))

    async def sync(self) -> None:
        """What a resync does."""
        sync = self.engine.sync
        while (run := sync.next_run(7)) is not None:
            await self.engine.sync_units(run[0], run[1] - run[0])
            sync.prove(*run)

    async def scrub(self, *, repair: bool, batch: int = 7) -> list[object]:
        found = []
        count = self.engine.sync.unit_count
        for first in range(0, count, batch):
            found += await self.engine.scrub_units(first, min(batch, count - first), repair=repair)
        return found


#: Where the data area of the members of a stage begins.
DATA = 4096


def make_member(slot: int, label: str, device: FaultyDevice | None) -> Member:
    member = Member(slot, label, device, None)
    member.data_offset = DATA
    member.data_size = device.geometry.size - DATA if device else 0
    return member


def set_up(shape: Shape, *, wait: bool = False) -> Stage:
    ram = [RamDevice(f"d{slot}", shape.component + DATA, always_wait=wait) for slot in range(shape.members)]
    faulty = [FaultyDevice(device) for device in ram]
    members = [make_member(slot, f"d{slot}", device) for slot, device in enumerate(faulty)]
    faults = Faults()
    faults.engine = shape.build(members, faults)
    return Stage(shape, faults.engine, faults, faulty, ram)


async def rebuild(engine: CopiesUpkeep, target: Member, batch: int = 3) -> None:
    """What a recovery does, in small steps."""
    while target.valid < engine.rebuild_end:
        low = target.valid
        await engine.rebuild(target, low, min(low + batch * engine.rebuild_unit, engine.rebuild_end))
        await trio.lowlevel.checkpoint()
