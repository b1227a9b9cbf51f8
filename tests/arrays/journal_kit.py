"""The smallest parity array that a journal can stand beneath: few stripes, no planning, the rules of superblocks kept.

It is what an array does around its journal, and nothing else: dirty before the first write, losses on record before
what depends on them, replay at the start, a resync of everything after an unclean stop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trio

from orionfs.array.engine import Cell, RowWrite
from orionfs.array.journal import Journal, Site
from orionfs.array.journal_format import HEADER_SPACE, mark_of
from orionfs.array.journal_replay import Present, current_members, examine
from orionfs.array.member import Member
from orionfs.array.policies import Policies
from orionfs.array.superblock import (
    FEATURE_RECOVERY_OFFSET,
    OFFSET,
    RESYNC_DONE,
    ROLE_FAULTY,
    ROLE_SPARE,
    SIZE,
    Superblock,
    pack_time,
)
from orionfs.array.transfer import Transfer, on_each, read_all, write_all, zero_all
from orionfs.buffers import gather
from orionfs.device import Description, Geometry, StorageDevice
from orionfs.errors import MediaError, NoSpace, Refused
from orionfs.rangelock import RangeLock
from orionfs.testing.simdisk import SimDisk
from orionfs.units import KIB, SECTOR

BLOCK = 4 * KIB
CHUNK = 8 * KIB
GAP = 16 * KIB
SET_UUID = b"tiny journal set"

# --- arithmetic ------------------------------------------------------------------------------------------------------

_EXP = [1]
for _ in range(254):
    _EXP.append(_EXP[-1] << 1 ^ (0x11D if _EXP[-1] & 0x80 else 0))
_LOG = {value: power for power, value in enumerate(_EXP)}


def _times(power: int) -> np.ndarray:
    """The table that multiplies by the generator to the *power*."""
    return np.array([0, *[_EXP[(power + _LOG[value]) % 255] for value in range(1, 256)]], np.uint8)


_TIMES = [_times(power) for power in range(255)]


def encode(data: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """P and Q of the chunks of one stripe."""
    p = np.bitwise_xor.reduce(data)
    q = np.bitwise_xor.reduce([_TIMES[power][chunk] for power, chunk in enumerate(data)])
    return p, q


def decode(data: list[np.ndarray | None], p: np.ndarray | None, q: np.ndarray | None) -> list[np.ndarray]:
    """All data chunks, from those that are there (at least one array is)."""
    lost = [column for column, chunk in enumerate(data) if chunk is None]
    known = [(column, chunk) for column, chunk in enumerate(data) if chunk is not None]
    if not lost:
        return [chunk for _column, chunk in known]
    zero = np.zeros_like(next(chunk for chunk in [p, q, *(chunk for _c, chunk in known)] if chunk is not None))
    found = dict(known)
    sum_p = np.bitwise_xor.reduce([zero, *[chunk for _column, chunk in known]])
    sum_q = np.bitwise_xor.reduce([zero, *[_TIMES[column][chunk] for column, chunk in known]])
    if len(lost) == 1 and p is not None:
        found[lost[0]] = p ^ sum_p
    elif len(lost) == 1 and q is not None:
        found[lost[0]] = _TIMES[-lost[0] % 255][q ^ sum_q]
    elif len(lost) == 2 and p is not None and q is not None:
        x, y = lost
        a, b = p ^ sum_p, q ^ sum_q
        found[x] = _TIMES[-_LOG[_EXP[x] ^ _EXP[y]] % 255][b ^ _TIMES[y][a]]
        found[y] = a ^ found[x]
    else:
        raise MediaError("too many members are gone")
    return [found[column] for column in range(len(data))]


# --- the array -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """``parities`` 1 or 2; ``ring`` bytes for records."""

    members: int = 4
    parities: int = 1
    rows: int = 5
    ring: int = 64 * KIB
    policies: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def columns(self) -> int:
        return self.members - self.parities

    @property
    def data_offset(self) -> int:
        return GAP + HEADER_SPACE + self.ring

    @property
    def gap(self) -> tuple[int, int]:
        return GAP, HEADER_SPACE + self.ring

    @property
    def size(self) -> int:
        return self.rows * self.columns * CHUNK

    def place(self, row: int) -> tuple[list[int], list[int]]:
        """The slots of data, and of P and Q."""
        order = [(slot - row) % self.members for slot in range(self.members)]
        return order[: self.columns], order[self.columns :]

    def superblock(self, slot: int) -> Superblock:
        sectors = self.rows * CHUNK // SECTOR
        return Superblock(
            set_uuid=SET_UUID,
            device_uuid=b"tiny member %3d." % slot,
            level=4 + self.parities,
            raid_disks=self.members,
            dev_number=slot,
            dev_roles=[*range(self.members), *[ROLE_SPARE] * (128 - self.members)],
            data_offset=self.data_offset // SECTOR,
            data_size=sectors,
            size=sectors,
            chunksize=CHUNK // SECTOR,
            events=1,
        )

    def make_disks(self, sim: Any, *, logical_block: int = SECTOR) -> list[SimDisk]:
        size = self.data_offset + self.rows * CHUNK
        return [
            SimDisk(f"d{slot}", size, machine=sim.machine, logical_block=logical_block) for slot in range(self.members)
        ]

    async def create(self, disks: Sequence[StorageDevice]) -> None:
        for slot, disk in enumerate(disks):
            block = self.superblock(slot).encode()
            await disk.write(OFFSET, [block[: max(SECTOR, disk.geometry.logical_block)]])
            await disk.flush()


async def superblock_of(disk: StorageDevice) -> Superblock:
    block = bytearray(SIZE)
    await disk.read(OFFSET, [block])
    return Superblock.parse(block, disk.geometry.size)


class TinyArray(StorageDevice):
    """Made by :func:`assemble`."""

    def __init__(self, shape: Shape, members: list[Member], sim: Any, freshest: Superblock) -> None:
        self.name = "tiny"
        self.shape = shape
        self.geometry = Geometry(
            shape.size, logical_block=BLOCK, stripe_width=shape.columns * CHUNK, atomic_write=BLOCK
        )
        self.members = members
        self.environment = sim.environment
        self.events = freshest.events
        self.dirty = False
        self.failed = ""
        self.losses: list[tuple[int, str]] = []
        self.tick = sim.machine.next_tick
        self.suspect = False  # redundancy is not proven
        self.writing = 0
        self.closed = False
        self.step = 1 if all(member.active for member in members) else 2
        self.level = False  # whether all are known to have the same count
        self.known = {m.superblock.device_uuid: mark_of(m.superblock).checksum for m in members if m.superblock}
        self.roles = list(freshest.dev_roles)
        self.locks = RangeLock()
        self.superblock_lock = trio.Lock()
        self.policies = Policies()
        for name, value in shape.policies.items():
            self.policies.change(name, value)
        site = Site(SET_UUID, CHUNK, shape.parities, lambda member: shape.gap if member.device is not None else None)
        self.journal = Journal(
            members,
            site,
            faults=self,
            policies=self.policies,
            environment=self.environment,
            proven=lambda: not self.suspect,
            report=lambda message: sim.trace("report", message),
        )

    # --- superblocks -----------------------------------------------------------------------------------------------

    async def put_superblocks(self, *, clean: bool) -> None:
        """With the lock held; a member that fails here is lost, and all begins again."""
        while True:
            failures = await self._put_superblocks(clean=clean)
            if not failures:
                self.step = 1
                return
            for member, error in failures:
                if isinstance(error, NoSpace):
                    raise error
                self.lose(member, error)

    async def _put_superblocks(self, *, clean: bool) -> list[tuple[Member, Any]]:
        for increment in [1] * self.step if self.level else [0] + [1] * self.step:
            self.events += increment
            self.level = False
            utime = pack_time(self.environment.clock.wall_ns() + self.events * 1000)
            active = [member for member in self.members if member.active or member.state == "rebuilding"]
            present = {member.superblock.dev_number for member in active}
            self.roles = [
                role if role >= ROLE_FAULTY or number in present else ROLE_FAULTY
                for number, role in enumerate(self.roles)
            ]
            images, expected = {}, {}
            for member in active:
                own = member.superblock
                own.events, own.utime, own.dev_roles = self.events, utime, list(self.roles)
                own.resync_offset = RESYNC_DONE if clean else 0
                rebuilding = member.state == "rebuilding"
                own.feature_map = FEATURE_RECOVERY_OFFSET if rebuilding else 0
                own.recovery_offset = member.checkpoint // SECTOR if rebuilding else 0
                images[id(member)] = image = own.encode()
                new = int.from_bytes(image[216:220], "little")
                expected[own.device_uuid] = self.known[own.device_uuid], new
            failures = await self.journal.witness(expected, self.events, utime)
            if failures:
                return failures

            async def put(member: Member, images: dict[int, bytes] = images) -> None:
                length = max(SECTOR, member.present.geometry.logical_block)
                await member.present.write(OFFSET, [images[id(member)][:length]])
                await member.present.flush()

            failures = await on_each(active, put)
            gone = {id(member) for member, _error in failures}
            for member in active:
                if id(member) not in gone:
                    self.known[member.superblock.device_uuid] = expected[member.superblock.device_uuid][1]
            if failures:
                return failures
            self.level = True
        return []

    async def mark_dirty(self) -> None:
        if self.dirty:
            return
        with trio.CancelScope(shield=True):
            async with self.superblock_lock:
                if not self.dirty:
                    await self.put_superblocks(clean=False)
                    self.dirty = True

    async def mark_clean(self) -> None:
        """If nobody writes."""
        with trio.CancelScope(shield=True):
            await self.journal.drain()
            async with self.superblock_lock:
                if self.writing or not self.dirty or self.suspect or not self.journal.empty or self.failed:
                    return
                self.dirty = False  # whoever writes from here on has to mark it again
                while failures := await on_each(
                    [member for member in self.members if member.active], lambda member: member.present.flush()
                ):
                    for member, error in failures:
                        self.lose(member, error)
                await self.put_superblocks(clean=True)

    # --- faults ----------------------------------------------------------------------------------------------------

    def lose(self, member: Member, error: Any) -> None:
        if not member.active and member.state != "rebuilding":
            return
        gone = sum(1 for other in self.members if not other.active)
        if member.active and gone >= self.shape.parities:
            self.failed = self.failed or f"{member.label} cannot be done without"
            raise MediaError(self.failed)
        self.losses.append((self.tick(), member.label))
        member.lose(str(error))
        self.step = 2

    async def member_failed(self, member: Member, error: Any) -> None:
        self.lose(member, error)
        with trio.CancelScope(shield=True):
            async with self.superblock_lock:
                if self.failed:
                    raise MediaError(self.failed)
                if self.step == 2:
                    await self.put_superblocks(clean=not self.dirty)
        await self.journal.member_changed()

    async def read_corrected(self, member: Member) -> None:
        pass

    def sync_wanted(self) -> None:
        pass

    # --- data ------------------------------------------------------------------------------------------------------

    async def _load(self, row: int, low: int, high: int) -> list[np.ndarray]:
        """The data chunks of a stripe over the bytes [low, high) of its chunks; the caller holds its lock."""
        data_slots, parity_slots = self.shape.place(row)
        buffers = {slot: memoryview(bytearray(high - low)) for slot in range(self.shape.members)}
        base = row * CHUNK
        valid = [slot for slot in buffers if base + CHUNK <= self.members[slot].valid]
        reads = [Transfer(slot, base + low, base + high, [buffers[slot]]) for slot in valid]
        for failure in await read_all(self.members, reads):
            valid.remove(failure.transfer.slot)
        arrays = {slot: np.frombuffer(buffers[slot], np.uint8) for slot in valid}
        parity = [arrays.get(slot) for slot in parity_slots] + [None]
        return decode([arrays.get(slot) for slot in data_slots], parity[0], parity[1])

    async def read(self, offset: int, buffers: Sequence[Any]) -> None:
        length = self.check_buffers(offset, buffers)
        width = self.geometry.stripe_width
        first, end = offset // width, -(-(offset + length) // width)
        await self.locks.acquire(first, end)
        try:
            rows = [await self._load(row, 0, CHUNK) for row in range(first, end)]
        finally:
            self.locks.release(first, end)
        data = memoryview(b"".join(chunk.tobytes() for row in rows for chunk in row))[offset - first * width :]
        for buffer in buffers:
            view = memoryview(buffer)
            view[:], data = data[: len(view)], data[len(view) :]

    async def write(self, offset: int, buffers: Sequence[Any]) -> None:
        length = self.check_buffers(offset, buffers)
        if self.failed:
            raise MediaError(self.failed)
        self.writing += 1
        try:
            await self.mark_dirty()
            await self._write(offset, memoryview(gather(buffers)), length)
        finally:
            self.writing -= 1

    async def _write(self, offset: int, data: memoryview, length: int) -> None:
        width = self.geometry.stripe_width
        first, end = offset // width, -(-(offset + length) // width)
        await self.locks.acquire(first, end)
        try:
            transfers: list[Transfer] = []
            facts: list[RowWrite] = []
            at = 0
            while at < length:
                row, start = divmod(offset + at, width)
                take = min(width - start, length - at)
                more, fact = await self._row(row, start, data[at : at + take])
                transfers += more
                facts.append(fact)
                at += take
            await self.journal.write(transfers, facts, self.put)
        except BaseException:
            if any(not fact.cells for fact in facts):
                self.suspect = True
            raise
        finally:
            self.locks.release(first, end)

    async def _row(self, row: int, start: int, data: memoryview) -> tuple[list[Transfer], RowWrite]:
        data_slots, parity_slots = self.shape.place(row)
        cells = []
        at = 0
        while at < len(data):
            column, low = divmod(start + at, CHUNK)
            take = min(CHUNK - low, len(data) - at)
            cells.append(Cell(column, low, low + take, data[at : at + take]))
            at += take
        whole = len(data) == self.geometry.stripe_width
        low, high = min(cell.low for cell in cells), max(cell.high for cell in cells)
        chunks = [] if whole else [chunk.copy() for chunk in await self._load(row, low, high)]
        if whole:
            chunks = [np.frombuffer(cell.data, np.uint8) for cell in cells]
        else:
            for cell in cells:
                chunks[cell.column][cell.low - low : cell.high - low] = np.frombuffer(cell.data, np.uint8)
        base = row * CHUNK
        found = [(data_slots[cell.column], cell.low, cell.high, cell.data) for cell in cells]
        parity = [memoryview(part.tobytes()) for part in encode(chunks)[: self.shape.parities]]
        found += [(slot, low, high, part) for slot, part in zip(parity_slots, parity, strict=True)]
        transfers = [
            Transfer(slot, base + start, base + end, [view])
            for slot, start, end, view in found
            if base + start < self.members[slot].valid
        ]
        return transfers, RowWrite(row, () if whole else tuple(cells), low, high, None if whole else parity[0])

    async def put(self, transfers: list[Transfer]) -> None:
        full = None
        for _transfer, error, member in await write_all(self.members, transfers):
            if isinstance(error, NoSpace):
                full = error
            else:
                await self.member_failed(member, error)
        if full is not None:
            self.suspect = True
            raise full

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        width = self.geometry.stripe_width
        if offset % width or length % width or not length:
            if length:
                await self.write(offset, [bytes(length)])
            return
        if self.failed:
            raise MediaError(self.failed)
        self.writing += 1
        first, end = offset // width, (offset + length) // width
        try:
            await self.mark_dirty()
            await self.locks.acquire(first, end)
            try:
                await self.journal.settle(first, end)
                transfers = [Transfer(member.slot, first * CHUNK, end * CHUNK, []) for member in self.members]
                try:
                    for failure in await zero_all(self.members, transfers):
                        if isinstance(failure.error, NoSpace):
                            raise failure.error
                        await self.member_failed(failure.member, failure.error)
                except BaseException:
                    self.suspect = True
                    raise
            finally:
                self.locks.release(first, end)
        finally:
            self.writing -= 1

    async def flush(self) -> None:
        if self.failed:
            raise MediaError(self.failed)
        while failures := await self.journal.flush():
            for member, error in failures:
                await self.member_failed(member, error)

    async def resync(self) -> None:
        """Make parity agree with data, everywhere."""
        for row in range(self.shape.rows):
            await self.locks.acquire(row, row + 1)
            try:
                await self.journal.settle(row, row + 1)
                data_slots, parity_slots = self.shape.place(row)
                base = row * CHUNK
                buffers = [memoryview(bytearray(CHUNK)) for _ in data_slots]
                reads = [
                    Transfer(slot, base, base + CHUNK, [view]) for slot, view in zip(data_slots, buffers, strict=True)
                ]
                if failures := await read_all(self.members, reads):
                    raise failures[0].error
                parity = encode([np.frombuffer(view, np.uint8) for view in buffers])
                await self.put(
                    [
                        Transfer(slot, base, base + CHUNK, [memoryview(part.tobytes())])
                        for slot, part in zip(parity_slots, parity, strict=False)
                    ]
                )
            finally:
                self.locks.release(row, row + 1)
        await self.flush()
        self.suspect = False

    def describe(self) -> Description:
        return Description("array", self.name, "active", self.geometry)

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.failed:
                await self.mark_clean()


async def assemble(shape: Shape, disks: Sequence[SimDisk], sim: Any, *, absent: Sequence[str] = ()) -> TinyArray:
    """The array, with its journal loaded and nothing written.  Raises Refused if it must not start."""
    there = [disk for disk in disks if disk.name not in absent]
    superblocks = {disk.name: await superblock_of(disk) for disk in there}
    verdict = await examine([Present(disk.name, disk, superblocks[disk.name], shape.gap) for disk in there])
    if verdict.damaged:
        raise Refused(f"damaged: {verdict.reason}")
    current = current_members(list(superblocks.values()))
    freshest = max(current, key=lambda superblock: superblock.events)
    by_slot: dict[int, SimDisk] = {}
    for disk in there:
        superblock = superblocks[disk.name]
        disowned = verdict.usable and disk.name in verdict.disowned
        if any(superblock is other for other in current) and not disowned:
            by_slot[superblock.role] = disk
    members = []
    for slot in range(shape.members):
        disk = by_slot.get(slot)
        if disk is None:
            members.append(Member(slot, f"slot {slot}", None, None, "missing", "not there"))
            continue
        member = Member(slot, disk.name, disk, superblocks[disk.name])
        if member.superblock.is_recovering:
            member.fill(member.superblock.recovery_offset * SECTOR)
        members.append(member)
    missing = sum(1 for member in members if not member.active)
    if missing > shape.parities:
        raise Refused(f"{missing} members are missing")
    newest = [superblock for superblock in current if superblock.events == freshest.events]
    dirty = any(superblock.resync_offset != RESYNC_DONE for superblock in newest)
    if dirty and missing and not verdict.proven:
        raise Refused(f"dirty and degraded: {verdict.reason or 'redundancy was not proven'}")
    array = TinyArray(shape, members, sim, freshest)
    array.verdict = verdict
    array.was_dirty = dirty
    array.suspect = dirty and not verdict.proven
    array.journal.load(verdict)
    return array


@asynccontextmanager
async def opened(
    shape: Shape,
    disks: Sequence[SimDisk],
    sim: Any,
    *,
    absent: Sequence[str] = (),
    patch: Callable[[TinyArray], None] | None = None,
) -> Any:
    """The array at work: what was loaded is put in place, redundancy is made good, the background runs."""
    array = await assemble(shape, disks, sim, absent=absent)
    if patch is not None:
        patch(array)
    async with trio.open_nursery() as nursery:
        await array.journal.start() if array.verdict.usable and array.verdict.records else None
        if array.was_dirty and all(member.active for member in array.members):
            await array.mark_dirty()
            await array.resync()
        nursery.start_soon(array.journal.run)
        try:
            yield array
        finally:
            await array.aclose()
            nursery.cancel_scope.cancel()
