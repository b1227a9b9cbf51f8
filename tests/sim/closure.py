"""Closure: what must hold at each cut, whichever members are taken away with it.

For a state that a cut or a kill left, and for every set of members that the level can do without, the array is brought
up from what is left and read.  What that must give depends on how the array keeps its parity true:

- journal: it starts; each 4 KiB are old or new, everything flushed is there, everything else is as it was.  A stripe
  that was written as a whole, straight to its members, and was not flushed yet may reconstruct to anything on the
  members that are gone; with ``whole_stripes = "journal"`` there is no such exception.
- ppl: it starts; every block that was not being written is as it was.
- resync: dirty and degraded is refused; else as with copies.
- copies, or no redundancy: it starts; each block is old or new.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from orionfs.errors import OrionError, Refused
from orionfs.testing.crash import PAGE, DiskState
from orionfs.testing.oracle import Mask, Oracle, Tags, Violation, read_tags
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation
from orionfs.testing.workload import User
from orionfs.units import SECTOR

from .campaign import Life, Tally, Wreck
from .scale import simulate


class Look(NamedTuple):
    """What an array showed that was brought up without *removed*: its contents, or why it did not start."""

    removed: frozenset[str]
    contents: bytes | OrionError


def look(life: Life, wreck: Wreck, sets: Sequence[frozenset[str]]) -> list[Look]:
    """Bring the wreck up without each of *sets* in turn, and read everything; nothing is kept of any of it."""

    async def main(sim: Simulation) -> list[Look]:
        found = []
        for removed in sets:
            disks = [SimDisk.restored(state, machine=sim.machine, inline=1.0) for state in wreck.states]
            subject = life.subject.without(*removed)
            try:
                device = await subject.start(sim, disks)
                contents: bytes | OrionError = await User(sim, device, life.oracle).read_all()
            except OrionError as error:
                contents = error
            found.append(Look(removed, contents))
        return found

    return simulate(life.seed, main)


def check(life: Life, wreck: Wreck, generator: random.Random, tally: Tally, limit: int) -> None:
    """Hold the rule against the wreck as it is, and without up to *limit* of the survivable sets.

    Raises Violation.
    """
    sets = life.subject.standing(wreck.states).survivable
    if len(sets) > limit:
        sets = generator.sample(sets, limit)
    for removed, contents in look(life, wreck, [frozenset(), *sets]):
        try:
            check_one(life, wreck, removed, contents, tally)
        except Violation as error:
            if not removed:
                raise
            raise Violation(f"without {', '.join(sorted(removed))}: {error}") from error


def check_again(life: Life, wreck: Wreck, removed: frozenset[str], states: Sequence[DiskState], tally: Tally) -> None:
    """Hold the rule against what has become of the wreck since, without *removed*."""
    later = wreck._replace(states=tuple(states))
    for _removed, contents in look(life, later, [removed]):
        check_one(life, later, removed, contents, tally)


def check_one(
    life: Life,
    wreck: Wreck,
    removed: frozenset[str],
    contents: bytes | OrionError,
    tally: Tally,
    *,
    earlier: tuple[Life, Wreck] | None = None,
) -> None:
    """Hold the rule against what the wreck showed without *removed*.

    With *earlier*, the life before this one and how it ended, blocks that no write is sure to have reached since may
    be as they could be then, too.
    """
    subject = life.subject
    now = subject.without(*removed).standing(wreck.states)
    kind = "killed" if wreck.killed else "cut"
    doubt = f"{'dirty' if now.dirty else 'clean'} {'degraded' if now.degraded else 'whole'}"
    tally.count(f"{kind} and members removed" if removed else f"{kind}, {doubt}")
    must_refuse = now.doubtful and subject.refuses_in_doubt
    if isinstance(contents, OrionError):
        if not must_refuse and not now.survives_without(life.failing(wreck.point.tick)):
            tally.count("beyond what can be missed")  # a member had failed that is not on record as failed yet
            return
        check_refusal(contents, must_refuse)
        tally.count("refused")
        return
    if must_refuse:
        raise Violation("the array is dirty and degraded, and it started")
    judge_contents(life, wreck, now, contents, earlier)
    if removed and now.doubtful:
        tally.count("dirty, and read without members")


def check_refusal(error: OrionError, right: bool) -> None:
    """A refusal has to be right, and to say so in the right words."""
    if not right:
        raise Violation(f"the array does not start: {error}") from error
    if not isinstance(error, Refused) or "dirty and degraded" not in str(error) or "-o force" not in error.hint:
        raise Violation(f"refused in other words than dirty and degraded: {error}") from error


def judge_contents(
    life: Life, wreck: Wreck, now: Any, contents: bytes, earlier: tuple[Life, Wreck] | None = None
) -> Tags:
    """Hold the rule against *contents*, what the members that *now* speaks of have shown; the tags."""
    oracle, at = life.oracle, wreck.point.tick
    settled_before = at + 1 if wreck.killed else oracle.durable_before(at)
    only = must_be_right(life, wreck, now)
    if earlier is not None:
        before, end = earlier
        possible = before.oracle.possible(read_tags(contents, 0), end.point.tick) | ~must_be_right(before, end, now)
        only &= ~(oracle.unsettled_blocks(at) & possible)
    if wreck.killed:
        tags = oracle.check_kill(contents, at, only=only, observed=not now.lost)
    else:
        tags = oracle.check_cut(contents, at, only=only)
    unit = life.subject.atomic_unit
    if unit > SECTOR:
        sound = only & ~in_place(life.subject, oracle, now, at, settled_before)
        oracle.check_units(tags, unit // SECTOR, at, settled_before, only=sound)
    elif wreck.killed and life.subject.logical_block == PAGE:
        oracle.check_units(tags, PAGE // SECTOR, at, settled_before, only=only)
    return tags


def must_be_right(life: Life, wreck: Wreck, now: Any) -> Mask:
    """The blocks that must be old or new, as *now* stands; the others may be anything."""
    subject, oracle, at = life.subject, life.oracle, wreck.point.tick
    anything = np.zeros(oracle.blocks, np.bool_)
    # Who had failed may be on record as failed nowhere but in the log.
    failing = life.failing(at)
    if subject.logged and (now.degraded or failing):
        settled_before = at + 1 if wreck.killed else oracle.durable_before(at)
        anything = in_place(subject, oracle, now, at, settled_before)
        if subject.consistency == "ppl":
            for write in oracle.unsettled(at, settled_before):
                anything[write.first : write.end] = True
        anything &= now.unheld(failing)
    return ~anything


def in_place(subject: Any, oracle: Oracle, now: Any, at: int, settled_before: int) -> Mask:
    """The blocks of stripes that are being written as a whole, straight to their members."""
    blocks = np.zeros(oracle.blocks, np.bool_)
    if subject.whole_stripes == "in-place":
        for write in oracle.unsettled(at, settled_before):
            blocks |= now.whole_stripes(write.first, write.end)
    return blocks
