"""Campaigns over arrays: power cuts, kills, second cuts, members that fail; and the verdict that each state deserves.

``python -m tests.sim.array_cuts SEED LEVEL [NAME=VALUE]...`` runs one seed again; the names are those of
:class:`~tests.sim.plans.Scope`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from orionfs.errors import NoSpace, OrionError
from orionfs.testing.oracle import Violation
from orionfs.testing.simulation import Simulation

from . import campaign, closure, consequences, subjects
from .campaign import Life, Tally, Wreck
from .plans import Plan, Scope

STEPS = (3, 24)


def run(seed: int, level: str, tally: Tally, *, patch: Callable[[Any], None] | None = None, **scope: Any) -> Life:
    """One life of an array drawn from *seed*, cut as *scope* says (see :class:`Scope`), each state judged.

    Raises Violation with the whole story and the command that tells it again.
    """
    return run_scope(seed, level, tally, Scope(**scope), patch)


def run_scope(seed: int, level: str, tally: Tally, scope: Scope, patch: Callable[[Any], None] | None = None) -> Life:
    """As :func:`run`."""
    subject = subjects.draw(seed, level, spares=2 if scope.managing else 0, consistency=scope.consistency)
    subject = replace(subject, patch=patch)
    generator = random.Random(f"cuts/{seed}")
    life, wreck = None, None
    try:
        life = live(seed, subject, tally, scope)
        check_errors(life, scope.plan)
        points = life.points[generator.randrange(scope.every) :: scope.every]
        states = chain(campaign.wrecks(points, generator, scope.per_point), campaign.kills(points))
        for number, wreck in enumerate(states):
            judge(life, wreck, generator, tally, sets=scope.sets, thorough=number % scope.thorough == 0)
    except (Violation, OrionError) as error:
        story = campaign.explain(life, wreck, error) if life is not None else str(error)
        command = f"python -m tests.sim.array_cuts {seed} {level} {scope}".rstrip()
        raise Violation(f"{subject}\nagain: {command}\n{story}") from error
    return life


def live(seed: int, subject: Any, tally: Tally, scope: Scope) -> Life:
    """The life that *seed* stands for; counts it and the faults that it met."""

    def prepare(sim: Simulation) -> None:
        if scope.plan is not None:
            kinds, at, error, forever, disk = scope.plan
            sim.machine.fail(kinds, at=at, error=error, disk=disk, forever=forever)

    steps = random.Random(f"steps/{seed}").randint(*STEPS)
    life = campaign.live(seed, subject, steps, prepare=prepare, impatience=scope.impatience, managing=scope.managing)
    tally.add(life)
    tally.count("requests cancelled", life.cancelled)
    for what in life.managed:
        tally.count(f"managed: {what.split()[2]}")
    for fault in life.faults:
        tally.count("faults met", fault.hits)
        tally.count(f"lives that met {fault.error.__name__}", bool(fault.hits))
    return life


def check_errors(life: Life, plan: Plan | None) -> None:
    """While redundancy holds, users see no error; a full backing store is the exception, and is called by its name."""
    for step, error in life.errors:
        if plan is None and not life.managed:
            raise Violation(f"{step} failed without a fault: {error!r}")
        if life.subject.redundant and not (plan and plan.error is NoSpace and isinstance(error, NoSpace)):
            raise Violation(f"{step} failed although redundancy holds: {error!r}")


def judge(
    life: Life, wreck: Wreck, generator: random.Random, tally: Tally, *, sets: int = 2, thorough: bool = True
) -> None:
    """Hold the closure rule against a wreck; if *thorough*, also bring it up for good, and see what follows from that.

    A wreck that is rightly refused is forced up then, and what could not be in doubt has to be there.
    """
    subject: Any = life.subject
    tally.states += 1
    closure.check(life, wreck, generator, tally, sets)
    if not thorough:
        return
    now = subject.standing(wreck.states)
    if not wreck.killed and now.survivable and generator.random() < 0.5:
        removed = generator.choice(now.survivable)
        left = subject.without(*removed).standing(wreck.states)
        if not (left.doubtful and subject.refuses_in_doubt) and left.survives_without(life.failing(wreck.point.tick)):
            consequences.absence(life, wreck, removed, generator, tally)
    if now.doubtful and subject.refuses_in_doubt:
        at = wreck.point.tick
        doubtful = now.stripes_of(life.oracle.open_blocks(at))
        campaign.recover(life, wreck, subject=subject.forced(), only=~doubtful)
        tally.count("refused and forced")
        return
    only = closure.must_be_right(life, wreck, now)
    recovery = campaign.recover(life, wreck, only=only, record=generator.random() < 0.3)
    tally.count("brought up")
    consequences.follow(life, wreck, recovery, generator, tally)


def main(arguments: Sequence[str]) -> None:
    """Run one seed again."""
    tally = Tally()
    seed, level, *words = arguments
    run_scope(int(seed), level, tally, Scope.parse(words))
    print(tally)


if __name__ == "__main__":
    main(sys.argv[1:])
