"""Stage: a journal over RAM whose transfers are made by hand."""

from __future__ import annotations

from typing import Any

import trio

from orionfs.array.engine import RowWrite
from orionfs.array.journal import Journal, Site
from orionfs.array.journal_replay import Present, examine
from orionfs.array.member import Member
from orionfs.array.policies import Policies
from orionfs.array.transfer import Transfer, read_all, write_all
from orionfs.environment import Environment
from orionfs.errors import MediaError, NoSpace
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import KIB

from .journal_kit import BLOCK, CHUNK, SET_UUID, Shape, superblock_of

FOUR = Shape(4, 1, rows=8, ring=96 * KIB)


class Stage:
    """Blocks are numbered within a member's data area, and hold one byte 4096 times."""

    def __init__(self, shape: Shape = FOUR, *, logical_block: int = 512, always_wait: bool = False) -> None:
        self.shape = shape
        size = shape.data_offset + shape.rows * CHUNK
        self.ram = [
            RamDevice(f"d{slot}", size, logical_block, always_wait=always_wait) for slot in range(shape.members)
        ]
        self.faulty = [FaultyDevice(device) for device in self.ram]
        self.failed: list[str] = []
        self.bearable = shape.parities
        self.policies = Policies()
        self.reports: list[str] = []
        self.proven = True
        self.put_calls: list[list[Transfer]] = []
        self.members: list[Member] = []
        self.journal: Any = None

    async def begin(self, *, found: Any = None, **options: Any) -> Journal:
        if not self.members:
            await self.shape.create(self.ram)
        superblocks = [await superblock_of(device) for device in self.ram]
        self.members = [
            Member(slot, device.name, device, superblock)
            for slot, (device, superblock) in enumerate(zip(self.faulty, superblocks, strict=True))
        ]
        shape = self.shape
        self.journal = Journal(
            self.members,
            Site(SET_UUID, CHUNK, shape.parities, lambda member: shape.gap if member.device else None),
            faults=self,
            policies=self.policies,
            environment=Environment(),
            proven=lambda: self.proven,
            report=self.reports.append,
            **options,
        )
        if found is not None:
            self.journal.load(found)
        return self.journal

    # --- part of Faults

    async def member_failed(self, member: Member, error: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.failed.append(member.label)
        if len(set(self.failed)) > self.bearable:
            raise MediaError("too many members are gone")
        member.lose(error.message)

    async def read_corrected(self, member: Member) -> None:
        pass

    def sync_wanted(self) -> None:
        pass

    # --- what a test does

    async def put(self, transfers: list[Transfer]) -> None:
        self.put_calls.append(transfers)
        for _transfer, error, member in await write_all(self.members, transfers):
            if isinstance(error, NoSpace):
                raise error
            await self.member_failed(member, error)

    async def write(self, *blocks: tuple[int, int, int], whole: int | None = None) -> None:
        """*blocks* are (slot, block, byte); *whole* is the row that they are all of."""
        transfers = [
            Transfer(slot, block * BLOCK, (block + 1) * BLOCK, [memoryview(bytearray([byte]) * BLOCK)])
            for slot, block, byte in blocks
        ]
        rows = sorted({block * BLOCK // CHUNK for _slot, block, _byte in blocks})
        cell: Any = ()
        facts = [RowWrite(row, () if row == whole else (cell,), 0, CHUNK, None) for row in rows]
        await self.journal.write(transfers, facts, self.put)
        for transfer in transfers:
            transfer.buffers[0][:] = bytes(BLOCK)  # the engine's memory is its own again

    async def write_row(self, row: int, byte: int) -> None:
        blocks = [(slot, row * CHUNK // BLOCK + at, byte) for slot in range(self.shape.members) for at in range(2)]
        await self.write(*blocks, whole=row)

    def on_disk(self, slot: int, block: int) -> int:
        start = self.shape.data_offset + block * BLOCK
        data = bytes(self.ram[slot].data[start : start + BLOCK])
        assert data == data[:1] * BLOCK
        return data[0]

    async def seen(self, slot: int, block: int) -> int:
        buffer = memoryview(bytearray(BLOCK))
        assert not await read_all(self.members, [Transfer(slot, block * BLOCK, (block + 1) * BLOCK, [buffer])])
        assert bytes(buffer) == bytes(buffer[:1]) * BLOCK
        return buffer[0]

    async def found(self, *absent: int) -> Any:
        """What a start would find now; the superblocks are made dirty for it."""
        devices = []
        for slot, device in enumerate(self.ram):
            if slot not in absent:
                superblock = await superblock_of(device)
                superblock.resync_offset = 0
                devices.append(Present(device.name, device, superblock, self.shape.gap))
        return await examine(devices)

    async def logged(self, *absent: int) -> list[tuple[int, int, int]]:
        """The records that a replay would find, as (slot, block, byte)."""
        verdict = await self.found(*absent)
        assert verdict.usable, verdict.reason
        return [(slot, at // BLOCK, data[0]) for record in verdict.records for slot, at, data in record.pieces]
