"""The simulator itself: one seed is one history, a recorded cut is a real cut, and planted bugs are caught."""

import random
from contextlib import ExitStack

import pytest
import trio

from orionfs.testing import crash, simulation, workload
from orionfs.testing.oracle import Oracle, Violation
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import check_deterministic
from orionfs.testing.workload import User

from . import campaign
from .tiny_mirror import BUGS, TinySubject


def tiny_life(seed, bug=""):
    return campaign.live(seed, TinySubject(bug), 14)


async def _tiny_run(sim):
    subject = TinySubject()
    disks = subject.make_disks(sim)
    await subject.create(sim, disks)
    async with subject.open(sim, disks) as device:
        oracle = Oracle(64, sim.machine.next_tick)
        await User(sim, device, oracle).work(workload.draw(sim.random("w"), device.geometry, 20))
    return [disk.content() for disk in disks]


def test_one_seed_is_one_history_and_another_seed_is_another():
    results = [check_deterministic(seed, _tiny_run) for seed in range(6)]
    assert len({result.trace for result in results}) == len(results)
    assert results[0].value == simulation.run(0, _tiny_run).value


def test_the_order_of_tasks_comes_from_the_seed():
    async def main(sim):
        order = []

        async def one(number):
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(one, number)
        return order

    assert simulation.run(1, main).value == simulation.run(1, main).value
    assert simulation.run(1, main).value != simulation.run(2, main).value


def test_a_run_that_asks_the_world_is_found_out():
    calls = iter(range(100))

    async def main(sim):
        sim.trace(next(calls))

    with pytest.raises(AssertionError, match="goes around the environment"):
        check_deterministic(0, main)


def test_a_simulation_leaves_the_scheduler_as_it_was():
    from trio._core import _run as trio_run

    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    simulation.run(3, _tiny_run)
    assert (trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()) == before


def test_a_recorded_cut_point_is_what_a_run_that_is_cut_there_leaves():
    disks = []

    async def main(sim, keep):
        subject = TinySubject()
        disks[:] = subject.make_disks(sim)
        recorder = campaign.Recorder(sim, disks) if keep else None
        await subject.create(sim, disks)
        async with subject.open(sim, disks) as device:
            oracle = Oracle(64, sim.machine.next_tick)
            await User(sim, device, oracle).work(workload.draw(sim.random("w"), device.geometry, 12))
        return recorder

    points = simulation.run(4, lambda sim: main(sim, True)).value.points
    by_operation = {}
    for point in points:
        by_operation.setdefault(point.operation, point)
    assert len(by_operation) > 30
    for operation, point in by_operation.items():
        assert simulation.run(4, lambda sim: main(sim, False), cut_at=operation).power_cut
        again = tuple(disk.state() for disk in disks)
        for recorded, cut in zip(point.states, again, strict=True):
            assert (recorded.stable, recorded.visible) == (cut.stable, cut.visible)
            assert [write[:4] for write in recorded.pending] == [write[:4] for write in cut.pending]


def run_campaign(bug="", lives=4, per_point=8):
    tally = campaign.Tally()
    generator = random.Random(0)
    for seed in range(lives):
        life = tiny_life(seed, bug)
        tally.add(life)
        for wreck in campaign.wrecks(life.points, generator, per_point):
            tally.states += 1
            recovery = campaign.recover(life, wreck, record=True)
            if tally.states % 10 == 0:
                for second in campaign.wrecks(generator.sample(recovery.points, 1), generator, 2):
                    tally.count("double")
                    campaign.recover(life, second._replace(point=wreck.point), expected=recovery.tags)
        for wreck in campaign.kills(life.points):
            campaign.recover(life, wreck)
    return tally


def test_a_right_mirror_survives_every_cut():
    tally = run_campaign()
    assert tally.states > 600, tally
    assert tally["double"] > 50, tally
    assert tally.acknowledged > 5, tally


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(bug):
    with pytest.raises(Violation):
        run_campaign(bug, lives=8)


def test_a_failure_tells_its_whole_story():
    life = tiny_life(1, "flush does nothing")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(Violation))
        for wreck in campaign.wrecks(life.points, random.Random(0), 4):
            campaign.recover(life, wreck)
    text = campaign.explain(life, wreck, Violation("block 3"))
    assert "Violation: block 3" in text
    assert "write " in text
    assert "un-flushed" in text


def test_wrecks_of_one_point_are_all_different():
    disk = SimDisk("d0", 1 << 16)
    generator = random.Random(0)
    points = []

    async def main(sim):
        disk = SimDisk("d0", 1 << 16, machine=sim.machine)
        recorder = campaign.Recorder(sim, [disk])
        for number in range(4):
            await disk.write(number * 4096, [bytes([number + 1]) * 4096])
        points.extend(recorder.points[-1:])

    simulation.run(0, main)
    found = list(campaign.wrecks(points, generator))
    assert len(found) == len({wreck.key for wreck in found})
    contents = {SimDisk.restored(wreck.states[0], machine=disk.machine).content() for wreck in found}
    assert len(contents) > 15
    assert len(crash.choices(points[0].pending)) >= len(found)
