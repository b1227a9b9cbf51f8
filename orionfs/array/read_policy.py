"""Read policies: which of several good copies serves a read.

A policy only chooses.  Whichever copy it names, the bytes are the same; where copies may differ, the engine does not
ask it.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import NamedTuple

from orionfs.array.policies import ReadPolicy
from orionfs.array.raid10_layout import Place
from orionfs.array.transfer import Transfer
from orionfs.clock import Clock
from orionfs.units import KIB

#: Latencies below this are all the same: such reads come from memory.
TRIFLE_NS = 20_000
#: A member that is too slow is asked now and then, to see whether it still is: not before so many reads have gone
#: elsewhere, nor before they have taken so many times what its read is going to take.
SAMPLE_EVERY = 128
_SAMPLE_PRICE = 16
#: A read of this length counts half of what it took, longer ones less: most of that is their length.
_HALF_LENGTH = 64 * KIB
#: Members that are equally good share reads in regions of this size (as a shift), so that each caches its own part.
_REGION_SHIFT = 20


class Readable(NamedTuple):
    """The copies of a chunk that may serve reads.

    The first of ``places`` is the one that counts where they may differ; those of the nearest far zone come before the
    others, and there are ``near`` of them.
    """

    places: tuple[Place, ...]
    near: int

    @classmethod
    def of(cls, places: Sequence[Place]) -> Readable:
        """Of *places* in order of their zones."""
        return cls(tuple(places), sum(1 for place in places if place.zone == places[0].zone))


class CopyChoice(abc.ABC):
    """Chooses copies, and hears how the reads went (:class:`~orionfs.array.transfer.ReadWatch`)."""

    #: Whether it wants to know of reads that were served at once.
    curious = False

    @abc.abstractmethod
    def choose(self, readable: Readable, base: int) -> Place:
        """One of ``readable.places`` (two or more), whose bytes lie at ``base + place.delta`` of its member."""

    def served(self, slot: int, end: int) -> None:  # noqa: B027 - not all want to know
        """A read up to *end* of a data area needed no waiting."""

    def began(self, slot: int) -> int:
        """A read has to wait for its device; what :meth:`ended` is to be told."""
        return 0

    def ended(self, transfer: Transfer, began: int) -> None:  # noqa: B027 - not all want to know
        """A read that had to wait is over."""


class RoundRobin(CopyChoice):
    """Each copy in turn, request by request."""

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, readable: Readable, base: int) -> Place:
        self._turn += 1
        return readable.places[self._turn % len(readable.places)]


class Nearest(CopyChoice):
    """The copy on the member whose last read ended nearest: short ways for heads, whole streams for read-ahead."""

    curious = True

    def __init__(self, members: int) -> None:
        self._ends = [0] * members

    def choose(self, readable: Readable, base: int) -> Place:
        ends = self._ends
        return min(readable.places, key=lambda place: abs(base + place.delta - ends[place.slot]))

    def served(self, slot: int, end: int) -> None:
        self._ends[slot] = end

    def ended(self, transfer: Transfer, began: int) -> None:
        self._ends[transfer.slot] = transfer.end


class Adaptive(CopyChoice):
    """The copies that have been fast lately, by a weighted mean of how long reads had to wait, and by who waits now.

    Members that differ by less than a factor of two, or by nothing worth mentioning, share the reads by region; of far
    copies, they prefer the first zone.  Slower ones get less than one read of :data:`SAMPLE_EVERY`.
    """

    def __init__(self, members: int, clock: Clock) -> None:
        self._elapsed_ns = clock.elapsed_ns
        self._means = [0] * members
        self._waiting = [0] * members
        self._turn = 0
        self._reads_since = 0  # a slow member was asked
        self._time_since = 0
        #: Somebody waits, or somebody is slow; if not, there is nothing to learn from reads that are served at once.
        self.curious = False

    def choose(self, readable: Readable, base: int) -> Place:
        places = readable.places
        if not self.curious:
            return places[(base >> _REGION_SHIFT) % readable.near]
        costs = [(self._means[place.slot] + TRIFLE_NS) * (self._waiting[place.slot] + 1) for place in places]
        least = min(costs)
        fast = [place for place, cost in zip(places, costs, strict=True) if cost <= 2 * least]
        if len(fast) < len(places):
            self._reads_since += 1
            self._time_since += least
            if self._reads_since >= SAMPLE_EVERY:
                slow = [(place, cost) for place, cost in zip(places, costs, strict=True) if cost > 2 * least]
                place, cost = slow[self._turn % len(slow)]
                if self._time_since >= cost * _SAMPLE_PRICE:
                    self._turn += 1
                    self._reads_since = self._time_since = 0
                    return place
        near = [place for place in fast if place.zone == fast[0].zone]
        return near[(base >> _REGION_SHIFT) % len(near)]

    def served(self, slot: int, end: int) -> None:
        self._note(slot, 0)

    def began(self, slot: int) -> int:
        self._waiting[slot] += 1
        self.curious = True
        return self._elapsed_ns()

    def ended(self, transfer: Transfer, began: int) -> None:
        took = self._elapsed_ns() - began
        self._waiting[transfer.slot] -= 1
        self._note(transfer.slot, took * _HALF_LENGTH // (_HALF_LENGTH + transfer.end - transfer.offset))

    def _note(self, slot: int, took: int) -> None:
        self._means[slot] += (took - self._means[slot]) // 4
        self.curious = max(self._means) >= TRIFLE_NS or any(self._waiting)


def make_choice(policy: ReadPolicy, members: int, clock: Clock) -> CopyChoice:
    """The choice that *policy* stands for, between *members* members."""
    match policy:
        case "round-robin":
            return RoundRobin()
        case "nearest":
            return Nearest(members)
        case "adaptive":
            return Adaptive(members, clock)
