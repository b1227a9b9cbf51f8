"""Campaigns over arrays: power cuts, kills, second cuts, members that fail; and the verdict that each state deserves.

``python -m tests.sim.array_cuts SEED LEVEL [FAULT [IMPATIENCE]]`` runs everything about one seed again, exhaustively.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, Refused, TimedOut, TransportError
from orionfs.testing.machine import OPERATIONS
from orionfs.testing.oracle import Violation
from orionfs.testing.simulation import Simulation

from . import arrays, campaign
from .arrays import ArraySubject, standing
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
    patch: Callable[[Any], None] | None = None,
    impatience: float = 0.0,
) -> Life:
    """One life of an array drawn from *seed*, with *plan*'s fault, cut at every *every*-th point; each state judged.

    *impatience* is the chance that a request is cancelled.

    Raises Violation with the whole story and the command that tells it again.
    """
    subject = replace(arrays.draw(seed, level), patch=patch)
    command = f"python -m tests.sim.array_cuts {seed} {level} {plan or '-'} {impatience}"
    generator = random.Random(f"cuts/{seed}")
    life, wreck = None, None
    try:
        life = live(seed, subject, plan, tally, impatience)
        check_errors(life, plan)
        points = life.points[generator.randrange(every) :: every]
        for wreck in [*campaign.wrecks(points, generator, per_point), *campaign.kills(points)]:
            recovery = judge(life, wreck, tally)
            if recovery is not None:
                consequences(life, wreck, recovery, generator, tally)
    except (Violation, OrionError) as error:
        story = campaign.explain(life, wreck, error) if life is not None else str(error)
        raise Violation(f"{subject}\nagain: {command}\n{story}") from error
    return life


def live(seed: int, subject: ArraySubject, plan: Plan | None, tally: Tally, impatience: float = 0.0) -> Life:
    """The life that *seed* stands for; counts it and the faults that it met."""
    faults = []

    def prepare(sim: Simulation) -> None:
        if plan is not None:
            kinds, at, error, forever, disk = plan
            faults.append(sim.machine.fail(kinds, at=at, error=error, disk=disk, forever=forever))

    steps = random.Random(f"steps/{seed}").randint(*STEPS)
    life = campaign.live(seed, subject, steps, prepare=prepare, impatience=impatience)
    tally.add(life)
    tally.count("requests cancelled", life.cancelled)
    for fault in faults:
        tally.count("faults met", fault.hits)
        tally.count(f"lives that met {fault.error.__name__}", bool(fault.hits))
    return life


def check_errors(life: Life, plan: Plan | None) -> None:
    """While redundancy holds, users see no error; a full backing store is the exception, and is called by its name."""
    for step, error in life.errors:
        if plan is None:
            raise Violation(f"{step} failed without a fault: {error!r}")
        if life.subject.redundant and not (plan.error is NoSpace and isinstance(error, NoSpace)):
            raise Violation(f"{step} failed although redundancy holds: {error!r}")


def judge(life: Life, wreck: Wreck, tally: Tally) -> Recovery | None:
    """Bring the wreck up if it may be, and hold the verdict of the array against what its superblocks say.

    None if it was rightly refused; it was forced up then, and what could not be in doubt was there.
    """
    subject: ArraySubject = life.subject
    now = standing(wreck.states, subject.absent)
    tally.states += 1
    tally.count(
        f"{'killed' if wreck.killed else 'cut'}, {'dirty' if now.dirty else 'clean'}"
        f" {'degraded' if now.lost else 'whole'}"
    )
    must_refuse = subject.level == "raid5" and now.dirty and bool(now.lost)
    try:
        recovery = campaign.recover(life, wreck, record=tally.states % 8 == 0)
    except OrionError as error:
        if not must_refuse:
            raise Violation(f"the array does not start: {error}") from error
        if not isinstance(error, Refused) or "dirty and degraded" not in str(error) or "-o force" not in error.hint:
            raise Violation(f"refused in other words than dirty and degraded: {error}") from error
        doubtful = subject.stripes_of(life.oracle.open_blocks(wreck.point.tick))
        campaign.recover(life, wreck, subject=replace(subject, force=True), only=~doubtful)
        tally.count("refused and forced")
        return None
    if must_refuse:
        raise Violation("the array is dirty and degraded, and it started")
    return recovery


def consequences(life: Life, wreck: Wreck, recovery: Recovery, generator: random.Random, tally: Tally) -> None:
    """Redundancy is really back: every survivable member can go.  And a second cut, in the recovery, is no worse."""
    subject: ArraySubject = life.subject
    now = standing(recovery.states, subject.absent)
    names = [state.name for state in recovery.states if state.name not in now.lost]
    spare = len(names) - 1 if subject.level == "raid1" else 1 - len(now.lost) if subject.level == "raid5" else 0
    if spare > 0 and recovery.points:
        for name in names:
            remove(life, subject.without(name), recovery, tally)
    if recovery.points:
        expected = None if wreck.killed else recovery.tags
        for second in campaign.wrecks(generator.sample(recovery.points, 1), generator, 2):
            tally.count("double cuts")
            again = second._replace(point=wreck.point, killed=False)
            if subject.level == "raid5" and now.lost and standing(again.states).dirty:
                continue  # judged as a first cut already
            try:
                campaign.recover(life, again, expected=expected)
            except (Violation, OrionError) as error:
                second_cut = f"operation {second.point.operation} of the recovery, {second.label}"
                raise Violation(f"after a second cut, at {second_cut}: {error}") from error


def remove(life: Life, subject: ArraySubject, recovery: Recovery, tally: Tally) -> None:
    """Start the recovered array without some members: everything is still there."""
    if subject.level == "raid5" and standing(recovery.states, subject.absent).dirty:
        # A cut while it was being marked clean, and no write since: the account that said so went with the member.
        tally.count("members removed in doubt")
        subject = replace(subject, force=True)
    campaign.reread(life, subject, recovery.states, recovery.tags)
    tally.count("members removed")


def main(arguments: Sequence[str]) -> None:
    tally = Tally()
    seed, level, plan, impatience = [*arguments, *("0", "raid5", "-", "0")[len(arguments) :]]
    fault = None if plan == "-" else Plan.parse(plan)
    run(int(seed), level, tally, plan=fault, per_point=None, impatience=float(impatience))
    print(tally)


if __name__ == "__main__":
    main(sys.argv[1:])
