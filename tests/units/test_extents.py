"""Extents: merging and overlaps."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from orionfs.extents import Extent, Kind, merge, overlaps


@st.composite
def runs(draw):
    offset = draw(st.integers(0, 100))
    extents = []
    for length, kind in draw(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(Kind)), max_size=20)):
        extents.append(Extent(offset, length, kind))
        offset += length
    return extents


def by_byte(extents):
    return {extent.offset + index: extent.kind for extent in extents for index in range(extent.length)}


@given(runs())
def test_merging_changes_nothing_but_the_borders(extents):
    merged = list(merge(extents))
    assert by_byte(merged) == by_byte(extents)
    assert all(extent.length for extent in merged)
    for one, other in itertools.pairwise(merged):
        assert one.end == other.offset
        assert one.kind is not other.kind


def test_extents_with_a_gap_are_not_joined():
    apart = [Extent(0, 1, Kind.DATA), Extent(2, 1, Kind.DATA)]
    assert list(merge(apart)) == apart


@given(*[st.integers(0, 10)] * 4)
def test_overlapping_is_sharing_a_byte(start, end, other_start, other_end):
    shared = set(range(start, end)) & set(range(other_start, other_end))
    if start < end and other_start < other_end:
        assert overlaps(start, end, other_start, other_end) == bool(shared)
