"""Arrays lose nothing that was acknowledged: not to power cuts, not to kills, not to members that fail, come and go.

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
from .arrays import PARITY
from .campaign import Tally
from .plans import Plan

REDUNDANT = (*arrays.REDUNDANT, "raid50")
#: Levels and seeds of a few lives that are cut on each change.  The campaigns proper run with --long.
EACH_CHANGE = {"linear": 2, "raid0": 2, "raid1": 4, "raid4": 2, "raid5": 4, "raid6": 2, "raid10": 3}
#: Seeds of the campaign that runs on each change, and how many states they have to meet; with --long, many more.
SEEDS = {"linear": 4, "raid0": 4, "raid1": 30, "raid4": 16, "raid5": 36, "raid6": 12, "raid10": 24, "raid50": 8}
STATES = {
    "linear": 400,
    "raid0": 400,
    "raid1": 3000,
    "raid4": 3000,
    "raid5": 5200,
    "raid6": 4000,
    "raid10": 3000,
    "raid50": 1400,
}
EVERY = {"linear": 1, "raid0": 1}


# --- power cuts and kills --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", EACH_CHANGE)
def test_a_few_lives_that_are_cut(level):
    tally = Tally()
    for seed in range(EACH_CHANGE[level]):
        array_cuts.run(seed, level, tally, every=6, thorough=8)
    print(level, tally)
    assert tally.states >= 20 * EACH_CHANGE[level], tally
    assert tally.acknowledged >= 1, tally


def test_the_campaigns_are_large_enough():
    assert sum(STATES.values()) >= 20_000
    assert SEEDS.keys() == STATES.keys()
    assert set(REDUNDANT) < set(SEEDS)


@pytest.mark.long
@pytest.mark.parametrize("level", SEEDS)
def test_nothing_acknowledged_is_lost_by_a_cut_at_any_operation(level):
    """The closure rule: as it is, and with every survivable set of members gone, as far as these are drawn."""
    tally = Tally()
    seeds = SEEDS[level]
    for seed in range(seeds):
        array_cuts.run(seed, level, tally, every=EVERY.get(level, 3), thorough=8)
    print(level, tally)
    assert tally.states >= STATES[level], tally
    assert tally.acknowledged >= seeds, tally
    if level in REDUNDANT:
        assert tally["cut and members removed"] >= STATES[level], tally
        assert tally["killed and members removed"] >= STATES[level] // 5, tally
        for kind in ("cut, clean whole", "cut, dirty whole", "killed, clean whole", "killed, dirty whole"):
            assert tally[kind] >= 2 * seeds, tally
        assert tally["dirty, and read without members"] >= STATES[level] // 5, tally
        assert tally["absent members returned"] >= 5 * seeds, tally
        assert tally["double cuts"] >= seeds, tally
    if level in PARITY:
        assert tally["refused"] >= 50, tally


@pytest.mark.long
@pytest.mark.parametrize("level", REDUNDANT)
def test_nothing_is_lost_when_a_member_fails_and_then_the_power(level):
    """The stale member is there at assembly: what it missed must never be read from it."""
    tally = Tally()
    seeds = 10
    for seed in range(seeds):
        plan = plans.draw_plan(random.Random(seed))
        array_cuts.run(seed, level, tally, plan=plan, per_point=4, every=6, thorough=4)
    print(level, tally)
    assert tally["faults met"] >= seeds // 2, tally
    assert tally["cut, clean degraded"] + tally["killed, clean degraded"] >= 5, tally
    assert tally["cut, dirty degraded"] + tally["killed, dirty degraded"] >= 20, tally


@pytest.mark.long
@pytest.mark.parametrize("level", ["linear", "raid0"])
def test_without_redundancy_a_fault_is_an_error_and_what_was_acknowledged_is_there(level):
    tally = Tally()
    errors = 0
    for seed in range(8):
        plan = plans.draw_plan(random.Random(seed))
        errors += len(array_cuts.run(seed, level, tally, plan=plan, per_point=4).errors)
    print(level, tally)
    assert tally["faults met"] >= 4, tally
    assert errors >= tally["faults met"] // 2


@pytest.mark.long
@pytest.mark.parametrize("level", arrays.REDUNDANT)
def test_nothing_is_lost_while_members_come_and_go(level):
    """Failed, removed, added, replaced, taken back by the bitmap, stopped and started, in the middle of the work."""
    tally = Tally()
    for seed in range(12):
        array_cuts.run(seed, level, tally, managing=30, per_point=3, every=6, thorough=6)
    print(level, tally)
    assert tally.states >= 400, tally
    for what in ("add", "fail", "break", "readd", "replace", "restart"):
        assert tally[f"managed: {what}"] >= 1, tally


@pytest.mark.long
@pytest.mark.parametrize("level", SEEDS)
def test_requests_that_are_given_up_leave_everything_consistent(level):
    """Cancelled at any checkpoint: each block is old or new, and redundancy is complete in the end."""
    tally = Tally()
    for seed in range(500, 512):
        array_cuts.run(seed, level, tally, per_point=2, every=12, impatience=0.7)
    print(level, tally)
    assert tally["requests cancelled"] >= (12 if level in REDUNDANT else 4), tally


# --- the n-th operation fails ----------------------------------------------------------------------------------------

#: Arrays and workloads with many operations of each kind.
NTH_SEED = {"raid1": 32, "raid5": 4, "raid6": 7}


def nth(level: str, kinds: frozenset[str], error: type[OrionError], forever: bool, step: int = 1) -> Tally:
    """Fail the n-th operation of *kinds*, for every n until the workload no longer gets that far."""
    tally = Tally()
    at = 1
    while True:
        met = tally["faults met"]
        plan = Plan(kinds, at, error, forever)
        array_cuts.run(NTH_SEED[level], level, tally, plan=plan, per_point=2, every=40)
        if tally["faults met"] == met:
            return tally
        at += step


@pytest.mark.long
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
@pytest.mark.parametrize("level", NTH_SEED)
def test_any_operation_may_fail(level, kinds, error, forever):
    tally = nth(level, frozenset(kinds), error, forever, step=2 if kinds == {"read"} else 7)
    print(level, tally)
    assert tally.lives >= 4, tally
    assert tally["faults met"] >= tally.lives - 1, tally


@pytest.mark.long
@pytest.mark.long
@pytest.mark.parametrize("level", NTH_SEED)
def test_every_operation_may_fail(level):
    for kinds in ("write", "read", "flush", "write_zeroes", "discard"):
        for error in (MediaError, TimedOut, *([NoSpace] if kinds in plans.GROWING else [])):
            for forever in (False, True):
                nth(level, frozenset({kinds}), error, forever)


# --- what the campaigns cover ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_seeds_draw_every_layout_and_kind_of_array():
    drawn = [subjects.draw(seed, level) for level in arrays.REDUNDANT for seed in range(200)]
    for name in arrays.REDUNDANT:
        layouts = {subject.layout for subject in drawn if subject.level == name}
        assert layouts == (set(LEVELS[name].layouts) if len(LEVELS[name].layouts) > 1 else {""}), name
    for noun in ("consistency", "whole_stripes", "write_policy", "bitmap_chunk", "data_offset", "logical_block"):
        for level in PARITY:
            assert len({getattr(subject, noun) for subject in drawn if subject.level == level}) > 1, (noun, level)
    assert {len(subject.sizes) for subject in drawn if subject.level == "raid5"} >= {2, 3, 4, 5}
    assert {len(subject.sizes) for subject in drawn if subject.level == "raid6"} >= {4, 5, 6}
    assert {len(subject.sizes) for subject in drawn if subject.level == "raid1"} >= {2, 3}
    few = [subjects.draw(seed, "raid5") for seed in range(SEEDS["raid5"])]
    assert {subject.consistency for subject in few} == {"journal", "ppl", "resync"}
    assert any(len(set(subjects.draw(seed, "raid0").sizes)) > 1 for seed in range(SEEDS["raid0"]))


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


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_an_array_asks_the_world_for_nothing(seed):
    def outcome():
        try:
            return simulation.check_deterministic(seed, _run_of_an_array).trace
        except OrionError as error:  # closing a failed array without redundancy
            return str(error)

    assert outcome() == outcome()
