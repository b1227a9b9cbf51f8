"""The seams, bundled: all that a device may want from the outside world.

A device gets an :class:`Environment` when it is opened and uses nothing else, which is what makes the whole stack below
FUSE run inside a deterministic simulator.  A lint test bans ``time``, ``random``, ``os.urandom``, ``threading`` and
``trio.to_thread`` everywhere but in the seams.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from orionfs.clock import Clock, SystemClock
from orionfs.hostfs import HostFs, SystemHostFs
from orionfs.randomness import Randomness, SystemRandomness
from orionfs.threads import SystemThreads, Threads


@dataclass(frozen=True, slots=True)
class Environment:
    """Time, chance, threads and the host filesystem; by default the real ones."""

    clock: Clock = field(default_factory=SystemClock)
    randomness: Randomness = field(default_factory=SystemRandomness)
    threads: Threads = field(default_factory=SystemThreads)
    hostfs: HostFs = field(default_factory=SystemHostFs)
