"""Every campaign has to catch the mistakes that it is there for."""

import random

import pytest

from orionfs.array import verdict
from orionfs.errors import MediaError
from orionfs.testing.machine import OPERATIONS
from orionfs.testing.oracle import Violation

from . import array_cuts, planted, planted_logs, planted_members
from .campaign import Tally
from .plans import Plan, Scope, draw_plan

REDUNDANT = ("raid1", "raid5")
pytestmark = pytest.mark.long
#: No planted bug may take more states than this to be found.
BOUND = 6000
BUGS = [*planted.BUGS, *planted_logs.BUGS, *planted_members.BUGS]


def campaign_against(level, fault="", patch=None, consistency=""):
    """Forty seeds, thinned out: enough to catch what a planted bug does."""
    tally = Tally()
    for seed in range(40):
        at = random.Random(seed).randint(3, 20)
        plan = Plan(frozenset({fault}), at, MediaError, bool(seed % 2)) if fault in OPERATIONS else None
        array_cuts.run(
            seed,
            level,
            tally,
            plan=plan,
            every=4,
            patch=patch,
            impatience=0.7 if fault == "cancel" else 0.0,
            managing=40 if fault == "manage" else 0,
            consistency=consistency,
        )
        assert tally.states < BOUND, f"not found: {tally}"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.level}-{bug.name.replace(' ', '-')}")
def test_a_planted_bug_is_caught(bug):
    with pytest.raises(Violation), bug.around():
        campaign_against(bug.level, bug.fault, bug.patch, bug.consistency)


@pytest.mark.parametrize("level", REDUNDANT)
def test_a_verdict_that_trusts_stale_members_is_caught(level, monkeypatch):
    judge = verdict._reason_against

    def trusting(superblock, newest):
        reason = judge(superblock, newest)
        stale = reason is not None and reason[0] == "stale" and superblock.role < superblock.raid_disks
        return None if stale else reason

    monkeypatch.setattr(verdict, "_reason_against", trusting)
    with pytest.raises(Violation):
        campaign_against(level, "write")


@pytest.mark.parametrize("level", REDUNDANT)
def test_a_resync_that_never_ends_is_caught(level):
    with pytest.raises(Violation, match="does not end"):
        campaign_against(level, patch=planted.resync_never_ends)


def test_a_failing_seed_prints_the_command_that_repeats_it():
    bug = next(bug for bug in planted.BUGS if bug.level == "linear")
    with pytest.raises(Violation, match=r"again: python -m tests\.sim\.array_cuts 0 linear every=4\n"):
        array_cuts.run(0, "linear", Tally(), patch=bug.patch, every=4)
    scope = Scope(draw_plan(random.Random(1)), impatience=0.5, per_point=None, every=7)
    assert Scope.parse(str(scope).split()) == scope
    array_cuts.main(["1", "linear", *str(scope).split()])
