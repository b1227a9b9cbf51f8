"""Consequences: what has to hold after an array came up from a cut: later cuts, members that go then, or come back."""

from __future__ import annotations

import random
from dataclasses import replace

from orionfs.errors import OrionError
from orionfs.testing.oracle import Violation

from . import campaign, closure
from .campaign import Life, Recovery, Tally, Wreck


def follow(life: Life, wreck: Wreck, recovery: Recovery, generator: random.Random, tally: Tally) -> None:
    """Redundancy is really back: every survivable set can go.  And a second cut, in the recovery, is no worse."""
    subject = life.subject
    now = subject.standing(wreck.states)
    if not recovery.points:
        return
    sets = subject.standing(recovery.states).survivable
    for removed in generator.sample(sets, min(4, len(sets))):
        remove(life, wreck, removed, recovery, tally)
    expected = None if wreck.killed else recovery.tags
    for second in campaign.wrecks(generator.sample(recovery.points, 1), generator, 2):
        tally.count("double cuts")
        again = second._replace(point=wreck.point, killed=False)
        later = subject.standing(again.states)
        if subject.refuses_in_doubt and later.doubtful:
            continue  # judged as a first cut already
        try:
            campaign.recover(life, again, expected=expected, only=closure.must_be_right(life, wreck, now))
        except (Violation, OrionError) as error:
            second_cut = f"operation {second.point.operation} of the recovery, {second.label}"
            raise Violation(f"after a second cut, at {second_cut}: {error}") from error


def absence(life: Life, wreck: Wreck, removed: frozenset[str], generator: random.Random, tally: Tally) -> None:
    """Run the wreck without *removed*, then have them back: whatever they missed is never read from them."""
    subject = life.subject.without(*removed)
    later = campaign.live_on(life, wreck, subject, generator.randint(0, 6))
    for step, error in later.errors:
        raise Violation(f"{step} failed without {', '.join(sorted(removed))}: {error!r}")
    missed = [(0, name, True) for name in sorted(removed)]
    later.moves = missed
    before = replace(life, moves=[*life.moves, *missed])
    points = generator.sample(later.points[:-1], min(2, len(later.points) - 1))
    for second in [*campaign.wrecks(points, generator, 2), *campaign.wrecks(later.points[-1:], generator, 1)]:
        tally.count("absent members returned")
        acknowledged = any(write.sure and 0 < (write.ended or 0) <= second.point.tick for write in later.oracle.history)
        more = life.subject.standing(second.states).survivable
        for gone, contents in closure.look(later, second, [frozenset(), *generator.sample(more, min(1, len(more)))]):
            now = life.subject.without(*gone).standing(second.states)
            # As long as nobody has recorded the absence, nothing can have been acknowledged since, and what was not
            # acknowledged before may turn out the other way.
            returned = removed - gone
            known = acknowledged or not returned or returned <= set(now.lost)
            # Nor is what was read from one member held against the others, before they have got it.
            earlier = (before, wreck) if gone or not known else None
            try:
                closure.check_one(later, second, gone, contents, tally, earlier=earlier)
            except Violation as error:
                when = f"operation {second.point.operation} of the life without {', '.join(sorted(removed))}"
                also = f", and {', '.join(sorted(gone))} gone" if gone else ""
                raise Violation(f"after a return, cut at {when}, {second.label}{also}: {error}") from error


def remove(life: Life, wreck: Wreck, removed: frozenset[str], recovery: Recovery, tally: Tally) -> None:
    """Start the recovered array without some members: everything is still there."""
    subject = life.subject.without(*removed)
    now = subject.standing(recovery.states)
    tally.count("members removed")
    if now.events != life.subject.standing(recovery.states).events:
        # Nothing was written in the recovery, and the newest account, of a loss or of being clean, went with the
        # member: what was never acknowledged may turn out the other way.
        closure.check_again(life, wreck, removed, recovery.states, tally)
    else:
        campaign.reread(life, subject, recovery.states, recovery.tags)
