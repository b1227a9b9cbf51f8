"""Engines with parity, without an array around them: RAM members, faults on demand, and what members should hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any

from orionfs.array.engine import RowWrite
from orionfs.array.layout import StripedLayout, raid4_layout, raid5_layout, raid6_layout
from orionfs.array.levels import LEVELS, Level
from orionfs.array.member import Member
from orionfs.array.parity import ParityEngine
from orionfs.array.transfer import Transfer
from orionfs.errors import MediaError, OrionError
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB

BLOCK = 512
#: Where the data area of the members of a stage begins.
DATA = 4096


@dataclass(frozen=True)
class Shape:
    """A level and layout on so many members, with a chunk and so many stripes."""

    level: str
    layout: str
    members: int
    chunk: int = 4 * KIB
    rows: int = 12

    def __str__(self) -> str:
        return "-".join(filter(None, (self.level, self.layout, f"x{self.members}", f"{self.chunk // KIB}K")))

    @property
    def rules(self) -> Level:
        return LEVELS[self.level]

    @property
    def component(self) -> int:
        return self.rows * self.chunk

    def build(self) -> StripedLayout:
        number = self.rules.layouts[self.layout or self.rules.default_layout]
        match self.level:
            case "raid4":
                return raid4_layout(self.chunk, self.members, self.component)
            case "raid5":
                return raid5_layout(self.chunk, self.members, self.component, number)
        return raid6_layout(self.chunk, self.members, self.component, number)

    def survivable(self) -> list[tuple[int, ...]]:
        """Every set of slots, not empty, that it can do without."""
        most = self.rules.tolerates(self.members)
        return [gone for count in range(1, most + 1) for gone in combinations(range(self.members), count)]


#: Every layout of every level with parity, and numbers of members and chunks that make a difference.
SHAPES = [
    *[
        Shape(level.name, layout, level.minimum_members + 1)
        for level in LEVELS.values()
        if level.has_parity
        for layout in level.layouts
    ],
    Shape("raid5", "", 2),
    Shape("raid5", "", 5),
    Shape("raid5", "", 3, 512 * KIB, 2),
    Shape("raid6", "", 4),
    Shape("raid6", "", 7, 8 * KIB),
    Shape("raid6", "left-asymmetric", 7, 16 * KIB, 9),
    Shape("raid6", "", 4, 512 * KIB, 2),
]
SMALL = [shape for shape in SHAPES if shape.chunk <= 16 * KIB]


# --- what members should hold, by the definitions --------------------------------------------------------------------


@cache
def doubled(exponent: int) -> bytes:
    """The multiples of 2 to the power of *exponent* in GF(2^8)."""
    if exponent == 0:
        return bytes(range(256))
    return bytes((value << 1 ^ (0x11D if value & 0x80 else 0)) & 0xFF for value in doubled(exponent - 1))


def summed(chunks: Sequence[bytes]) -> bytes:
    total = 0
    for chunk in chunks:
        total ^= int.from_bytes(chunk, "little")
    return total.to_bytes(len(chunks[0]), "little")


def images(layout: StripedLayout, members: int, content: bytes) -> list[bytearray]:
    """The data areas of all members of an array that holds *content*."""
    found = [bytearray() for _ in range(members)]
    for number in range(layout.row_count):
        row = layout.row(number)
        base = number * layout.row_width
        data = [bytes(content[at : at + layout.chunk]) for at in range(base, base + layout.row_width, layout.chunk)]
        for slot, chunk in zip(row.data, data, strict=True):
            found[slot] += chunk
        found[row.parity] += summed(data)
        if row.q >= 0:
            found[row.q] += summed([chunk.translate(doubled(e)) for chunk, e in zip(data, row.exponents, strict=True)])
    return found


# --- the stage -------------------------------------------------------------------------------------------------------


@dataclass
class Faults:
    """What an array does when its engine complains, but for the superblocks."""

    tolerated: int
    engine: ParityEngine | None = None
    failed: list[Member] = field(default_factory=list)
    corrected: list[Member] = field(default_factory=list)
    wanted: int = 0

    async def member_failed(self, member: Member, error: OrionError) -> None:
        engine = self.engine
        if member.state == "replacing":
            engine.members[member.slot].copy = None
        elif member.state not in ("active", "rebuilding"):
            return
        elif member.active and sum(not each.active for each in engine.members) >= self.tolerated:
            raise MediaError(f"nothing can stand in for {member.label}: {error.message}")
        member.lose(error.message)
        self.failed.append(member)
        engine.member_changed()

    async def read_corrected(self, member: Member) -> None:
        self.corrected.append(member)

    def sync_wanted(self) -> None:
        self.wanted += 1


@dataclass
class Stage:
    """An engine, the faulty devices of its members, and the RAM beneath."""

    shape: Shape
    engine: ParityEngine
    faults: Faults
    faulty: list[FaultyDevice]
    ram: list[RamDevice]

    @property
    def size(self) -> int:
        return self.engine.layout.size

    async def read(self, offset: int, length: int, cut: int = 0) -> bytes:
        buffer = bytearray(length)
        try:
            if not cut and self.engine.try_read(offset, [buffer]):
                return bytes(buffer)
        except OrionError:
            pass  # as an array does it
        view = memoryview(buffer)
        await self.engine.read(offset, [view[:cut], view[cut:]] if 0 < cut < length else [view], length)
        return bytes(buffer)

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

    def spare(self, slot: int) -> Member:
        """A device full of garbage as the new member in *slot*, with nothing of it valid yet."""
        member, faulty, ram = self._new(slot)
        self.ram[slot], self.faulty[slot] = ram, faulty
        member.fill(0)
        self.engine.members[slot] = member
        self.engine.member_changed()
        return member

    def replacement(self, slot: int) -> tuple[Member, RamDevice]:
        """A device full of garbage as the copy that is to be made of the member in *slot*, and the RAM beneath."""
        member, _faulty, ram = self._new(slot)
        member.fill(0, "replacing")
        self.engine.members[slot].copy = member
        self.engine.member_changed()
        return member, ram

    def _new(self, slot: int) -> tuple[Member, FaultyDevice, RamDevice]:
        ram = RamDevice(f"new{slot}", self.shape.component + DATA, always_wait=self.ram[0].always_wait)
        ram.data[:] = random.Random(slot).randbytes(len(ram.data))
        faulty = FaultyDevice(ram)
        return make_member(slot, f"new{slot}", faulty), faulty, ram

    async def rebuild(self, target: Member, steps: int | None = None, batch: int = 3) -> None:
        """What a recovery does, in small steps: so many of them, or until the end."""
        engine = self.engine
        while target.valid < engine.rebuild_end and steps != 0:
            low = target.valid
            await engine.rebuild(target, low, min(low + batch * engine.rebuild_unit, engine.rebuild_end))
            steps = None if steps is None else steps - 1

    def admit(self, target: Member) -> None:
        target.admit()
        self.engine.member_changed()

    def check(self, oracle: bytes) -> None:
        """Every member holds what it should as far as it is valid, parity included."""
        for slot, image in enumerate(images(self.engine.layout, self.shape.members, oracle)):
            end = min(self.engine.members[slot].valid, len(image))
            check_image(self.ram[slot], image, end, f"slot {slot}")

    def spoil(self, slot: int, offset: int, length: int = BLOCK, seed: int = 1) -> None:
        """Change every byte of [offset, offset + length) of the data area of the member in *slot*."""
        source = random.Random(seed)
        data = self.ram[slot].data
        for at in range(DATA + offset, DATA + offset + length):
            data[at] ^= source.randrange(1, 256)

    def unreadable(self, slot: int, offset: int, length: int = BLOCK) -> None:
        """Make reads of that range of the data area of the member in *slot* fail from now on."""
        here = (DATA + offset, DATA + offset + length)
        self.faulty[slot].fail("read", lambda: MediaError("bad sector"), forever=True, within=here)

    async def sync(self) -> None:
        """What a resync does."""
        sync = self.engine.sync
        while (run := sync.next_run(5)) is not None:
            await self.engine.sync_units(run[0], run[1] - run[0])
            sync.prove(*run)

    async def scrub(self, *, repair: bool, batch: int = 5) -> list[Any]:
        found = []
        count = self.engine.sync.unit_count
        for first in range(0, count, batch):
            found += await self.engine.scrub_units(first, min(batch, count - first), repair=repair)
        return found


def check_image(ram: RamDevice, image: bytes, end: int, what: str) -> None:
    for at in range(0, end, BLOCK):
        stored = ram.data[DATA + at : DATA + at + BLOCK]
        assert stored == image[at : at + BLOCK], f"{what}: byte {at} of its data area and what follows is wrong"


def make_member(slot: int, label: str, device: FaultyDevice) -> Member:
    member = Member(slot, label, device, None)
    member.data_offset = DATA
    member.data_size = device.geometry.size - DATA
    return member


def set_up(shape: Shape, *, wait: bool = False) -> Stage:
    ram = [RamDevice(f"d{slot}", shape.component + DATA, always_wait=wait) for slot in range(shape.members)]
    faulty = [FaultyDevice(device) for device in ram]
    members = [make_member(slot, f"d{slot}", device) for slot, device in enumerate(faulty)]
    faults = Faults(shape.rules.tolerates(shape.members))
    faults.engine = ParityEngine(members, shape.build(), faults)
    return Stage(shape, faults.engine, faults, faulty, ram)


# --- logs ------------------------------------------------------------------------------------------------------------


class _Held:
    """What a toy journal keeps for one member, oldest first."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, memoryview]] = []

    def over(self, offset: int, end: int) -> Sequence[tuple[int, memoryview]]:
        return [(at, data) for at, data in self.parts if at < end and offset < at + len(data)]


