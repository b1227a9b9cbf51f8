"""The simulated machine that simulated disks are plugged into: one logical time, one power supply, one fault plan.

All that happens to its disks is counted here in one sequence, so that a test can say "run once, count the operations,
then cut the power at each of them" and "let the n-th operation fail", and so that two runs of one seed can be compared.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from orionfs.clock import Clock, SystemClock
from orionfs.errors import DeviceError, MediaError

#: The operations that change a disk: those that are counted, and at which power is cut.
CHANGES = frozenset({"write", "write_zeroes", "discard", "flush"})
#: Every operation that may be told to fail.
OPERATIONS = CHANGES | {"read"}


class PowerCut(BaseException):
    """The power is off: nothing that comes after this reaches any disk.

    Not an Exception, because nothing under test may survive it.
    """


@dataclass(slots=True)
class Fault:
    """The *at*-th operation (1-based) of *kinds*, on *disk* or on any, raises *error*.

    With *forever* the disk that it met fails all later operations of *kinds* too.  ``hits`` counts what really failed:
    a test that asserts it cannot pass by never meeting its fault.  ``since`` is the tick of the first of them.
    """

    error: type[DeviceError]
    kinds: Collection[str]
    at: int
    disk: str | None = None
    forever: bool = False
    seen: int = 0
    hits: int = 0
    met: str | None = None
    since: int = 0

    def strikes(self, disk: str, kind: str) -> bool:
        """Whether this operation fails; counts it."""
        if kind not in self.kinds or (self.disk is not None and disk != self.disk):
            return False
        self.seen += 1
        if self.seen == self.at:
            self.met = disk
        elif not (self.forever and self.met == disk):
            return False
        self.hits += 1
        return True


class Machine:
    """Power, logical time, faults and the trace of one simulated host.

    ``tick`` grows with everything that happens, so two ticks say which came first.  ``operations`` counts the
    submitted :data:`CHANGES`.  *observer*, if set, is called with each counted operation right after its submission and
    before any of its effects are complete, and after each completed flush: at these moments it may take snapshots.
    """

    def __init__(self, seed: int = 0, *, clock: Clock | None = None) -> None:
        self.seed = seed
        self.clock: Clock = SystemClock() if clock is None else clock
        self.tick = 0
        self.operations = 0
        self.cut_at: int | None = None
        self.on = True
        self.observer: Callable[[], None] | None = None
        self.faults: list[Fault] = []
        self._trace = hashlib.blake2b(digest_size=16)

    # --- time and chance -------------------------------------------------------------------------------------------

    def next_tick(self) -> int:
        """The next moment of logical time."""
        self.tick += 1
        return self.tick

    def random(self, label: str) -> random.Random:
        """A generator of its own for *label*, the same for the same seed."""
        return random.Random(f"{self.seed}/{label}")

    def trace(self, *facts: object) -> None:
        """Add *facts* to the trace: values only, nothing whose repr holds an address."""
        self._trace.update(repr(facts).encode())

    def trace_hash(self) -> str:
        """A digest of all that was traced so far."""
        return self._trace.hexdigest()

    # --- faults ----------------------------------------------------------------------------------------------------

    def fail(
        self,
        kinds: Collection[str] | str,
        *,
        at: int = 1,
        error: type[DeviceError] = MediaError,
        disk: str | None = None,
        forever: bool = False,
    ) -> Fault:
        """Plan a fault, counted from now on; see :class:`Fault`."""
        wanted = frozenset({kinds}) if isinstance(kinds, str) else frozenset(kinds)
        unknown = wanted - OPERATIONS
        if unknown or at < 1:
            raise ValueError(f"no such fault: {sorted(unknown)} at {at}")
        fault = Fault(error, wanted, at, disk, forever)
        self.faults.append(fault)
        return fault

    # --- what the disks call ---------------------------------------------------------------------------------------

    def admit(self, disk: str, kind: str, offset: int, length: int) -> DeviceError | None:
        """Called before an operation begins: the error that it shall end with, if any."""
        if not self.on:
            raise PowerCut
        self.trace(kind, disk, offset, length)
        struck = [fault for fault in self.faults if fault.strikes(disk, kind)]
        if not struck:
            return None
        self.trace("fault", struck[0].error.__name__)
        for fault in struck:
            fault.since = fault.since or self.tick
        return struck[0].error(f"{disk}: simulated fault of {kind} ({length} bytes at {offset})")

    def submitted(self) -> None:
        """Called when a change has been submitted: counts it, and cuts the power if its turn has come."""
        self.operations += 1
        if self.observer is not None:
            self.observer()
        if self.operations == self.cut_at:
            self.cut()

    def settled(self) -> None:
        """Called when a flush has completed."""
        if self.observer is not None:
            self.observer()

    def cut(self) -> None:
        """Switch off.  Raises :class:`PowerCut`; so does every later operation of every disk."""
        self.on = False
        raise PowerCut
