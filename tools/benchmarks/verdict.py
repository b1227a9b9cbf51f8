"""From the samples of the rounds to a verdict.  Pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

#: Below this many rounds a median of ratios says nothing on a noisy machine, and no verdict is given.
ROUNDS_FOR_A_VERDICT = 7


class Status(StrEnum):
    """What became of a row.  Only MET counts as met: a bar that cannot be measured is not."""

    MET = "met"
    SHORT = "SHORT"
    NOT_MEASURED = "not measured"
    NO_VERDICT = "too few rounds"


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of *count* samples."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judged row.  ``figure`` is None if there was nothing to judge, and ``reason`` then says why."""

    status: Status
    figure: Spread | None
    peer: str = ""
    reason: str = ""


def spread(samples: Sequence[float]) -> Spread:
    """Median and quartiles of at least one sample."""
    if len(samples) == 1:
        return Spread(samples[0], samples[0], samples[0], 1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(median, low, high, len(samples))


def best_peer(peers: Mapping[str, Sequence[float]]) -> str:
    """The peer with the highest median; the better of two is one peer, not the better of each round."""
    return max(peers, key=lambda name: statistics.median(peers[name]))


def judge_ratio(ours: Sequence[float], peers: Mapping[str, Sequence[float]], at_least: float) -> Verdict:
    """Judge our rates against the best peer's, round by round.

    Samples at the same index were taken side by side in one round, so whatever slowed the machine then cancels out.
    Raises ValueError if the numbers of rounds differ.
    """
    peer = best_peer(peers)
    ratios = [our / their for our, their in zip(ours, peers[peer], strict=True)]
    figure = spread(ratios)
    if figure.count < ROUNDS_FOR_A_VERDICT:
        return Verdict(
            Status.NO_VERDICT, figure, peer, f"{figure.count} of the {ROUNDS_FOR_A_VERDICT} rounds that a verdict needs"
        )
    return Verdict(Status.MET if figure.median >= at_least else Status.SHORT, figure, peer)


def judge_limit(samples: Sequence[float], below: float) -> Verdict:
    """Judge a figure whose median has to stay below a limit."""
    figure = spread(samples)
    return Verdict(Status.MET if figure.median < below else Status.SHORT, figure)
