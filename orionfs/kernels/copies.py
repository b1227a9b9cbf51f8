"""Copies that should be the same: where they are not, and which of them the others agree on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from orionfs.buffers import Buffer


class Disagreement(NamedTuple):
    """Blocks [first, end) in which the copies *wrong* differ from the copy *winner*.

    *sure*: more than half of all copies are as the winner is.  If not, the winner is the first copy.
    """

    first: int
    end: int
    winner: int
    wrong: tuple[int, ...]
    sure: bool


def vote(copies: Sequence[Buffer], block: int, *, first_wins: bool = False) -> list[Disagreement]:
    """Where *copies* (of one length, a multiple of *block*, itself one of 8) differ, as runs of blocks in order.

    Block by block, what more than half of the copies hold wins, or else what the first one holds; with *first_wins*,
    always the latter.
    """
    rows = [np.frombuffer(copy, np.uint64).reshape(-1, block // 8) for copy in copies]
    suspicious = np.zeros(len(rows[0]), np.bool_)
    for row in rows[1:]:
        suspicious |= (row != rows[0]).any(axis=1)
    places = np.flatnonzero(suspicious)
    if not len(places):
        return []
    values = np.stack([row[places] for row in rows])
    same = np.stack([(values == value).all(axis=2) for value in values])
    agreeing = same.sum(axis=1)
    winners = np.zeros(len(places), np.intp) if first_wins else agreeing.argmax(axis=0)
    sure = np.zeros(len(places), np.bool_) if first_wins else agreeing.max(axis=0) * 2 > len(copies)
    winners[~sure] = 0
    wrong = ~same[winners, :, np.arange(len(places))]
    found: list[Disagreement] = []
    for index, place in enumerate(places.tolist()):
        losers = tuple(np.flatnonzero(wrong[index]).tolist())
        run = Disagreement(place, place + 1, int(winners[index]), losers, bool(sure[index]))
        last = found[-1] if found else None
        if last is not None and last.end == place and last[2:] == run[2:]:
            found[-1] = last._replace(end=run.end)
        else:
            found.append(run)
    return found
