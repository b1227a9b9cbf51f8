"""Power cuts and kills of the tiny journaled array, with every survivable set of members removed.

``python -m tests.arrays.journal_cuts FIRST COUNT`` runs that many seeds, far more thoroughly than the tests do.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np
import trio

from orionfs.errors import DeviceError, MediaError, NoSpace, OrionError, Refused
from orionfs.testing import crash, simulation, workload
from orionfs.testing.crash import DiskState
from orionfs.testing.machine import Machine
from orionfs.testing.oracle import Mask, Oracle, Tags, Violation, read_tags
from orionfs.testing.simdisk import SimDisk, after_cut, after_kill
from orionfs.testing.simulation import Simulation
from orionfs.testing.workload import Step, User
from orionfs.units import KIB, SECTOR

from .journal_kit import BLOCK, CHUNK, Shape, TinyArray, assemble, encode, opened

_SECTORS = BLOCK // SECTOR
Patch = Callable[[TinyArray], None] | None


class Point(NamedTuple):
    tick: int
    operation: int
    states: tuple[DiskState, ...]


@dataclass
class Life:
    seed: int
    shape: Shape
    oracle: Oracle
    points: list[Point]
    errors: list[tuple[Step, DeviceError]]
    patch: Patch = None
    fault: str = ""
    losses: Sequence[tuple[int, str]] = ()
    notes: dict[str, int] = field(default_factory=dict)


def record(machine: Machine, disks: Sequence[SimDisk]) -> list[Point]:
    """Fills with a cut point for each operation of *machine*."""
    points: list[Point] = []

    def keep() -> None:
        points.append(Point(machine.next_tick(), machine.operations, tuple(disk.state() for disk in disks)))

    machine.observer = keep
    return points


def draw(seed: int) -> Shape:
    generator = random.Random(f"shape/{seed}")
    parities = generator.choice((1, 1, 2))
    policies = {
        "whole_stripes": generator.choice(("in-place", "journal")),
        "write_policy": generator.choice(("back", "back", "back", "through")),
    }
    members = parities + generator.choice((2, 3))
    return Shape(members, parities, rows=4, ring=generator.choice((48, 64, 96)) * KIB, policies=policies)


#: What a user does; the operations, if it says so, from which on cuts are of interest.
Script = Callable[[Simulation, TinyArray, User], Awaitable[int | None]]
#: Operations after the end of a script that are cut too.
_AFTER = 12


def live(
    seed: int,
    shape: Shape | None = None,
    *,
    steps: int = 12,
    fault: str = "",
    patch: Patch = None,
    script: Script | None = None,
) -> Life:
    """The life of a new array: *script*, or a random one with a *fault*: ``"member"`` fails one, ``"space"`` many
    writes, ``"cancel"`` gives requests up.
    """
    shape = shape or draw(seed)

    async def main(sim: Simulation) -> Life:
        disks = shape.make_disks(sim)
        await shape.create(disks)
        async with opened(shape, disks, sim, patch=patch) as array:
            oracle = Oracle(array.geometry.size // SECTOR, sim.machine.next_tick)
            points = record(sim.machine, disks)
            user = User(sim, array, oracle)
            if script is not None:
                first = await script(sim, array, user) or 0
                end = sim.machine.operations + _AFTER
            else:
                await random_life(sim, array, user, steps, fault)
                first, end = 0, 1 << 60
        points = [point for point in points if first <= point.operation < end]
        life = Life(seed, shape, oracle, points, user.errors, patch, fault, array.losses)
        life.notes = {"acknowledged": user.acknowledged, "points": len(points)}
        return life

    try:
        life = simulation.run(seed, main).value
    except OrionError as error:
        raise Violation(f"seed {seed}, {shape}: the array fails: {error}") from error
    assert life is not None
    return life


async def random_life(sim: Simulation, array: TinyArray, user: User, steps: int, fault: str) -> None:
    rounds = workload.draw(sim.random("workload"), array.geometry, steps)
    plan(sim, fault)
    user.impatience = 0.3 if fault == "cancel" else 0.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chaos, sim, array)
        await user.work(rounds)
        nursery.cancel_scope.cancel()
    user.impatience = 0.0
    if fault == "space":
        sim.machine.faults.clear()
    await user.step(Step("read", 0, array.geometry.size))


def plan(sim: Simulation, fault: str) -> None:
    generator = sim.random("fault")
    if fault == "member":
        kinds = generator.choice(("write", "flush"))
        sim.machine.fail(kinds, at=generator.randint(1, 60), error=MediaError, forever=True)
    elif fault == "space":
        for at in range(generator.randint(1, 40), 200, generator.randint(1, 9)):
            sim.machine.fail("write", at=at, error=NoSpace)


async def chaos(sim: Simulation, array: TinyArray) -> None:
    """What goes on beside the requests: drains, and the array being found idle."""
    generator = sim.random("chaos")
    while True:
        for _ in range(generator.randint(1, 30)):
            await trio.lowlevel.checkpoint()
        await sim.environment.clock.sleep(generator.choice((0, 0.05, 0.3)))
        try:
            await generator.choice((array.journal.drain, array.mark_clean, array.flush))()
        except NoSpace:
            pass  # tried again later
        except DeviceError:
            return


# --- states ----------------------------------------------------------------------------------------------------------


def wrecks(
    points: Sequence[Point], generator: random.Random, per_point: int
) -> Iterator[tuple[Point, str, tuple[DiskState, ...]]]:
    """States that power cuts at *points* may leave, and for each a kill."""
    for point in points:
        pending = sorted(
            (write for state in point.states for write in state.pending), key=lambda write: write.submitted
        )
        options = crash.choices(pending)
        if len(options) > per_point:
            options = generator.sample(options, per_point)
        for choice in options:
            parts = crash.outcome(pending, choice, point.tick)
            label = f"{choice.kind} {choice.which}"
            yield point, label, tuple(after_cut(state, parts) for state in point.states)


def survivable(shape: Shape, already: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Every set of members that may be missing besides *already*, nobody first."""
    names = [f"d{slot}" for slot in range(shape.members) if f"d{slot}" not in already]
    return [gone for count in range(shape.parities - len(already) + 1) for gone in combinations(names, count)]


