"""Random work for a device, with an oracle that watches: the user's side of every campaign.

A workload is drawn once, as data, so that a failing one can be printed, shrunk and run again.  It is a list of
*rounds*; the steps of one round run at the same time.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import trio

from orionfs.device import Geometry, StorageDevice
from orionfs.errors import DeviceError, Unsupported
from orionfs.testing.oracle import Oracle, Write, render
from orionfs.testing.simulation import Simulation
from orionfs.units import SECTOR

#: How often each kind of step is drawn.
WEIGHTS = {"write": 50, "flush": 18, "read": 12, "write_zeroes": 6, "discard": 6, "idle": 8}
#: Simulated seconds of an idle step: longer than it takes any array to mark itself clean.
IDLE_S = 0.5


class Step(NamedTuple):
    """One request; ``offset`` and ``length`` are bytes, 0 for ``flush``, ``idle`` and ``manage``."""

    kind: str
    offset: int = 0
    length: int = 0


Round = tuple[Step, ...]


def draw(
    generator: random.Random, geometry: Geometry, count: int, *, together: int = 3, managing: int = 0
) -> list[Round]:
    """About *count* steps for a device of that *geometry*, up to *together* of them at a time.

    *managing* is the weight of ``manage`` steps beside :data:`WEIGHTS`.  Offsets come back to a few hot places, lengths
    are what matters to a striped device: one block, parts of a chunk, a whole stripe, several.
    """
    hot = [_place(generator, geometry) for _ in range(3)]
    weights = {**WEIGHTS, "manage": managing} if managing else WEIGHTS
    rounds: list[Round] = []
    drawn = 0
    while drawn < count:
        size = 1 if generator.random() < 0.5 else generator.randint(1, together)
        rounds.append(tuple(_step(generator, geometry, hot, weights) for _ in range(size)))
        drawn += size
    return rounds


def _place(generator: random.Random, geometry: Geometry) -> int:
    return generator.randrange(geometry.size // geometry.logical_block) * geometry.logical_block


def _step(generator: random.Random, geometry: Geometry, hot: Sequence[int], weights: Mapping[str, int]) -> Step:
    kind = generator.choices(list(weights), list(weights.values()))[0]
    if kind in {"flush", "idle", "manage"}:
        return Step(kind)
    block = geometry.logical_block
    width = geometry.stripe_width or 4 * geometry.preferred_io
    offset = generator.choice(hot) if generator.random() < 0.6 else _place(generator, geometry)
    lot = generator.random()
    if lot < 0.25:
        length = block
    elif lot < 0.6:
        length = generator.randint(1, max(1, width // block)) * block
    elif lot < 0.85:
        offset -= offset % width
        length = width * generator.randint(1, 3)
    else:
        length = generator.randint(1, max(1, 3 * width // block)) * block
    return Step(kind, offset, min(length, geometry.size - offset))


@dataclass
class User:
    """Carries out a workload on *device* and tells *oracle*.

    ``errors`` holds the requests that failed: what that means is for the campaign to say.  ``acknowledged`` counts the
    flushes that came back, ``writes`` the writes that did.  ``impatience`` is the chance that a request is cancelled
    after a few checkpoints; ``cancelled`` counts those that really were.  ``manage`` does the ``manage`` steps: what an
    administrator does to the device, told whether anything else goes on at the same time.
    """

    simulation: Simulation
    device: StorageDevice
    oracle: Oracle
    errors: list[tuple[Step, DeviceError]] = field(default_factory=list)
    impatience: float = 0.0
    manage: Callable[[bool], Awaitable[None]] | None = None
    acknowledged: int = 0
    writes: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self._random = self.simulation.random("user")

    async def work(self, rounds: Sequence[Round]) -> None:
        """Do it all.  Violations that reads find are raised."""
        for steps in rounds:
            if len(steps) == 1:
                if steps[0].kind == "manage" and self.manage is not None:
                    await self.manage(False)
                else:
                    await self.step(steps[0])
                continue
            async with trio.open_nursery() as nursery:
                for step in steps:
                    nursery.start_soon(self.step, step)

    async def step(self, step: Step) -> None:
        """One request; its DeviceError is recorded."""
        self.simulation.trace("step", *step)
        if step.kind == "manage":
            if self.manage is not None:
                await self.manage(True)
            return
        if self._random.random() >= self.impatience:
            await self._attempt(step)
            return
        patience = self._random.choice((0, 1, 2, 3, 5, 9))
        async with trio.open_nursery() as nursery:

            async def attempt() -> None:
                await self._attempt(step)
                nursery.cancel_scope.cancel()

            nursery.start_soon(attempt)
            for _ in range(patience):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    async def _attempt(self, step: Step) -> None:
        try:
            match step.kind:
                case "idle":
                    await self.simulation.environment.clock.sleep(IDLE_S)
                case "flush":
                    await self._flush()
                case "read":
                    await self._read(step)
                case _:
                    await self._change(step)
        except Unsupported:
            if step.kind != "discard":
                raise
        except DeviceError as error:
            self.simulation.trace("error", type(error).__name__)
            self.errors.append((step, error))

    async def read_all(self) -> bytes:
        """The whole device, unchecked."""
        buffer = bytearray(self.device.geometry.size)
        await self.device.read(0, [buffer])
        return bytes(buffer)

    async def _flush(self) -> None:
        began = self.oracle.flush_begins()
        await self.device.flush()
        self.oracle.flush_done(began)
        self.acknowledged += 1

    async def _read(self, step: Step) -> None:
        buffers = split(bytearray(step.length), self._random)
        began = self.oracle.read_begins()
        if self._random.random() < 0.5 or not self.device.try_read(step.offset, buffers):
            await self.device.read(step.offset, buffers)
        self.oracle.check_read(step.offset // SECTOR, b"".join(buffers), began)

    async def _change(self, step: Step) -> None:
        write = self.oracle.issue(
            step.offset // SECTOR,
            step.length // SECTOR,
            zero=step.kind != "write",
            optional=step.kind == "discard",
            what=step.kind,
        )
        try:
            await self._carry_out(write, step)
        except BaseException as error:  # an error or a cancellation: old or new from now on
            self.oracle.failed(write)
            self.cancelled += isinstance(error, trio.Cancelled)
            raise
        self.oracle.done(write)
        self.writes += 1

    async def _carry_out(self, write: Write, step: Step) -> None:
        if step.kind == "discard":
            await self.device.discard(step.offset, step.length)
        elif step.kind == "write_zeroes":
            await self.device.write_zeroes(step.offset, step.length)
        else:
            buffers = split(bytearray(render(write.tags)), self._random)
            if self._random.random() < 0.5 or not self.device.try_write(step.offset, buffers):
                await self.device.write(step.offset, buffers)


def split(data: bytearray, generator: random.Random) -> list[memoryview]:
    """*data* as one buffer or several."""
    view = memoryview(data)
    if generator.random() < 0.5:
        return [view]
    cuts = sorted({generator.randrange(len(data) + 1) for _ in range(3)} | {0, len(data)})
    return [view[low:high] for low, high in pairwise(cuts)]
