"""The order in which nested arrays are opened, and who claims whom."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orionfs.config.graph import check_graph, claimed, inner_arrays, opening_order
from orionfs.config.spec import ArraySpec, Spec

NAMES = "abcdef"


def spec_of(members: dict[str, list[str]]) -> Spec:
    arrays = tuple(ArraySpec(name=name, level="raid0", members=tuple(of)) for name, of in members.items())
    return Spec(Path("/store/orionfs.toml"), Path("/store"), arrays)


#: Any graph over six arrays; each array is a member at most once, or the other check speaks up.
GRAPHS = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=3), min_size=1)


@given(GRAPHS)
def test_a_graph_has_an_opening_order_or_a_cycle_is_named(members: dict[str, list[str]]):
    spec = spec_of(members)
    cycles = [problem for problem in check_graph(spec) if "made of itself" in problem.message]
    if cycles:
        for problem in cycles:
            way = problem.message.partition("(")[2].rstrip(")").split(" -> ")
            assert way[0] == way[-1]
            assert all(inside in members[outside] for outside, inside in itertools.pairwise(way))
        return
    order = [array.name for array in opening_order(spec)]
    assert sorted(order) == sorted(members)
    for array in spec.arrays:
        for inner in inner_arrays(spec, array):
            assert order.index(inner.name) < order.index(array.name)


@given(GRAPHS)
def test_every_cycle_is_reported(members: dict[str, list[str]]):
    def reaches_itself(name: str) -> bool:
        seen: set[str] = set()
        todo = list(members[name])
        while todo:
            inner = todo.pop()
            if inner == name:
                return True
            if inner in members and inner not in seen:
                seen.add(inner)
                todo += members[inner]
        return False

    found = any("made of itself" in problem.message for problem in check_graph(spec_of(members)))
    assert found == any(reaches_itself(name) for name in members)


def test_an_inner_array_is_claimed_by_the_outer_one():
    assert claimed(spec_of({"top": ["left", "x"], "left": ["y"]})) == {"left": "top"}


def test_a_path_that_looks_like_an_array_is_a_file():
    spec = spec_of({"top": ["./left"], "left": ["y"]})
    assert claimed(spec) == {}
    assert check_graph(spec) == []
