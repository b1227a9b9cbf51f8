"""When background jobs look for holes again."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.holes import Lookout
from orionfs.units import KIB, MIB

STEP = 64 * KIB


def looks(holes: list[bool]) -> list[int]:
    """The steps at which a pass over steps that are holes or not looks."""
    lookout, looked = Lookout(), []
    for step, hole in enumerate(holes):
        if lookout.due(step * STEP):
            looked.append(step)
            lookout.saw(step * STEP, hole=hole)
    return looked


@given(st.lists(st.booleans(), min_size=1, max_size=2000))
def test_a_stretch_between_two_looks_is_bounded_and_never_begins_with_a_hole(holes):
    looked = looks(holes)
    assert looked[0] == 0
    for at, following in pairwise([*looked, len(holes)]):
        assert following - at <= 8 * MIB // STEP
        assert following - at == 1 or not holes[at]


def test_where_everything_is_in_use_it_hardly_ever_looks():
    assert len(looks([False] * (512 * MIB // STEP))) < 80


def test_where_nothing_is_in_use_it_looks_at_every_step():
    assert looks([True] * 100) == list(range(100))
