"""PartialParityLog: what every power cut leaves, with and without each member."""

import random
from collections import Counter

import pytest
import trio

from orionfs.array.ppl import PartialParityLog
from orionfs.testing.crash import choices, outcome
from orionfs.testing.simdisk import SimDisk, after_cut
from orionfs.testing.simulation import run

from .ppl_kit import DATA, KIB, Stack

SIZE, CHUNK, AREA = 32 * KIB, 4 * KIB, 24 * KIB
CAPACITY = 2 * SIZE


class History:
    """What each sector of the array may hold: the value that is durable, and those that came after it."""

    def __init__(self):
        self.durable = [bytes(512)] * (CAPACITY // 512)
        self.later = {}

    def begin(self, offset, data):
        for at in range(0, len(data), 512):
            self.later.setdefault((offset + at) // 512, []).append(bytes(data[at : at + 512]))

    def copy(self):
        other = History()
        other.durable = list(self.durable)
        other.later = {sector: list(values) for sector, values in self.later.items()}
        return other


async def life(simulation, kind, observe):
    """Three writers on a RAID 5 of three, with flushes, zeroing and drains between."""
    disks = [SimDisk(f"d{slot}", DATA + SIZE, machine=simulation.machine) for slot in range(3)]
    stack = Stack(disks, SIZE, chunk=CHUNK, area=AREA, kind=kind)
    generator = simulation.random("life")
    history = History()
    await stack.log.start()
    simulation.machine.observer = lambda: observe(disks, history)
    writing = 0

    async def writer(number):
        nonlocal writing
        base = number * (CAPACITY // 4)  # writers keep apart, so that the last value is known
        for _ in range(7):
            lot = generator.random()
            low = generator.randrange(CAPACITY // 4 // 512) * 512
            length = min(generator.choice([512, 1024, 4096, 8192, 12288]), CAPACITY // 4 - low)
            writing += 1
            if lot < 0.15:
                row = base // (2 * CHUNK) * 2 * CHUNK
                history.begin(row, bytes(2 * CHUNK))
                await stack.engine.write_zeroes(row, 2 * CHUNK)
            else:
                data = generator.randbytes(length)
                history.begin(base + low, data)
                await stack.write(base + low, data)
            writing -= 1
            if lot > 0.9:
                await stack.log.drain()
            await simulation.environment.clock.sleep(generator.choice([0, 0, 0.05]))

    async def flusher():
        while True:
            await simulation.environment.clock.sleep(0.05)
            if not writing:
                values = {sector: later[-1] for sector, later in history.later.items()}
                seen = {sector: len(later) for sector, later in history.later.items()}
                assert await stack.log.flush() == []
                for sector, value in values.items():
                    history.durable[sector] = value
                    del history.later[sector][: seen[sector]]
                    if not history.later[sector]:
                        del history.later[sector]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher)
        async with trio.open_nursery() as writers:
            for number in range(4):
                writers.start_soon(writer, number)
        nursery.cancel_scope.cancel()
    assert not stack.faults.lost


async def check_closure(states, history, missing, machine, tally):
    """What was flushed is there; what is in doubt is old or new, but for the blocks of a member that is not there."""
    disks = [SimDisk.restored(state, machine=machine) for state in states]
    stack = Stack(disks, SIZE, chunk=CHUNK, area=AREA, missing=missing)
    replayed, _notices = await stack.start()
    if missing and (replayed.unproven or replayed.mismatches):
        tally["refused"] += 1
        return
    tally["proven" if replayed.proven else "resync"] += 1
    if replayed.proven and not missing:
        columns = [int.from_bytes(disk.content(DATA, SIZE), "little") for disk in disks]
        assert columns[0] ^ columns[1] ^ columns[2] == 0, "said to agree, and does not"
    if not replayed.proven and not missing:
        await stack.engine.sync_units(0, stack.layout.row_count)
        stack.engine.sync.settle()
    for removed in range(-1, 3) if not missing else (-1,):
        if removed >= 0 and not (replayed.proven or not missing):
            continue
        reader = Stack(disks, SIZE, chunk=CHUNK, area=AREA, missing=missing or ((removed,) if removed >= 0 else ()))
        content = await reader.read(0, CAPACITY)
        for sector, durable in enumerate(history.durable):
            here = content[sector * 512 : sector * 512 + 512]
            slot = stack.layout.locate(sector * 512)[0]
            later = history.later.get(sector)
            if later is None:
                assert here == durable, f"sector {sector} was durable and is not there, without {missing}"
            elif slot not in missing:
                assert here in (durable, *later), f"sector {sector} is neither old nor new, without {missing}"


def campaign(kind, seeds, share=0.25):
    """Cut lives of *kind* in many ways; what became of them."""
    tally = Counter()
    for seed in seeds:
        generator = random.Random(seed)
        wrecks = []

        def observe(disks, history, generator=generator, wrecks=wrecks):
            if generator.random() < share:
                pending = [write for disk in disks for write in disk.unflushed]
                options = choices(pending, 4)
                for choice in generator.sample(options, min(len(options), 3)):
                    parts = outcome(pending, choice, generator.randrange(1 << 30))
                    wrecks.append(([after_cut(disk.state(), parts) for disk in disks], history.copy()))

        run(seed, lambda simulation, observe=observe: life(simulation, kind, observe))

        async def check(simulation, wrecks=wrecks):
            for states, history in wrecks:
                for missing in ((), (0,), (1,), (2,)):
                    await check_closure(states, history, missing, simulation.machine, tally)
                    tally["states"] += 1

        run(seed, check)
    return tally


def test_every_block_that_was_not_being_written_is_intact_after_any_cut_and_without_any_member():
    tally = campaign(PartialParityLog, range(6))
    assert tally["states"] > 1000
    assert tally["proven"] > tally["states"] / 4, "if everything is resynced, the log proves nothing"
    assert not tally["refused"]


class NoRecord(PartialParityLog):
    """A planted bug: stripes are written without a record."""

    async def _record(self, group):
        pass


class NoFlushOfRecords(PartialParityLog):
    """A planted bug: records are not made durable."""

    async def start(self):
        await super().start()
        for area in self._areas.values():
            area._flush = trio.lowlevel.checkpoint


class NoFlushBetween(PartialParityLog):
    """A planted bug: a record may end another one whose stripes are not durable."""

    async def _make_durable(self, areas):
        pass


class SilentZeroes(PartialParityLog):
    """A planted bug: nobody is told of stripes that are written without a record."""

    async def settle(self, first, end):
        pass


class WrongParity(PartialParityLog):
    """A planted bug: the record has the new parity instead of the partial one."""

    def _pieces(self, fact):
        pieces = super()._pieces(fact)
        return [piece._replace(partial=bytes(fact.parity)) if piece.partial is not None else piece for piece in pieces]


@pytest.mark.parametrize("kind", [NoRecord, NoFlushOfRecords, NoFlushBetween, SilentZeroes, WrongParity])
def test_the_campaign_finds_planted_bugs(kind):
    with pytest.raises(AssertionError, match=r"agree, and does not|was durable|neither old nor new"):
        campaign(kind, range(20))
