"""From the samples of the rounds to a verdict.  Pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

#: Below this many rounds a median of ratios says nothing on a noisy machine, and no verdict is given.
ROUNDS_FOR_A_VERDICT = 7


class Status(StrEnum):
    """What became of a row.  Only MET counts as met: a bar that cannot be measured is not.

    INFORMATION is the one that is not counted at all: there was nothing to reach.
    """

    MET = "met"
    SHORT = "SHORT"
    NOT_MEASURED = "not measured"
    NO_VERDICT = "too few rounds"
    INFORMATION = "for information"


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


def best_peer(peers: Mapping[str, Sequence[float]], *, lower: bool = False) -> str:
    """The peer with the highest median (the *lower*: lowest); the better of two is one peer, not of each round."""
    choose = min if lower else max
    return choose(peers, key=lambda name: statistics.median(peers[name]))


def judge_ratio(
    ours: Sequence[float],
    peers: Mapping[str, Sequence[float]],
    at_least: float | None,
    at_most: float | None = None,
    *,
    lower: bool = False,
) -> Verdict:
    """Judge our figures against the best peer's, round by round; *lower*: the lower figure is the better one.

    Samples at the same index were taken side by side in one round, so whatever slowed the machine then cancels out.
    Without *peers* our own figures are judged.  Raises ValueError if the numbers of rounds differ.
    """
    peer = best_peer(peers, lower=lower) if peers else ""
    figures = [our / their for our, their in zip(ours, peers[peer], strict=True)] if peers else ours
    figure = spread(figures)
    if at_least is None and at_most is None:
        return Verdict(Status.INFORMATION, figure, peer)
    if figure.count < ROUNDS_FOR_A_VERDICT:
        return Verdict(
            Status.NO_VERDICT, figure, peer, f"{figure.count} of the {ROUNDS_FOR_A_VERDICT} rounds that a verdict needs"
        )
    reached = (at_least is None or figure.median >= at_least) and (at_most is None or figure.median <= at_most)
    return Verdict(Status.MET if reached else Status.SHORT, figure, peer)


def judge_limit(samples: Sequence[float], below: float | None, at_least: float | None = None) -> Verdict:
    """Judge a figure whose median has to stay below a limit, or to reach one."""
    figure = spread(samples)
    if below is None and at_least is None:
        return Verdict(Status.INFORMATION, figure)
    reached = (below is None or figure.median < below) and (at_least is None or figure.median >= at_least)
    return Verdict(Status.MET if reached else Status.SHORT, figure)
