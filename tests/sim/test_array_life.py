"""Cuts at the few moments at which an array writes superblocks, each case as small as it gets."""

import random
from dataclasses import replace

import pytest

from orionfs.array.levels import LEVELS
from orionfs.errors import MediaError, NoSpace, OrionError, Refused
from orionfs.testing import simulation, workload
from orionfs.testing.oracle import Oracle
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.workload import User

from . import array_cuts, campaign, plans, subjects
from .arrays import ArraySubject
from .campaign import Tally
from .plans import Plan, Scope
from .standing import standing

# --- creation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_a_cut_while_an_array_is_made_leaves_a_whole_one_or_none(level):
    subject = subjects.draw(3, level)

    async def make(sim):
        disks = subject.make_disks(sim)
        recorder = campaign.Recorder(sim, disks)
        await subject.create(sim, disks)
        recorder.keep()
        return recorder.points

    def start(wreck):
        async def main(sim):
            disks = [SimDisk.restored(state, machine=sim.machine) for state in wreck.states]
            async with subject.open(sim, disks) as device:
                data = await User(sim, device, Oracle(1, sim.machine.next_tick)).read_all()
                assert data == bytes(len(data))
                assert device.state == "clean"

        simulation.run(0, main)

    whole = none = 0
    for wreck in campaign.wrecks(simulation.run(3, make).value, random.Random(0), 10):
        try:
            start(wreck)
        except OrionError:
            none += 1
        else:
            whole += 1
    assert whole >= 2
    assert none >= (20 if len(subject.sizes) > 1 else 8)


# --- what was found, each as small as it gets ------------------------------------------------------------------------


THREE = ArraySubject("raid5", "left-symmetric", 4096, (16384, 16384, 16384))
MIRROR = ArraySubject("raid1", "", 0, (32768, 32768, 32768))
ONE_WRITE = [(workload.Step("write", 0, 4096),)]


def lives_without_a_member(subject):
    """One write to an array that starts without d0: as it leaves the disks at each moment."""
    made = campaign.live(1, subject, 0, rounds=[(workload.Step("flush"),)])
    states = made.points[-1].states

    async def main(sim):
        disks = [SimDisk.restored(state, machine=sim.machine) for state in states]
        recorder = campaign.Recorder(sim, disks)
        async with subject.without("d0").open(sim, disks) as device:
            await User(sim, device, Oracle(device.geometry.size // 512, sim.machine.next_tick)).work(ONE_WRITE)
        recorder.keep()
        return recorder.points

    return simulation.run(1, main).value


@pytest.mark.parametrize("subject", [THREE, MIRROR], ids=str)
@pytest.mark.parametrize("returns", [False, True], ids=["d0-stays-away", "d0-returns"])
def test_a_cut_while_a_loss_is_recorded_leaves_every_survivor_in_place(subject, returns):
    """The survivors' event counts must never be two apart, or all but the newest are taken for stale."""
    checked = 0
    for wreck in campaign.wrecks(lives_without_a_member(subject), random.Random(0)):
        here = subject if returns else subject.without("d0")
        now = standing(wreck.states, here.absent)
        if subject is THREE and now.dirty and now.lost == ("d0",):
            with pytest.raises(Refused, match=r"dirty and degraded.*slot 0 is empty"):
                slots_in_use(here, wreck)
            here = replace(here, force=True)
        assert slots_in_use(here, wreck)[1:] == "UU"
        checked += 1
    assert checked > 10


def slots_in_use(subject, wreck):
    async def main(sim):
        disks = [SimDisk.restored(state, machine=sim.machine) for state in wreck.states]
        async with subject.open(sim, disks) as device:
            return device.describe().details["slots"]

    return simulation.run(0, main).value


@pytest.mark.parametrize("subject", [THREE, MIRROR], ids=str)
@pytest.mark.parametrize("first", ["cut", "kill"])
def test_a_second_cut_while_marking_dirty_leaves_every_member_in_place(subject, first):
    """A member may be one event behind after a cut, or its newest superblock be in the host's cache only after a kill:
    the next mark must not leave it two behind."""
    life = campaign.live(1, subject, 0, rounds=ONE_WRITE)
    source = campaign.kills(life.points) if first == "kill" else campaign.wrecks(life.points, random.Random(0), 8)
    checked = 0
    for wreck in source:

        async def main(sim, states=wreck.states):
            disks = [SimDisk.restored(state, machine=sim.machine) for state in states]
            async with subject.open(sim, disks) as device:
                recorder = campaign.Recorder(sim, disks)
                await User(sim, device, Oracle(device.geometry.size // 512, sim.machine.next_tick)).work(ONE_WRITE)
                return recorder.points

        for second in campaign.wrecks(simulation.run(1, main).value[:12], random.Random(0), 4):
            assert slots_in_use(subject, second) == "UUU"
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("subject", [THREE, MIRROR], ids=str)
@pytest.mark.parametrize("at", range(1, 12))
def test_closing_an_array_that_lost_a_member_raises_nothing(subject, at):
    plan = Plan(frozenset({"flush"}), at, MediaError, False, "d1")
    life = array_cuts.live(2, subject, Tally(), Scope(plan=plan))
    array_cuts.check_errors(life, plan)


@pytest.mark.parametrize("subject", [THREE, MIRROR], ids=str)
@pytest.mark.parametrize("at", range(1, 12))
def test_a_flush_without_space_is_the_failure_of_a_member(subject, at):
    """A flush that failed is never believed again, whatever its error: the member must not stay in use."""
    plan = Plan(frozenset({"flush"}), at, NoSpace, False, "d1")
    life = array_cuts.live(2, subject, Tally(), Scope(plan=plan))
    array_cuts.check_errors(life, Plan(plan.kinds, at, MediaError, False))
    for wreck in campaign.wrecks(life.points, random.Random(0), 2):
        array_cuts.judge(life, wreck, random.Random(0), Tally())


@pytest.mark.parametrize("subject", [THREE, MIRROR], ids=str)
def test_a_superblock_that_does_not_fit_makes_no_member_stale(subject):
    """However often it is tried: the others must not run ahead of a member that stays in use."""
    for at in range(1, 8):
        plan = Plan(plans.GROWING, at, NoSpace, True, "d1")
        life = array_cuts.live(5, subject, Tally(), Scope(plan=plan))
        array_cuts.check_errors(life, plan)
        for wreck in campaign.wrecks(life.points, random.Random(0), 2):
            array_cuts.judge(life, wreck, random.Random(0), Tally())