class ToyJournal:
    """Keeps partial stripes in memory, and puts them in place when asked to settle, or when it has many of them."""

    def __init__(self, engine: ParityEngine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._waiting: list[tuple[set[int], list[Transfer]]] = []
        self.partial = 0
        self.whole = 0
        for member in engine.members:
            self.adopt(member)

    def adopt(self, member: Member) -> None:
        """Keep something for *member*, too."""
        member.pending = _Held()

    async def write(self, transfers: list[Transfer], rows: Sequence[RowWrite], put: Any) -> None:
        check_facts(self._engine, transfers, rows)
        numbers = {row.row for row in rows}
        if not rows[0].cells:
            self.whole += 1
            await self.settle(min(numbers), max(numbers) + 1)
            await put(transfers)
            return
        self.partial += 1
        kept = [
            Transfer(each.slot, each.offset, each.end, [memoryview(b"".join(each.buffers))])
            for each in transfers
            if each.offset < self._engine.members[each.slot].valid
        ]
        self._put = put
        self._waiting.append((numbers, kept))
        for each in kept:
            self._engine.members[each.slot].pending.parts.append((each.offset, each.buffers[0]))
        while len(self._waiting) > self._most:
            await self._place()

    async def _place(self) -> None:
        _numbers, transfers = self._waiting[0]
        await self._put(transfers)
        del self._waiting[0]
        for each in transfers:
            pending = self._engine.members[each.slot].pending
            pending.parts = [part for part in pending.parts if part[1] is not each.buffers[0]]

    async def settle(self, first: int, end: int) -> None:
        # In the order in which they came: one that is not asked for may have older contents of a stripe that is.
        while any(first <= number < end for numbers, _transfers in self._waiting for number in numbers):
            await self._place()

    async def drain(self) -> None:
        while self._waiting:
            await self._place()


class ToyThrough:
    """A log that puts everything in place at once, as a PPL does."""

    def __init__(self, engine: ParityEngine) -> None:
        self._engine = engine
        self.settled: list[tuple[int, int]] = []

    async def write(self, transfers: list[Transfer], rows: Sequence[RowWrite], put: Any) -> None:
        check_facts(self._engine, transfers, rows)
        await put(transfers)

    async def settle(self, first: int, end: int) -> None:
        self.settled.append((first, end))


def check_facts(engine: ParityEngine, transfers: list[Transfer], rows: Sequence[RowWrite]) -> None:
    """The promises that an engine makes to its log."""
    layout = engine.layout
    partial = bool(rows[0].cells)
    written: dict[int, set[int]] = {}
    for transfer in transfers:
        assert sum(map(len, transfer.buffers)) == transfer.end - transfer.offset
        for at in range(transfer.offset, transfer.end, BLOCK):
            assert at not in written.setdefault(transfer.slot, set()), "nothing is written twice"
            written[transfer.slot].add(at)
    for fact in rows:
        place, base = layout.row(fact.row), fact.row * layout.chunk
        assert bool(fact.cells) == partial, "all of them are whole stripes, or none"
        assert 0 <= fact.low < fact.high <= layout.chunk
        span = range(base + fact.low, base + fact.high, BLOCK)
        if not partial:
            assert (fact.low, fact.high, fact.parity) == (0, layout.chunk, None)
            for slot in range(len(engine.members)):
                assert written[slot].issuperset(span)
            continue
        for cell in fact.cells:
            assert (cell.low, cell.high, len(cell.data)) == (fact.low, fact.high, fact.high - fact.low)
            assert written[place.data[cell.column]].issuperset(span)
        columns = [cell.column for cell in fact.cells]
        assert columns == list(range(columns[0], columns[0] + len(columns))), "they follow each other"
        held = base < engine.members[place.parity].valid
        assert (fact.parity is not None) >= held
        if fact.parity is not None:
            assert len(fact.parity) == fact.high - fact.low
            assert written[place.parity].issuperset(span)
