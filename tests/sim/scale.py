"""Toy scale: what a real array does once in some seconds, a simulated one does often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar
from unittest import mock

from orionfs.array import array, journal, recovery
from orionfs.testing import simulation
from orionfs.testing.simulation import Simulation

T = TypeVar("T")

#: How often bits of a bitmap are cleared, the position of a rebuild is recorded, and a journal put in place.
_TIMES = ((array, "TIDY_EVERY_S", 0.4), (recovery, "CHECKPOINT_S", 0.0), (journal, "IDLE_S", 0.3))


@contextmanager
def toy() -> Iterator[None]:
    """Within the block all that is so."""
    with ExitStack() as stack:
        for module, name, seconds in _TIMES:
            stack.enter_context(mock.patch.object(module, name, seconds))
        yield


def simulate(seed: int, function: Callable[[Simulation], Awaitable[T]]) -> T:
    """What *function* returns, in a simulation of that *seed* at toy scale."""
    with toy():
        value = simulation.run(seed, function).value
    assert value is not None
    return value
