"""Arrays lose nothing that was acknowledged: not to power cuts, not to kills, not to members that fail.

The figures are minimums: a campaign that met fewer cuts, acknowledged flushes or faults than it claims fails.
"""

import random

import pytest

from orionfs.array.levels import LEVELS
from orionfs.errors import MediaError, NoSpace, OrionError, TimedOut
from orionfs.testing import simulation, workload
from orionfs.testing.machine import CHANGES
from orionfs.testing.oracle import Oracle
from orionfs.testing.workload import User

from . import array_cuts, arrays, plans, subjects
from .campaign import Tally
from .plans import Plan

REDUNDANT = tuple(level for level in arrays.REDUNDANT if level in LEVELS)
#: Seeds of the campaigns that run on each change; with --long, many more.
SEEDS = {"linear": 8, "raid0": 8, "raid1": 16, "raid5": 18, "raid50": 4}
FAULTY_SEEDS = {"linear": 8, "raid0": 8, "raid1": 24, "raid5": 24}


# --- power cuts and kills --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", SEEDS)
def test_nothing_acknowledged_is_lost_by_a_cut_at_any_operation(level):
    tally = Tally()
    for seed in range(SEEDS[level]):
        array_cuts.run(seed, level, tally)
    print(level, tally)
    assert tally.states >= 70 * SEEDS[level], tally
    assert tally.acknowledged >= SEEDS[level], tally
    assert tally["double cuts"] >= 12 * SEEDS[level], tally
    if level in REDUNDANT:
        assert tally["cut, clean whole"] >= 12 * SEEDS[level], tally
        assert tally["cut, dirty whole"] >= 70 * SEEDS[level], tally
        assert tally["killed, clean whole"] >= 5 * SEEDS[level], tally
        assert tally["killed, dirty whole"] >= 20 * SEEDS[level], tally
        assert tally["members removed"] >= 40 * SEEDS[level], tally


@pytest.mark.parametrize("level", REDUNDANT)
def test_nothing_is_lost_when_a_member_fails_and_then_the_power(level):
    """The stale member is there at assembly: what it missed must never be read from it."""
    tally = Tally()
    for seed in range(FAULTY_SEEDS[level]):
        array_cuts.run(seed, level, tally, plan=plans.draw_plan(random.Random(seed)), per_point=4, every=2)
    print(level, tally)
    seeds = FAULTY_SEEDS[level]
    assert tally["faults met"] >= seeds // 2, tally
    assert tally["cut, clean degraded"] >= 2 * seeds, tally
    assert tally["cut, dirty degraded"] >= 6 * seeds, tally
    assert tally["killed, clean degraded"] >= seeds // 2, tally
    assert tally["killed, dirty degraded"] >= 2 * seeds, tally
    if level == "raid5":
        assert tally["refused and forced"] >= 6 * seeds, tally


@pytest.mark.parametrize("level", ["linear", "raid0"])
def test_without_redundancy_a_fault_is_an_error_and_what_was_acknowledged_is_there(level):
    tally = Tally()
    errors = 0
    for seed in range(FAULTY_SEEDS[level]):
        plan = plans.draw_plan(random.Random(seed))
        errors += len(array_cuts.run(seed, level, tally, plan=plan, per_point=4).errors)
    print(level, tally)
    assert tally["faults met"] >= FAULTY_SEEDS[level] // 2, tally
    assert errors >= tally["faults met"] // 2


@pytest.mark.parametrize("level", SEEDS)
def test_requests_that_are_given_up_leave_everything_consistent(level):
    """Cancelled at any checkpoint: each block is old or new, and redundancy is complete in the end."""
    tally = Tally()
    for seed in range(500, 516):
        array_cuts.run(seed, level, tally, per_point=2, every=8, impatience=0.7)
    print(level, tally)
    assert tally["requests cancelled"] >= (20 if level in REDUNDANT else 5), tally


