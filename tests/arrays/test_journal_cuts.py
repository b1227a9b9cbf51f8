"""Power cuts and kills of an array with a journal: nothing that was flushed is lost, whoever is missing afterwards."""

from __future__ import annotations

import pytest

from orionfs.testing.oracle import Violation

from .journal_cuts import draw, live, trial
from .journal_plants import PLANTS

SEEDS = (11, 12, 20, 27)


@pytest.mark.parametrize("fault", ["", "member", "space", "cancel"])
def test_no_cut_loses_anything(fault):
    assert sum(trial(seed, fault=fault, every=9, per_point=3, again=1) for seed in SEEDS) > 400


@pytest.mark.long
@pytest.mark.parametrize("fault", ["", "member", "space", "cancel"])
def test_no_cut_of_many_loses_anything(fault):
    for seed in range(100, 130):
        assert trial(seed, fault=fault, every=2, per_point=6, again=2) > 500


def test_the_lives_have_seen_something():
    lives = [live(seed, fault=fault) for seed in SEEDS for fault in ("member", "space")]
    assert sum(life.notes["acknowledged"] for life in lives) > 10
    assert any(life.losses for life in lives)
    assert any(life.errors for life in lives)
    shapes = [draw(seed) for seed in SEEDS]
    assert {shape.parities for shape in shapes} == {1, 2}
    assert {shape.policies["whole_stripes"] for shape in shapes} == {"in-place", "journal"}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant):
    found = False
    for seed in range(1, 9):
        try:
            trial(seed, patch=plant.patch, **plant.how)
        except Violation:
            found = True
            break
    assert found
