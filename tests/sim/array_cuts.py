"""Campaigns over arrays: power cuts, kills, second cuts, members that fail; and the verdict that each state deserves.

``python -m tests.sim.array_cuts SEED LEVEL [FAULT [IMPATIENCE [MANAGING]]]`` runs everything about one seed again,
exhaustively.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, NamedTuple

from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, TimedOut, TransportError
from orionfs.testing.machine import OPERATIONS
from orionfs.testing.oracle import Violation
from orionfs.testing.simulation import Simulation

from . import campaign, closure, subjects
from .campaign import Life, Recovery, Tally, Wreck

STEPS = (3, 24)
#: What a full backing store refuses; it may also notice only when it flushes, which is the failure of a member.
GROWING = frozenset({"write", "write_zeroes"})


class Plan(NamedTuple):
    """A fault for one life; see :class:`orionfs.testing.machine.Fault`."""

    kinds: frozenset[str]
    at: int
    error: type[DeviceError]
    forever: bool
    disk: str | None = None

    def __str__(self) -> str:
        kinds = ",".join(sorted(self.kinds))
        return f"{kinds}:{self.at}:{self.error.__name__}:{'forever' if self.forever else 'once'}:{self.disk or '-'}"

    @classmethod
    def parse(cls, text: str) -> Plan:
        kinds, at, error, times, disk = text.split(":")
        known = {kind.__name__: kind for kind in (MediaError, NoSpace, TimedOut, TransportError)}
        return cls(
            frozenset(kinds.split(",")), int(at), known[error], times == "forever", None if disk == "-" else disk
        )


def draw_plan(generator: random.Random) -> Plan:
    """A fault that any array has to survive, at some operation."""
    some: list[frozenset[str]] = [frozenset({kind}) for kind in ("write", "flush", "read")]
    kinds = generator.choice([*some, OPERATIONS, OPERATIONS])
    error = generator.choice((MediaError, MediaError, TimedOut, TransportError, NoSpace))
    if error is NoSpace:
        kinds = kinds & GROWING or frozenset({"flush"})
    return Plan(kinds, generator.randint(1, 60), error, generator.random() < 0.6)


def run(
    seed: int,
    level: str,
    tally: Tally,
    *,
    plan: Plan | None = None,
    per_point: int | None = 6,
    every: int = 1,
    thorough: int = 3,
    sets: int = 2,
    patch: Callable[[Any], None] | None = None,
    impatience: float = 0.0,
    managing: int = 0,
) -> Life:
    """One life of an array drawn from *seed*, with *plan*'s fault, cut at every *every*-th point; each state judged.

    The closure rule is held against each state with up to *sets* sets of members removed; one in *thorough* is brought
    up for good.  *impatience* is the chance that a request is cancelled.

    Raises Violation with the whole story and the command that tells it again.
    """
    subject = replace(subjects.draw(seed, level, spares=2 if managing else 0), patch=patch)
    command = f"python -m tests.sim.array_cuts {seed} {level} {plan or '-'} {impatience} {managing}"
    generator = random.Random(f"cuts/{seed}")
    life, wreck = None, None
    try:
        life = live(seed, subject, plan, tally, impatience, managing)
        check_errors(life, plan)
        points = life.points[generator.randrange(every) :: every]
        states = chain(campaign.wrecks(points, generator, per_point), campaign.kills(points))
        for number, wreck in enumerate(states):
            judge(life, wreck, generator, tally, sets=sets, thorough=number % thorough == 0)
    except (Violation, OrionError) as error:
        story = campaign.explain(life, wreck, error) if life is not None else str(error)
        raise Violation(f"{subject}\nagain: {command}\n{story}") from error
    return life


def live(seed: int, subject: Any, plan: Plan | None, tally: Tally, impatience: float = 0.0, managing: int = 0) -> Life:
    """The life that *seed* stands for; counts it and the faults that it met."""
    faults = []

    def prepare(sim: Simulation) -> None:
        if plan is not None:
            kinds, at, error, forever, disk = plan
            faults.append(sim.machine.fail(kinds, at=at, error=error, disk=disk, forever=forever))

    steps = random.Random(f"steps/{seed}").randint(*STEPS)
    life = campaign.live(seed, subject, steps, prepare=prepare, impatience=impatience, managing=managing)
    tally.add(life)
    tally.count("requests cancelled", life.cancelled)
    for what in life.managed:
        tally.count(f"managed: {what.split()[2]}")
    for fault in faults:
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
    if now.doubtful and subject.refuses_in_doubt:
        at = wreck.point.tick
        doubtful = now.stripes_of(life.oracle.open_blocks(at))
        campaign.recover(life, wreck, subject=subject.forced(), only=~doubtful)
        tally.count("refused and forced")
        return
    recovery = campaign.recover(life, wreck, record=tally["brought up"] % 3 == 0)
    tally.count("brought up")
    consequences(life, wreck, recovery, generator, tally)


def consequences(life: Life, wreck: Wreck, recovery: Recovery, generator: random.Random, tally: Tally) -> None:
    """Redundancy is really back: every survivable set can go.  And a second cut, in the recovery, is no worse."""
    subject: Any = life.subject
    now = subject.standing(recovery.states)
    if not recovery.points:
        return
    sets = now.survivable
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
            campaign.recover(life, again, expected=expected)
        except (Violation, OrionError) as error:
            second_cut = f"operation {second.point.operation} of the recovery, {second.label}"
            raise Violation(f"after a second cut, at {second_cut}: {error}") from error


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


def main(arguments: Sequence[str]) -> None:
    tally = Tally()
    seed, level, plan, impatience, managing = [*arguments, *("0", "raid5", "-", "0", "0")[len(arguments) :]]
    fault = None if plan == "-" else Plan.parse(plan)
    run(
        int(seed),
        level,
        tally,
        plan=fault,
        per_point=None,
        thorough=1,
        sets=64,
        impatience=float(impatience),
        managing=int(managing),
    )
    print(tally)


if __name__ == "__main__":
    main(sys.argv[1:])