@pytest.mark.long
@pytest.mark.parametrize("level", SEEDS)
def test_nothing_acknowledged_is_lost_in_the_long_campaign(level):
    tally = Tally()
    for seed in range(1000, 1060):
        array_cuts.run(seed, level, tally, per_point=16)
        array_cuts.run(seed, level, tally, plan=plans.draw_plan(random.Random(seed)), per_point=12)
        array_cuts.run(seed, level, tally, per_point=4, impatience=0.7)
    print(level, tally)
    assert tally.states >= 10_000, tally


#: Arrays and workloads with many operations of each kind.
NTH_SEED = {"raid1": 32, "raid5": 4}


# --- the n-th operation fails ----------------------------------------------------------------------------------------


def nth(level: str, kinds: frozenset[str], error: type[OrionError], forever: bool, step: int = 1) -> Tally:
    """Fail the n-th operation of *kinds*, for every n until the workload no longer gets that far."""
    tally = Tally()
    at = 1
    while True:
        met = tally["faults met"]
        plan = Plan(kinds, at, error, forever)
        array_cuts.run(NTH_SEED[level], level, tally, plan=plan, per_point=2, every=25)
        if tally["faults met"] == met:
            return tally
        at += step


@pytest.mark.parametrize("forever", [False, True], ids=["once", "forever"])
@pytest.mark.parametrize(
    ("kinds", "error"),
    [
        ({"write"}, MediaError),
        ({"read"}, MediaError),
        ({"flush"}, MediaError),
        (plans.GROWING, NoSpace),
        (CHANGES, TimedOut),
    ],
    ids=["write", "read", "flush", "no-space", "time-out"],
)
@pytest.mark.parametrize("level", REDUNDANT)
def test_any_operation_may_fail(level, kinds, error, forever):
    tally = nth(level, frozenset(kinds), error, forever, step=1 if kinds == {"read"} else 3)
    print(level, tally)
    assert tally.lives >= 5, tally
    assert tally["faults met"] >= tally.lives - 1, tally


@pytest.mark.long
@pytest.mark.parametrize("level", REDUNDANT)
def test_every_operation_may_fail(level):
    for kinds in ("write", "read", "flush", "write_zeroes", "discard"):
        for error in (MediaError, TimedOut, *([NoSpace] if kinds in plans.GROWING else [])):
            for forever in (False, True):
                nth(level, frozenset({kinds}), error, forever)


# --- what the campaigns cover ----------------------------------------------------------------------------------------


def test_the_seeds_draw_every_layout_and_kind_of_array():
    drawn = [subjects.draw(seed, level) for level, seeds in SEEDS.items() for seed in range(seeds)]
    for name, level in LEVELS.items():
        layouts = {subject.layout for subject in drawn if subject.level == name}
        assert layouts == (set(level.layouts) if len(level.layouts) > 1 else {""}), name
    assert {subject.logical_block for subject in drawn} == {512, 4096}
    assert {len(subject.sizes) for subject in drawn if subject.level == "raid5"} >= {2, 3, 4, 5}
    assert {len(subject.sizes) for subject in drawn if subject.level == "raid1"} >= {2, 3}
    assert any(len(set(subject.sizes)) > 1 for subject in drawn if subject.level == "raid0")


async def _run_of_an_array(sim):
    subject = subjects.draw(sim.seed)
    disks = subject.make_disks(sim)
    await subject.create(sim, disks)
    async with subject.open(sim, disks) as device:
        oracle = Oracle(device.geometry.size // 512, sim.machine.next_tick)
        sim.machine.fail(CHANGES, at=sim.random("fault").randint(20, 60), forever=True)
        user = User(sim, device, oracle)
        await user.work(workload.draw(sim.random("workload"), device.geometry, 20))
        sim.trace(device.describe().to_json())


@pytest.mark.parametrize("seed", range(12))
def test_an_array_asks_the_world_for_nothing(seed):
    def outcome():
        try:
            return simulation.check_deterministic(seed, _run_of_an_array).trace
        except OrionError as error:  # closing a failed array without redundancy
            return str(error)

    assert outcome() == outcome()
