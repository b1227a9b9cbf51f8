"""Simulation: runs async code so that one integer decides everything: time, scheduling, chance and faults.

Time is trio's MockClock, which jumps when every task waits.  Scheduling is trio's own, with its shuffle seeded.  Worker
threads run in place, because a real thread would let the clock jump over it.  The host filesystem is a dictionary.

Whatever the code under test asks of the world has to come from its Environment; then the trace of one seed is always
the same, and :func:`check_deterministic` holds it to that.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import trio
from trio._core import _run as trio_run
from trio.testing import MockClock

from orionfs.environment import Environment
from orionfs.testing.machine import Machine, PowerCut
from orionfs.threads import Worker

T = TypeVar("T")

#: Simulated time begins here: 2001-09-09 01:46:40 UTC.
EPOCH_NS = 1_000_000_000 * 1_000_000_000


class SimClock:
    """The run's MockClock.  Two sleeps never end at the very same moment: trio would break the tie by address."""

    def __init__(self) -> None:
        self._sleeps = 0

    def monotonic(self) -> float:
        """Seconds since the run began."""
        return trio.current_time()

    def elapsed_ns(self) -> int:
        """The same in nanoseconds."""
        return round(trio.current_time() * 1e9)

    def wall_ns(self) -> int:
        """Nanoseconds since 1970, counted from :data:`EPOCH_NS`."""
        return EPOCH_NS + self.elapsed_ns()

    async def sleep(self, seconds: float) -> None:
        """Let *seconds* pass; 0 is a checkpoint and nothing more."""
        if seconds <= 0:
            await trio.lowlevel.checkpoint()
            return
        self._sleeps += 1
        await trio.sleep(seconds + self._sleeps * 1e-9)


class SimRandomness:
    """Bytes drawn from the seed."""

    def __init__(self, generator: random.Random) -> None:
        self._generator = generator

    def bytes(self, count: int) -> bytes:
        """*count* bytes."""
        return self._generator.randbytes(count)


class InlineWorker:
    """Runs each call in place, after a checkpoint."""

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """``function(*args)``."""
        await trio.lowlevel.checkpoint()
        return function(*args)

    def close(self) -> None:
        """There is nothing to end."""


class InlineThreads:
    """Workers that are no threads."""

    def worker(self, name: str) -> Worker:
        """An :class:`InlineWorker`."""
        return InlineWorker()


@dataclass
class RamHostFs:
    """The files that OrionFS keeps for itself, in a dictionary; a replaced file is durable at once."""

    files: dict[Path, bytes] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)

    def read(self, path: Path) -> bytes:
        """The contents of *path*; FileNotFoundError if there is none."""
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", str(path)) from None

    def replace(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Make *path* hold *data*."""
        self.files[path] = bytes(data)

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Remember the folder and its parents."""
        self.folders.update({path, *path.parents})


class Simulation:
    """What the simulated code gets: a machine to plug disks into, and an environment."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        clock = SimClock()
        self.machine = Machine(seed, clock=clock)
        self.hostfs = RamHostFs()
        randomness = SimRandomness(self.machine.random("randomness"))
        self.environment = Environment(clock, randomness, InlineThreads(), self.hostfs)

    def random(self, label: str) -> random.Random:
        """A generator of its own for *label*."""
        return self.machine.random(label)

    def trace(self, *facts: object) -> None:
        """Add *facts* to the trace that two runs of one seed must agree on."""
        self.machine.trace(*facts)


@dataclass(frozen=True)
class Result(Generic[T]):
    """How a run ended: its *value* (None after a power cut), its trace, and the simulated seconds that it took."""

    value: T | None
    trace: str
    seconds: float
    power_cut: bool


def run(seed: int, function: Callable[[Simulation], Awaitable[T]], *, cut_at: int | None = None) -> Result[T]:
    """Run ``function(simulation)`` to its end, or to the power cut at its *cut_at*-th operation.

    What *function* raises is raised here, out of the groups that nurseries put around a sole exception.  A PowerCut in
    company of other errors is not the end that was planned: then these are raised.
    """
    simulation = Simulation(seed)
    simulation.machine.cut_at = cut_at
    clock = MockClock(autojump_threshold=0)
    value: T | None = None
    power_cut = False

    async def main() -> T:
        return await function(simulation)

    with seeded_scheduling(seed):
        try:
            value = trio.run(main, clock=clock)
        except PowerCut:
            power_cut = True
        except BaseExceptionGroup as group:
            _cuts, others = group.split(PowerCut)
            if others is not None:
                raise _sole(others) from None
            power_cut = True
    simulation.trace("end", round(clock.current_time(), 6), power_cut)
    return Result(value, simulation.machine.trace_hash(), clock.current_time(), power_cut)


def _sole(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextmanager
def seeded_scheduling(seed: int) -> Iterator[None]:
    """Make trio schedule by *seed* within the block.

    It shuffles each batch of runnable tasks with a generator of its own; sorted first and seeded, the order is always
    the same.  (This is what trio offers to Hypothesis; there is no public way.)
    """
    was = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010  (declared Final)
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", was)  # noqa: B010
        trio_run._r.setstate(state)


def check_deterministic(seed: int, function: Callable[[Simulation], Awaitable[T]]) -> Result[T]:
    """Run twice and raise AssertionError unless both traces are the same."""
    first, second = run(seed, function), run(seed, function)
    if first.trace != second.trace:
        raise AssertionError(f"seed {seed} ran differently the second time: something goes around the environment")
    return second
