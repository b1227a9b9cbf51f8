"""Plans: what a campaign does with one seed: faults, how many cuts, how thoroughly each is looked into."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from orionfs.errors import DeviceError, MediaError, NoSpace, TimedOut, TransportError
from orionfs.testing.machine import OPERATIONS

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


@dataclass(frozen=True)
class Scope:
    """How far a campaign goes with one seed.

    The life has *plan*'s fault; *impatience* is the chance that a request is cancelled, *managing* the weight of the
    steps of an administrator; *consistency* is drawn unless it is given.  It is cut at every *every*-th point in up to
    *per_point* ways (None: all).  Each state is held against the closure rule with up to *sets* sets of members
    removed; one in *thorough* is brought up for good.
    """

    plan: Plan | None = None
    impatience: float = 0.0
    managing: int = 0
    consistency: str = ""
    per_point: int | None = 6
    every: int = 1
    sets: int = 2
    thorough: int = 3

    def __str__(self) -> str:
        values = [(each.name, getattr(self, each.name), each.default) for each in fields(self)]
        return " ".join(f"{name}={value}" for name, value, default in values if value != default)

    @classmethod
    def parse(cls, words: Sequence[str]) -> Scope:
        """The scope that its text stands for."""
        values: dict[str, Any] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name == "plan":
                values[name] = Plan.parse(value)
            elif name == "consistency":
                values[name] = value
            elif value == "None":
                values[name] = None
            else:
                values[name] = float(value) if name == "impatience" else int(value)
        return cls(**values)
