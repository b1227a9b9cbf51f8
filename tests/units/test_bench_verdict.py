"""From samples to verdicts: the arithmetic of tools/bench."""

from collections import Counter
from itertools import pairwise, permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orionfs.tools.benchmarks.rounds import balanced
from orionfs.tools.benchmarks.verdict import (
    ROUNDS_FOR_A_VERDICT,
    Status,
    best_peer,
    judge_limit,
    judge_ratio,
    spread,
)

RATES = st.floats(min_value=1, max_value=1e10)


def pairs(minimum: int = ROUNDS_FOR_A_VERDICT):
    return st.lists(st.tuples(RATES, RATES), min_size=minimum, max_size=25)


@given(pairs(), st.floats(min_value=0.01, max_value=100))
def test_a_bar_is_met_exactly_when_at_least_half_of_the_rounds_reach_it(rounds, at_least):
    assume(len(rounds) % 2 == 1)
    ours, theirs = zip(*rounds, strict=True)
    reached = sum(our / their >= at_least for our, their in rounds)
    verdict = judge_ratio(ours, {"peer": theirs}, at_least)
    assert verdict.status is (Status.MET if reached > len(rounds) / 2 else Status.SHORT)


@given(pairs(), st.lists(st.floats(min_value=0.1, max_value=10), min_size=25, max_size=25))
def test_a_machine_that_is_slower_in_some_rounds_changes_no_ratio(rounds, speeds):
    ours, theirs = zip(*rounds, strict=True)
    calm = judge_ratio(ours, {"peer": theirs}, 1.0)
    noisy = judge_ratio(
        [rate * speed for rate, speed in zip(ours, speeds, strict=False)],
        {"peer": [rate * speed for rate, speed in zip(theirs, speeds, strict=False)]},
        1.0,
    )
    assert noisy.figure is not None
    assert calm.figure is not None
    assert noisy.figure.median == pytest.approx(calm.figure.median)


def test_the_ratio_is_the_median_of_ratios_not_the_ratio_of_medians():
    ours = [10.0, 100.0, 1000.0, 10.0, 100.0, 1000.0, 100.0]
    theirs = [5.0, 400.0, 500.0, 5.0, 400.0, 500.0, 400.0]
    verdict = judge_ratio(ours, {"peer": theirs}, 1.0)
    assert verdict.figure is not None
    assert verdict.figure.median == 2.0
    assert verdict.status is Status.MET


def test_of_two_peers_the_one_with_the_higher_median_counts():
    ours = [100.0] * 7
    peers = {"slow": [50.0] * 6 + [1e6], "fast": [80.0] * 7}
    assert best_peer(peers) == "fast"
    verdict = judge_ratio(ours, peers, 2.0)
    assert (verdict.peer, verdict.status) == ("fast", Status.SHORT)


@pytest.mark.parametrize("rounds", range(1, ROUNDS_FOR_A_VERDICT))
def test_too_few_rounds_give_a_figure_but_no_verdict(rounds):
    verdict = judge_ratio([2.0] * rounds, {"peer": [1.0] * rounds}, 1.0)
    assert verdict.status is Status.NO_VERDICT
    assert verdict.figure is not None
    assert verdict.figure.median == 2.0
    assert str(rounds) in verdict.reason


def test_of_latencies_the_lower_one_is_the_better_peer():
    peers = {"slow": [50.0] * 7, "fast": [20.0] * 7}
    verdict = judge_ratio([30.0] * 7, peers, None, 1.5, lower=True)
    assert (verdict.peer, verdict.status) == ("fast", Status.MET)
    assert judge_ratio([30.1] * 7, peers, None, 1.5, lower=True).status is Status.SHORT


def test_without_peers_the_figures_themselves_are_judged():
    assert judge_ratio([5.0] * 7, {}, 5.0).status is Status.MET
    assert judge_ratio([5.0] * 7, {}, 5.1).status is Status.SHORT


def test_where_nothing_has_to_be_reached_there_is_no_verdict():
    assert judge_ratio([5.0], {"peer": [10.0]}, None).status is Status.INFORMATION
    assert judge_limit([5.0], None).status is Status.INFORMATION


def test_a_limit_may_have_to_be_reached():
    assert judge_limit([1.0], None, 1.0).status is Status.MET
    assert judge_limit([0.9], None, 1.0).status is Status.SHORT


def test_rounds_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        judge_ratio([1.0] * 8, {"peer": [1.0] * 7}, 1.0)


def test_a_limit_has_to_be_stayed_below():
    assert judge_limit([19.9], 20).status is Status.MET
    assert judge_limit([20.0], 20).status is Status.SHORT
    assert judge_limit([1.0, 1.0, 500.0], 20).status is Status.MET


@given(st.lists(RATES, min_size=1, max_size=30))
def test_quartiles_enclose_the_median_and_lie_among_the_samples(samples):
    figure = spread(samples)
    assert min(samples) <= figure.low <= figure.median <= figure.high <= max(samples)
    assert figure.count == len(samples)


@given(st.integers(0, 12))
def test_over_as_many_rounds_as_stacks_each_is_once_at_every_place(count):
    orders = [balanced(range(count), index) for index in range(count)]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert all(sorted(place) == list(range(count)) for place in zip(*orders, strict=True))


@given(st.integers(2, 12))
def test_over_twice_as_many_rounds_each_stack_follows_every_other_equally_often(count):
    rounds = count if count % 2 == 0 else 2 * count
    followers = Counter(pair for index in range(rounds) for pair in pairwise(balanced(range(count), index)))
    assert followers == {pair: rounds // count for pair in permutations(range(count), 2)}
