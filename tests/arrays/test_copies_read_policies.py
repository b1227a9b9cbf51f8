"""Copies: policies decide who is read, and never what."""

from __future__ import annotations

import random

import pytest
import trio

from orionfs.clock import SystemClock
from orionfs.layers.layer import Layer
from tests.arrays.copies_kit import BLOCK, MIRRORS, SHAPES, Shape, Stage, set_up

POLICIES = ["adaptive", "round-robin", "nearest"]
N2X4 = Shape("n2", 0x102, 4)
F2X4 = Shape("f2", 0x201, 4)


class LoopClock(SystemClock):
    """Times operations by the clock of the event loop, which the tests turn."""

    @staticmethod
    def elapsed_ns():
        return int(trio.current_time() * 1e9)


class Slow(Layer):
    """A device whose reads take a while."""

    def __init__(self, child, takes_s):
        super().__init__(child)
        self.takes_s = takes_s
        self.reads = 0

    def try_read(self, offset, buffers):
        return False

    async def read(self, offset, buffers):
        self.reads += 1
        await trio.sleep(self.takes_s)
        await self.child.read(offset, buffers)


async def slow_stage(shape: Shape, takes_s: list[float]) -> tuple[Stage, list[Slow], bytearray]:
    stage = set_up(shape)
    oracle = await stage.fill()
    slow = [Slow(ram, each) for ram, each in zip(stage.ram, takes_s, strict=True)]
    for member, device in zip(stage.engine.members, slow, strict=True):
        member.device = device
    stage.engine.clock = LoopClock()
    return stage, slow, oracle


@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("shape", [*MIRRORS, N2X4, F2X4, Shape("o3", 0x10301, 4)], ids=str)
async def test_a_slow_member_gets_almost_no_reads_and_costs_almost_no_time(shape, depth, autojump_clock):
    stage, slow, oracle = await slow_stage(shape, [0.1] + [0.001] * (shape.members - 1))
    blocks = [at for at in range(0, stage.size, 4096) if 0 in dict(stage.places(at))]
    source = random.Random(1)

    async def reader(count):
        for _read in range(count):
            at = source.choice(blocks)
            assert await stage.read(at, 4096) == oracle[at : at + 4096]

    async def everybody(count):
        async with trio.open_nursery() as nursery:
            for _reader in range(depth):
                nursery.start_soon(reader, count // depth)

    await everybody(200)
    for device in slow:
        device.reads = 0
    began = trio.current_time()
    await everybody(1600)
    assert sum(device.reads for device in slow) == 1600
    assert slow[0].reads <= 1600 / 128
    assert trio.current_time() - began <= (1600 * 0.001 / depth) * 1.3 + 0.1 * slow[0].reads


async def test_round_robin_reads_everywhere_the_same(autojump_clock):
    stage, slow, _oracle = await slow_stage(MIRRORS[1], [0.1, 0.001, 0.001])
    stage.engine.policies.change("read_policy", "round-robin")
    for at in range(0, 60 * BLOCK, BLOCK):
        await stage.read(at, BLOCK)
    assert [device.reads for device in slow] == [20, 20, 20]
    stage.engine.policies.change("read_policy", "nearest")
    for at in range(0, 60 * BLOCK, BLOCK):
        await stage.read(at, BLOCK)
    assert max(device.reads for device in slow) >= 75, "a stream stays where it is"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_write_mostly_members_are_read_only_where_nothing_else_is_there(shape, policy):
    stage = set_up(shape)
    stage.engine.policies.read_policy = policy
    for slot in range(0, shape.members, 2):
        stage.engine.members[slot].write_mostly = True
    stage.engine.member_changed()
    oracle = await stage.fill()
    for at in range(0, stage.size, 4096):
        for device in stage.faulty:
            device.calls.clear()
        assert await stage.read(at, 4096) == oracle[at : at + 4096]
        (asked,) = [slot for slot, device in enumerate(stage.faulty) if device.calls["read"]]
        holders = {slot for slot, _where in stage.places(at)}
        assert asked in holders
        assert asked % 2 or all(slot % 2 == 0 for slot in holders)
    assert await stage.read(0, stage.size) == oracle
    # With one that is not write-mostly gone, the others have to serve what it held.
    await stage.lose(1)
    assert await stage.read(0, stage.size) == oracle


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [*MIRRORS, N2X4, F2X4, Shape("n2", 0x102, 3), Shape("o3", 0x10301, 4)], ids=str)
async def test_readers_never_see_a_block_go_back(shape, policy, autojump_clock):
    """Writers count up; copies are written at different times; no reader ever sees a lower number than before."""
    stage = set_up(shape)
    source = random.Random(f"{shape}")

    class Late(Layer):
        def try_write(self, offset, buffers):
            return False

        def try_read(self, offset, buffers):
            return source.random() < 0.5 and self.child.try_read(offset, buffers)

        async def write(self, offset, buffers):
            await trio.sleep(source.random())
            await self.child.write(offset, buffers)
            await trio.sleep(source.random())

        async def read(self, offset, buffers):
            await trio.sleep(source.random() / 4)
            await self.child.read(offset, buffers)

    for member in stage.engine.members:
        member.device = Late(member.device)
    engine = stage.engine
    engine.policies.read_policy = policy
    engine.clock = LoopClock()
    hot = [0, 4096, 8192, stage.size - 4096]

    async def writer(at):
        for number in range(1, 25):
            await engine.write(at, [bytes([number]) * 4096], 4096)
            await trio.sleep(source.random())
        nursery.cancel_scope.cancel() if at == hot[-1] else None

    async def reader():
        seen = dict.fromkeys(hot, 0)
        while True:
            at = source.choice(hot)
            wide = at < 12288 and source.random() < 0.3
            data = (await stage.read(0, 12288))[at : at + 4096] if wide else await stage.read(at, 4096)
            assert len(set(data)) == 1, "a block is whole"
            assert data[0] >= seen[at], "it went back"
            seen[at] = data[0]
            await trio.sleep(source.random() / 10)

    async with trio.open_nursery() as nursery:
        for at in hot:
            nursery.start_soon(writer, at)
        for _reader in range(3):
            nursery.start_soon(reader)