def lost(states: Sequence[DiskState]) -> set[str]:
    """Members that the newest superblocks do not count on, read without the code under test."""
    from orionfs.array.superblock import OFFSET, ROLE_FAULTY, SIZE, Superblock

    marks = {
        state.name: Superblock.parse(b"".join(crash.load(state.visible, OFFSET, SIZE)), state.size) for state in states
    }
    newest = max(mark.events for mark in marks.values())
    accounts = [mark for mark in marks.values() if mark.events == newest]
    return {
        name
        for name, mark in marks.items()
        if mark.events + 1 < newest or any(other.role_of(mark.dev_number) >= ROLE_FAULTY for other in accounts)
    }


# --- judgement -------------------------------------------------------------------------------------------------------


def exempt(life: Life, tick: int) -> Mask:
    """Stripes that were being written as a whole, past the log: without a member they may hold anything."""
    blocks = np.zeros(life.oracle.blocks, np.bool_)
    journaled = {"write"} if life.shape.policies.get("whole_stripes") == "journal" else set()
    width = life.shape.columns * CHUNK // SECTOR
    durable = life.oracle.durable_before(tick)
    for write in life.oracle.history[1:]:
        if write.issued > tick or write.what in journaled:
            continue
        if write.sure and write.ended is not None and write.ended < durable:
            continue
        first, end = -(-write.first // width) * width, write.end // width * width
        blocks[first:end] = True
    return blocks


def check_blocks(oracle: Oracle, tags: Tags, tick: int, only: Mask) -> None:
    """Every 4 KiB are the work of one write."""
    groups = tags.reshape(-1, _SECTORS)
    fine = ~only.reshape(-1, _SECTORS).all(axis=1)
    for write in oracle.history:
        if write.issued > tick or write.what.startswith("observed"):
            continue
        same = np.zeros(oracle.blocks, np.bool_)
        same[write.first : write.end] = tags[write.first : write.end] == write.tags
        fine |= same.reshape(-1, _SECTORS).all(axis=1)
    if not fine.all():
        block = int(np.flatnonzero(~fine)[0])
        raise Violation(f"block {block} of 4 KiB is a mix of writes after a cut at tick {tick}: {groups[block]}")


def tags_of(data: bytes, only: Mask) -> Tags:
    """The tags of *data*; what is not in *only* counts as zeros."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, SECTOR).copy()
    blocks[~only] = 0
    return read_tags(blocks.tobytes(), 0)


def judge(
    life: Life,
    point: Point,
    states: Sequence[DiskState],
    absent: tuple[str, ...],
    *,
    killed: bool = False,
    again: int = 0,
) -> int:
    """Bring the wreck up without *absent*; what it holds, before, during and after the replay; and *again* cuts in the
    middle of that.  Returns how many states were judged.
    """
    everything = np.ones(life.oracle.blocks, np.bool_)
    degraded = bool(absent) or bool(lost(states))
    only = ~exempt(life, point.tick) if degraded else everything
    inner: list[Point] = []
    ready = 0

    async def main(sim: Simulation) -> tuple[Tags, tuple[DiskState, ...]]:
        nonlocal inner, ready
        disks = [SimDisk.restored(state, machine=sim.machine) for state in states]
        inner = record(sim.machine, disks)
        array = await assemble(life.shape, disks, sim, absent=absent)
        first = await User(sim, array, life.oracle).read_all()
        if any(disk.counters.writes for disk in disks):
            raise Violation("assembly wrote to a disk")
        tags = check(life, first, point, only, killed)
        async with opened(life.shape, disks, sim, absent=absent, patch=life.patch) as array:
            second = await User(sim, array, life.oracle).read_all()
            same(tags, second, only, "by the replay")
            ready = sim.machine.operations
        if not degraded and life.patch is None:
            check_parity(life.shape, disks)
        return tags, tuple(disk.state() for disk in disks)

    tags, after = simulation.run(life.seed, main).value  # type: ignore[misc]
    judged = 1
    reread(life, after, absent, tags, only)
    if again:
        generator = random.Random(f"again/{life.seed}/{point.tick}")
        chosen = generator.sample(inner, min(again, len(inner)))
        for second, label, wreck in wrecks(chosen, generator, 2):
            sets = survivable(life.shape, absent)
            for more in generator.sample(sets, min(2, len(sets))):
                gone = {*absent, *more}
                if len(gone | lost(wreck)) > life.shape.parities:
                    continue
                mask = ~exempt(life, point.tick) if gone or lost(wreck) else everything
                later = second.operation > ready
                try:
                    reread(life, wreck, tuple(sorted(gone)), tags if later else None, mask & only, point)
                except (Violation, OrionError) as error:
                    if fair(life, error, gone, point.tick):
                        continue
                    at = f"cut again at operation {second.operation} ({label}; replayed by {ready}), without {gone}"
                    raise Violation(f"{at}: {error}") from error
                judged += 1
    return judged


def check(life: Life, data: bytes, point: Point, only: Mask, killed: bool) -> Tags:
    tags = tags_of(data, only)
    masked = np.where(only, tags, 0)
    oracle = life.oracle
    if killed:
        oracle.check_kill(_rendered(masked), point.tick, only=only)
    else:
        oracle.check_cut(_rendered(masked), point.tick, only=only)
        check_blocks(oracle, tags, point.tick, only & ~exempt(life, point.tick))
    return tags


def _rendered(tags: Tags) -> bytes:
    return np.repeat(tags, SECTOR // 8).tobytes()


def same(tags: Tags, data: bytes, only: Mask, when: str) -> None:
    now = tags_of(data, only)
    changed = np.flatnonzero((now != tags) & only)
    if len(changed):
        raise Violation(f"block {changed[0]} and {len(changed) - 1} more have changed {when}")


def reread(
    life: Life,
    states: Sequence[DiskState],
    absent: Sequence[str],
    tags: Tags | None,
    only: Mask,
    point: Point | None = None,
) -> None:
    """What another start shows: *tags*, or what a cut at *point* may leave (and one after a kill there, too)."""

    async def main(sim: Simulation) -> None:
        disks = [SimDisk.restored(state, machine=sim.machine, inline=1.0) for state in states]
        array = await assemble(life.shape, disks, sim, absent=absent)
        data = await User(sim, array, life.oracle).read_all()
        if tags is not None:
            same(tags, data, only, "in another start")
        else:
            assert point is not None
            check(life, data, point, only, False)

    simulation.run(life.seed, main)


def check_parity(shape: Shape, disks: Sequence[SimDisk]) -> None:
    """P and Q agree with the data on the disks."""
    for row in range(shape.rows):
        data, parity = shape.place(row)
        chunks = [np.frombuffer(disk.content(shape.data_offset + row * CHUNK, CHUNK), np.uint8) for disk in disks]
        for slot, right in zip(parity, encode([chunks[slot] for slot in data]), strict=False):
            if (chunks[slot] != right).any():
                raise Violation(f"the parity of stripe {row} on {disks[slot].name} does not agree")


def fair(life: Life, error: BaseException, gone: Iterable[str], tick: int) -> bool:
    """Whether an array may refuse to start without *gone*.

    After a stripe that was torn for want of space or of patience, nothing but a resync can make parity true again.
    And a member that had failed may be out of it before any superblock says so.
    """
    if not isinstance(error, Refused):
        return False
    if "not proven" in error.message:
        return life.fault in ("space", "cancel")
    failed = {label for when, label in life.losses if when <= tick}
    return "are missing" in error.message and len(failed.union(gone)) > life.shape.parities


def look(life: Life, point: Point, states: Sequence[DiskState], absent: Sequence[str], killed: bool) -> None:
    """What is there without *absent*, as it is served before anything is put in place."""
    degraded = bool(absent) or bool(lost(states))
    only = ~exempt(life, point.tick) if degraded else np.ones(life.oracle.blocks, np.bool_)

    async def main(sim: Simulation) -> None:
        disks = [SimDisk.restored(state, machine=sim.machine, inline=1.0) for state in states]
        array = await assemble(life.shape, disks, sim, absent=absent)
        check(life, await User(sim, array, life.oracle).read_all(), point, only, killed)

    simulation.run(life.seed, main)


def trial(
    seed: int,
    shape: Shape | None = None,
    *,
    fault: str = "",
    patch: Patch = None,
    script: Script | None = None,
    every: int = 1,
    per_point: int = 3,
    whole: int = 4,
    again: int = 0,
    steps: int = 12,
    sets: int = 3,
) -> int:
    """One life, cut at every *every*-th point; how many states were judged.  Raises Violation with the way to it.

    Each of *per_point* states at a point is looked at with up to *sets* sets of members removed; one in *whole* is
    brought up altogether, and cut *again* so often meanwhile.
    """
    life = live(seed, shape, fault=fault, patch=patch, steps=steps, script=script)
    generator = random.Random(f"cuts/{seed}")
    count = 0
    points = life.points[generator.randrange(every) :: every]
    kills = [(point, "kill", tuple(after_kill(state, point.tick) for state in point.states)) for point in points]
    for point, label, states in [*wrecks(points, generator, per_point), *kills]:
        gone = lost(states)
        if len(gone) > life.shape.parities:
            raise Violation(f"seed {seed}: the array has disowned {gone}")
        removed = survivable(life.shape, tuple(gone))
        for absent in removed[:1] + generator.sample(removed[1:], min(sets - 1, len(removed) - 1)):
            try:
                if generator.randrange(whole):
                    look(life, point, states, absent, label == "kill")
                    count += 1
                else:
                    count += judge(life, point, states, absent, killed=label == "kill", again=again)
            except (Violation, OrionError, AssertionError) as error:
                if fair(life, error, absent, point.tick):
                    continue
                raise Violation(
                    f"seed {seed}, {life.shape} {life.shape.policies}, fault {fault or 'none'}, cut at operation"
                    f" {point.operation} (tick {point.tick}), {label}, without {absent}: {error}"
                ) from error
    return count


def main(first: int, count: int) -> None:
    total = 0
    for seed in range(first, first + count):
        for fault in ("", "member", "space", "cancel"):
            total += trial(seed, fault=fault, per_point=6, again=2)
        print(f"seed {seed}: {total} states", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
