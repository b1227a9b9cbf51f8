"""Campaigns: record one life of a device, then try every way in which its disks may look after a cut.

A life is run once.  At each operation that changes a disk the recorder keeps the state of all disks, which is cheap;
from each of these *cut points* follow the states that a power cut or a kill could leave.  Each of those is brought up
again and judged by the oracle.  That is the same as running again and cutting there, as one of the tests shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import trio

from orionfs.device import StorageDevice
from orionfs.errors import DeviceError
from orionfs.testing import crash, workload
from orionfs.testing.crash import DiskState, Part
from orionfs.testing.machine import Fault
from orionfs.testing.oracle import Mask, Oracle, Tags, Violation, read_tags
from orionfs.testing.simdisk import SimDisk, after_cut, after_kill
from orionfs.testing.simulation import Simulation
from orionfs.testing.workload import Round, Step, User
from orionfs.units import SECTOR

from .operator import Operator
from .scale import simulate
from .standing import read_mark


class Subject(Protocol):
    """What is under test: how it is made and brought up, and what its disks must look like when all is well."""

    def make_disks(self, sim: Simulation) -> list[SimDisk]: ...

    async def create(self, sim: Simulation, disks: Sequence[SimDisk]) -> None: ...

    def open(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        """An async context manager: the device, with its background work running; closed at the end."""

    async def settle(self, sim: Simulation, device: StorageDevice) -> None:
        """Return when redundancy is complete again."""

    def check_redundancy(self, disks: Sequence[SimDisk]) -> None:
        """Raise Violation unless the copies, or the parity, of closed disks agree."""


class CutPoint(NamedTuple):
    tick: int
    operation: int
    states: tuple[DiskState, ...]

    @property
    def pending(self) -> list[crash.Pending]:
        found = [write for state in self.states for write in state.pending]
        return sorted(found, key=lambda write: write.submitted)


class Recorder:
    """Keeps a cut point for each operation of a machine."""

    def __init__(self, sim: Simulation, disks: Sequence[SimDisk]) -> None:
        self.points: list[CutPoint] = []
        self._machine = sim.machine
        self._disks = disks
        sim.machine.observer = self.keep

    def keep(self) -> None:
        states = tuple(disk.state() for disk in self._disks)
        self.points.append(CutPoint(self._machine.next_tick(), self._machine.operations, states))


@dataclass
class Life:
    """One recorded life.

    ``managed`` is what its administrator did; ``moves`` are those of :class:`~tests.sim.operator.Operator`, and
    ``faults`` what had been planned.
    """

    seed: int
    subject: Any
    rounds: list[Round]
    oracle: Oracle
    points: list[CutPoint]
    errors: list[tuple[Step, DeviceError]]
    acknowledged: int
    cancelled: int
    managed: list[str] = field(default_factory=list)
    moves: list[tuple[int, str, bool]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def failing(self, at: int) -> frozenset[str]:
        """The disks that had failed by tick *at*, on record or not, and were not taken back since."""
        found = {fault.met for fault in self.faults if fault.met is not None and fault.since <= at}
        for tick, name, away in self.moves:
            if tick <= at:
                (found.add if away else found.discard)(name)
        return frozenset(found)


def live(
    seed: int,
    subject: Subject,
    steps: int,
    *,
    prepare: Callable[[Simulation], None] | None = None,
    rounds: Any = None,
    impatience: float = 0.0,
    managing: int = 0,
) -> Life:
    """Run a random workload on a new device and record its cut points; *prepare* may plan faults.

    *managing* is the weight of the steps of an administrator.
    """

    async def main(sim: Simulation) -> Life:
        disks = subject.make_disks(sim)
        await subject.create(sim, disks)
        async with AsyncExitStack() as stack:

            async def start() -> Any:
                for disk in disks:
                    disk.reopen()
                return await stack.enter_async_context(subject.open(sim, disks))

            async def restart() -> None:
                await stack.aclose()
                user.device = await start()

            device = await start()
            oracle = Oracle(device.geometry.size // SECTOR, sim.machine.next_tick)
            work = rounds or workload.draw(sim.random("workload"), device.geometry, steps, managing=managing)
            recorder = Recorder(sim, disks)
            if prepare is not None:
                prepare(sim)
            planned = list(sim.machine.faults)
            user = User(sim, device, oracle, impatience=impatience)
            operator = Operator(sim, disks, lambda: user.device, restart)
            user.manage = operator.act
            await _work(user, work)
        recorder.keep()
        life = Life(seed, subject, work, oracle, recorder.points, user.errors, user.acknowledged, user.cancelled)
        life.managed, life.moves, life.faults = operator.done, operator.moves, planned
        return life

    return simulate(seed, main)


async def _work(user: User, rounds: Sequence[Round]) -> None:
    """Do *rounds*, then read everything and close the device."""
    await user.work(rounds)
    user.impatience = 0
    await user.step(Step("read", 0, user.device.geometry.size))
    try:
        await user.device.aclose()
    except DeviceError as error:
        user.errors.append((Step("close"), error))


def live_on(life: Life, wreck: Wreck, subject: Subject, steps: int) -> Life:
    """Bring a wreck up as *subject*, and go on working: the life that begins there, of the same full subject.

    What the first read shows is what that life begins with; whether that may be so is not judged here.
    """

    async def main(sim: Simulation) -> Life:
        disks = [SimDisk.restored(state, machine=sim.machine) for state in wreck.states]
        recorder = Recorder(sim, disks)
        async with subject.open(sim, disks) as device:
            reader = User(sim, device, life.oracle)
            tags = read_tags(await reader.read_all(), 0)
            oracle = Oracle(len(tags), sim.machine.next_tick, tags)
            user = User(sim, device, oracle)
            rounds = workload.draw(sim.random(f"after {wreck.point.tick}"), device.geometry, steps)
            await _work(user, rounds)
        recorder.keep()
        return Life(life.seed, life.subject, rounds, oracle, recorder.points, user.errors, user.acknowledged, 0)

    return simulate(life.seed, main)


class Wreck(NamedTuple):
    """The disks as a cut left them, with what is needed to say how it came about."""

    point: CutPoint
    label: str
    states: tuple[DiskState, ...]
    key: object
    killed: bool = False


def wrecks(points: Sequence[CutPoint], generator: random.Random, per_point: int | None = None) -> Iterator[Wreck]:
    """The distinct states that power cuts at *points* may leave; at most *per_point* choices of each if given."""
    seen: set[object] = set()
    for point in points:
        pending = point.pending
        options = crash.choices(pending)
        if per_point is not None and len(options) > per_point:
            options = options[: per_point // 2] + generator.sample(options[per_point // 2 :], -(-per_point // 2))
        for choice in options:
            parts = crash.outcome(pending, choice, point.tick)
            key = _key(point, parts)
            if key not in seen:
                seen.add(key)
                yield Wreck(point, f"{choice.kind} {choice.which}", _cut(point, parts), key)


def kills(points: Sequence[CutPoint]) -> Iterator[Wreck]:
    """One state that a kill of the process may leave at each of *points*."""
    for point in points:
        states = tuple(after_kill(state, point.tick) for state in point.states)
        yield Wreck(point, "kill", states, point.tick, killed=True)


def _cut(point: CutPoint, parts: Sequence[Part]) -> tuple[DiskState, ...]:
    return tuple(after_cut(state, parts) for state in point.states)


def _key(point: CutPoint, parts: Sequence[Part]) -> object:
    """Equal for wrecks that hold the same bytes: same flushed part, same writes on top."""
    stable = tuple((len(state.stable), _stamp(state)) for state in point.states)
    return stable, tuple((part.pending.submitted, part.start, part.end) for part in parts)


def _stamp(state: DiskState) -> int:
    return hash(tuple(sorted((page, hash(data)) for page, data in state.stable.items())))


class Recovery(NamedTuple):
    """What a wreck became: what it holds, where it could have been cut again, its disks after a proper close."""

    tags: Tags
    points: list[CutPoint]
    states: tuple[DiskState, ...]


@dataclass
class Tally:
    """The figures of a campaign: what was really met, so that it cannot pass by meeting nothing."""

    lives: int = 0
    points: int = 0
    states: int = 0
    acknowledged: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, life: Life) -> None:
        self.lives += 1
        self.points += len(life.points)
        self.acknowledged += life.acknowledged

    def count(self, note: str, number: int = 1) -> None:
        self.notes[note] = self.notes.get(note, 0) + number

    def __getitem__(self, note: str) -> int:
        return self.notes.get(note, 0)

    def __str__(self) -> str:
        notes = "".join(f", {name}: {number}" for name, number in sorted(self.notes.items()))
        return (
            f"{self.lives} lives, {self.points} cut points, {self.states} crash states, "
            f"{self.acknowledged} acknowledged flushes{notes}"
        )


def recover(
    life: Life,
    wreck: Wreck,
    *,
    subject: Any = None,
    expected: Tags | None = None,
    only: Mask | None = None,
    record: bool = False,
) -> Recovery:
    """Bring a wreck up on a fresh machine; judge its contents before, during and after the resync, and its disks.

    *subject* is the life's unless given.  *expected* is what an earlier recovery of the same wreck has shown to its
    users, which must not change again.  *only* limits the judgement to some blocks.  *record* keeps cut points.
    """
    subject, oracle = subject or life.subject, life.oracle

    async def main(sim: Simulation) -> Recovery:
        disks = [SimDisk.restored(state, machine=sim.machine) for state in wreck.states]
        recorder = Recorder(sim, disks) if record else None
        async with subject.open(sim, disks) as device:
            user = User(sim, device, oracle)
            data = await user.read_all()
            if wreck.killed:
                tags = oracle.check_kill(data, wreck.point.tick, only=only)
            else:
                tags = oracle.check_cut(data, wreck.point.tick, only=only)
            if expected is not None and (tags != expected).any():
                raise Violation("a block that was read after the first recovery has changed after the second")
            _same(tags, await user.read_all(), "between two reads")
            await subject.settle(sim, device)
            _same(tags, await user.read_all(), "while redundancy was restored")
        if recorder is not None:
            recorder.keep()
        subject.check_redundancy(disks)
        return Recovery(tags, recorder.points if recorder else [], tuple(disk.state() for disk in disks))

    return simulate(life.seed, main)


def reread(life: Life, subject: Any, states: Sequence[DiskState], tags: Tags) -> None:
    """Bring *states* up as *subject* and compare its contents with *tags*."""

    async def main(sim: Simulation) -> bool:
        disks = [SimDisk.restored(state, machine=sim.machine, inline=1.0) for state in states]
        async with subject.open(sim, disks) as device:
            _same(tags, await User(sim, device, life.oracle).read_all(), f"without {', '.join(subject.absent)}")
        return True

    simulate(life.seed, main)


def _same(tags: Tags, data: bytes, when: str) -> None:
    changed = (read_tags(data, 0) != tags).nonzero()[0]
    if len(changed):
        raise Violation(f"block {changed[0]} and {len(changed) - 1} more changed {when}")


def explain(life: Life, wreck: Wreck | None, error: BaseException) -> str:
    """The failure, and the history that leads to it."""
    lines = [f"{type(error).__name__}: {error}", "workload:"]
    lines += [f"  {', '.join(f'{kind} {offset}+{length}' for kind, offset, length in steps)}" for steps in life.rounds]
    lines += [f"managed at {what}" for what in life.managed]
    if wreck is not None:
        lines += [f"  {state.name}: {read_mark(state)}" for state in wreck.states]
        lines.append(f"cut at operation {wreck.point.operation} (tick {wreck.point.tick}), {wreck.label}; un-flushed:")
        lines += [
            f"  {write.disk} {write.offset}+{write.length} submitted {write.submitted} completed {write.completed}"
            for write in wreck.point.pending
        ]
    return "\n".join(lines)


@asynccontextmanager
async def running(sim: Simulation, device: Any, run: Callable[[], Any]) -> Any:
    """*device* with its background work *run*; closed at the end, also after an error."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        try:
            yield device
        finally:
            await device.aclose()
            nursery.cancel_scope.cancel()
