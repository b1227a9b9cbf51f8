"""What the tests of backends share."""

from collections import Counter
from contextlib import contextmanager

import trio
import trio.testing

from orionfs.backends import OpenOptions
from orionfs.backends.file import FileDevice
from orionfs.clock import SystemClock
from orionfs.environment import Environment
from orionfs.threads import SystemThreads
from orionfs.units import MIB

SIZE = MIB
BLOCK = bytes(range(256)) * 16


class CountingThreads(SystemThreads):
    """Real workers that count what they are asked to run."""

    def __init__(self):
        self.ran = Counter()

    def worker(self, name):
        worker = super().worker(name)
        run = worker.run

        async def count(function, *args):
            self.ran[function.__name__] += 1
            return await run(function, *args)

        worker.run = count
        return worker


class SlowClock(SystemClock):
    """Every operation seems to take :attr:`step_ns`."""

    def __init__(self):
        self.step_ns = 1000
        self.now_ns = 0

    def elapsed_ns(self):
        self.now_ns += self.step_ns
        return self.now_ns


async def open_file(path, environment=None, **options):
    return await FileDevice.open(path, options=OpenOptions(**options), environment=environment or Environment())


@contextmanager
def opened(*gates):
    """Open the gates at the end whatever happens: what waits at them on a worker cannot be cancelled."""
    try:
        yield
    finally:
        for gate in gates:
            gate.set()


async def until(condition):
    """Wait for what a worker does."""
    with trio.fail_after(60):
        while not condition():
            await trio.lowlevel.checkpoint()
