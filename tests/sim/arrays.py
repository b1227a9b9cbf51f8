"""Arrays as subjects of campaigns: toy geometry, drawn from a seed or given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from unittest import mock

from orionfs.array import placement
from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.policies import Policies
from orionfs.testing.crash import DiskState
from orionfs.testing.oracle import Violation
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation
from orionfs.units import KIB, MIB, SECTOR

from .campaign import running
from .standing import Standing, standing

#: Where mdadm puts the data of a member this small.  Any other place is as good.
DATA = MIB
#: Of each member; mdadm takes 1 MiB.
PPL_SIZE = 64 * KIB
#: A resync of some hundred KiB that takes longer than this many simulated seconds hangs.
PATIENCE_S = 60
#: The levels whose redundancy is computed, not copied.
PARITY = ("raid4", "raid5", "raid6")
REDUNDANT = ("raid1", *PARITY, "raid10")


class Event(NamedTuple):
    kind: str
    message: str
    severity: str


class Events:
    """Keeps the events of one array and puts them into the trace; logs nothing."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self.seen: list[Event] = []

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> None:
        self._sim.trace(kind, subject, message)
        self.seen.append(Event(kind, message, severity))


@dataclass(frozen=True)
class ArraySubject:
    """An array of *level* with members whose data areas have these *sizes* (bytes).

    ``bitmap_chunk`` is 0 without a bitmap.  The room before ``data_offset`` decides how large a journal is; a rebuild
    goes ``rebuild_batch`` units at a time.

    There are *spares* disks more, that nobody has added yet.  ``absent`` are left out at assembly; ``force`` insists.
    ``patch`` is called with each array that is made, to plant a bug.
    """

    level: str
    layout: str
    chunk: int
    sizes: tuple[int, ...]
    logical_block: int = SECTOR
    consistency: Any = "resync"
    whole_stripes: Any = "in-place"
    write_policy: Any = "back"
    bitmap_chunk: int = 0
    data_offset: int = DATA
    rebuild_batch: int = 1
    spares: int = 0
    disk_letter: str = "d"
    absent: frozenset[str] = frozenset()
    force: bool = False
    patch: Callable[[Any], None] | None = field(default=None, compare=False)

    def __str__(self) -> str:
        layout = f" {self.layout}" if self.layout else ""
        sizes = ", ".join(f"{size // KIB}K" for size in self.sizes)
        facts = [f"{self.level}{layout}, chunk {self.chunk // KIB}K, data areas {sizes}, blocks {self.logical_block}"]
        if self.level in PARITY:
            facts.append(f"{self.consistency}, whole stripes {self.whole_stripes}, write-{self.write_policy}")
        if self.bitmap_chunk:
            facts.append(f"bitmap of {self.bitmap_chunk // KIB}K")
        return f"{'; '.join(facts)}; data at {self.data_offset // KIB}K"

    @property
    def redundant(self) -> bool:
        return self.level in REDUNDANT

    @property
    def logged(self) -> bool:
        """Whether a cut leaves no stripe in doubt."""
        return self.consistency in ("journal", "ppl")

    @property
    def refuses_in_doubt(self) -> bool:
        """Whether it must not start dirty and degraded: parity without a log may reconstruct wrong data."""
        return self.level in PARITY and not self.logged

    @property
    def atomic_unit(self) -> int:
        """Bytes that are old or new as a whole after a cut."""
        return 4 * KIB if self.consistency == "journal" else SECTOR

    def without(self, *names: str) -> ArraySubject:
        return replace(self, absent=self.absent | set(names))

    def forced(self) -> ArraySubject:
        return replace(self, force=True)

    # --- part of campaign.Subject ----------------------------------------------------------------------------------

    def make_disks(self, sim: Simulation) -> list[SimDisk]:
        return [
            SimDisk(
                f"{self.disk_letter}{slot}",
                self.data_offset + size,
                machine=sim.machine,
                logical_block=self.logical_block,
            )
            for slot, size in enumerate((*self.sizes, *[max(self.sizes)] * self.spares))
        ]

    async def create(self, sim: Simulation, disks: Sequence[SimDisk]) -> None:
        level = LEVELS[self.level]
        layout = level.layouts[self.layout or level.default_layout]
        spec = MdSpec(
            level.md_level,
            "sim",
            layout,
            self.chunk // SECTOR,
            bitmap=bool(self.bitmap_chunk),
            bitmap_chunk=self.bitmap_chunk,
            consistency="ppl" if self.consistency == "ppl" else "resync",
        )
        members = disks[: len(self.sizes)]
        with (
            mock.patch.object(placement, "data_offset", return_value=self.data_offset // SECTOR),
            mock.patch.object(placement, "PPL_SIZE", PPL_SIZE // SECTOR),
        ):
            await create_array(members, spec=spec, environment=sim.environment, freshly_made=True)

    async def start(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        """The array, with nothing running in the background yet."""
        sources = [
            Source(disk.name, None, "it is not there") if disk.name in self.absent else Source(disk.name, disk)
            for disk in disks
        ]
        members, spares = sources[: len(self.sizes)], sources[len(self.sizes) :]
        events = Events(sim)
        array = await assemble(
            "sim",
            members,
            spares=spares,
            environment=sim.environment,
            events=events,
            force=self.force,
            consistency=self.consistency,
            policies=Policies(whole_stripes=self.whole_stripes, write_policy=self.write_policy),
        )
        array.pace.batch = lambda unit: unit * self.rebuild_batch
        if self.patch is not None:
            self.patch(array)
        return array

    @asynccontextmanager
    async def open(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        array = await self.start(sim, disks)
        async with running(sim, array, array.run):
            yield array

    async def settle(self, sim: Simulation, device: Any) -> None:
        clock = sim.environment.clock
        end = clock.monotonic() + PATIENCE_S
        engine, roster = device.engine, device.roster
        while (engine.sync.needed and engine.can_sync) or roster.filling() is not None or device.spare_wanted():
            if clock.monotonic() > end:
                raise Violation(f"the resync does not end: {device.describe().details}")
            await clock.sleep(0.05)

    def check_redundancy(self, disks: Sequence[SimDisk]) -> None:
        if self.redundant:
            states = [disk.state() for disk in disks]
            # By force it has been started with parity in doubt, and stays dirty for that.
            self.standing(states).check_redundancy(states, may_be_dirty=self.force)

    # --- what only arrays have -------------------------------------------------------------------------------------

    def standing(self, states: Sequence[DiskState]) -> Standing:
        """What the superblocks of those that are not absent say."""
        return standing(states, self.absent)
