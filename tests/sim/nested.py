"""RAID 50 as a subject: a RAID 0 over two RAID 5, each an array device of its own, as mdadm users build it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from orionfs.array import placement
from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.testing.crash import DiskState
from orionfs.testing.oracle import Mask
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation
from orionfs.units import KIB, SECTOR

from .arrays import ArraySubject, Events
from .campaign import running
from .standing import Standing

#: Where the data of the RAID 0 begin on each half: nothing but a superblock has to go before them.
OUTER_DATA = 32 * KIB


@dataclass(frozen=True)
class NestedSubject:
    """Two :class:`ArraySubject`, one chunk of *chunk* bytes from each in turn."""

    inner: tuple[ArraySubject, ArraySubject]
    chunk: int
    patch: Callable[[Any], None] | None = field(default=None, compare=False)

    level = "raid50"
    redundant = True

    def __str__(self) -> str:
        return f"raid50, chunk {self.chunk // KIB}K, over {self.inner[0]} and {self.inner[1]}"

    @property
    def logical_block(self) -> int:
        return self.inner[0].logical_block

    @property
    def consistency(self) -> str:
        return self.inner[0].consistency

    @property
    def whole_stripes(self) -> str:
        return self.inner[0].whole_stripes

    @property
    def logged(self) -> bool:
        return self.inner[0].logged

    @property
    def refuses_in_doubt(self) -> bool:
        return self.inner[0].refuses_in_doubt

    @property
    def atomic_unit(self) -> int:
        return self.inner[0].atomic_unit

    @property
    def absent(self) -> frozenset[str]:
        return self.inner[0].absent

    def without(self, *names: str) -> NestedSubject:
        return self._with(absent=self.absent | set(names))

    def forced(self) -> NestedSubject:
        return self._with(force=True)

    def _with(self, **changes: Any) -> NestedSubject:
        first, second = self.inner
        return replace(self, inner=(replace(first, **changes), replace(second, **changes)))

    # --- part of campaign.Subject ----------------------------------------------------------------------------------

    def make_disks(self, sim: Simulation) -> list[SimDisk]:
        return [disk for subject in self.inner for disk in subject.make_disks(sim)]

    def _split(self, disks: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        count = len(self.inner[0].sizes)
        return disks[:count], disks[count:]

    async def create(self, sim: Simulation, disks: Sequence[SimDisk]) -> None:
        async with AsyncExitStack() as stack:
            arrays = []
            for subject, part in zip(self.inner, self._split(disks), strict=True):
                await subject.create(sim, part)
                arrays.append(await stack.enter_async_context(subject.open(sim, part)))
            rules = LEVELS["raid0"]
            spec = MdSpec(rules.md_level, "outer", rules.layouts[rules.default_layout], self.chunk // SECTOR)
            with mock.patch.object(placement, "data_offset", return_value=OUTER_DATA // SECTOR):
                await create_array(arrays, spec=spec, environment=sim.environment, freshly_made=True)
        for disk in disks:
            disk.reopen()

    async def start(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        arrays = [await subject.start(sim, part) for subject, part in zip(self.inner, self._split(disks), strict=True)]
        return await self._over(sim, arrays)

    async def _over(self, sim: Simulation, arrays: Sequence[Any]) -> Any:
        sources = [Source(f"half{number}", array) for number, array in enumerate(arrays)]
        outer = await assemble("outer", sources, environment=sim.environment, events=Events(sim))
        if self.patch is not None:
            for array in arrays:
                self.patch(array)
        return outer

    @asynccontextmanager
    async def open(self, sim: Simulation, disks: Sequence[SimDisk]) -> Any:
        arrays = []
        async with AsyncExitStack() as stack:
            for subject, part in zip(self.inner, self._split(disks), strict=True):
                array = await subject.start(sim, part)
                arrays.append(await stack.enter_async_context(running(sim, array, array.run)))
            outer = await self._over(sim, arrays)
            outer.halves = arrays
            yield await stack.enter_async_context(running(sim, outer, outer.run))

    async def settle(self, sim: Simulation, device: Any) -> None:
        for subject, array in zip(self.inner, device.halves, strict=True):
            await subject.settle(sim, array)

    def check_redundancy(self, disks: Sequence[SimDisk]) -> None:
        for subject, part in zip(self.inner, self._split(disks), strict=True):
            subject.check_redundancy(part)

    # --- what only arrays have -------------------------------------------------------------------------------------

    def standing(self, states: Sequence[DiskState]) -> NestedStanding:
        """What the superblocks of both halves say."""
        parts = zip(self.inner, self._split(states), strict=True)
        return NestedStanding(tuple(subject.standing(part) for subject, part in parts), self.chunk // SECTOR)


class NestedStanding(NamedTuple):
    """The :class:`Standing` of both halves, in terms of the blocks of the whole; *chunk* in blocks."""

    halves: tuple[Standing, ...]
    chunk: int

    @property
    def events(self) -> tuple[int, ...]:
        return tuple(half.events for half in self.halves)

    @property
    def lost(self) -> tuple[str, ...]:
        return tuple(name for half in self.halves for name in half.lost)

    @property
    def dirty(self) -> bool:
        return any(half.dirty for half in self.halves)

    @property
    def degraded(self) -> bool:
        return any(half.degraded for half in self.halves)

    @property
    def doubtful(self) -> bool:
        return any(half.doubtful for half in self.halves)

    @property
    def survivable(self) -> list[frozenset[str]]:
        first, second = ([frozenset(), *half.survivable] for half in self.halves)
        return [one | other for one in first for other in second if one or other]

    def survives_without(self, gone: frozenset[str]) -> bool:
        return all(half.survives_without(gone) for half in self.halves)

    def unheld(self, gone: frozenset[str]) -> Mask:
        return self._outer([half.unheld(gone) for half in self.halves])

    def stripes_of(self, blocks: Mask) -> Mask:
        inner = [half.stripes_of(mask) for half, mask in zip(self.halves, self._inner(blocks), strict=True)]
        return self._outer(inner)

    def whole_stripes(self, first: int, end: int) -> Mask:
        touched = np.zeros(self._chunks() * self.chunk, np.bool_)
        touched[first:end] = True
        found = []
        for half, mask in zip(self.halves, self._inner(touched), strict=True):
            places = np.flatnonzero(mask)
            found.append(half.whole_stripes(int(places[0]), int(places[-1]) + 1) if len(places) else mask)
        return self._outer(found)

    def _chunks(self) -> int:
        """How many chunks the whole has."""
        return sum((half.model.size - OUTER_DATA) // SECTOR // self.chunk for half in self.halves)

    def _inner(self, blocks: Mask) -> list[Mask]:
        """*blocks* of the whole in terms of each half."""
        dealt = blocks.reshape(-1, len(self.halves), self.chunk)
        masks = []
        for number, half in enumerate(self.halves):
            mask = np.zeros(half.model.size // SECTOR, np.bool_)
            mine = dealt[:, number].reshape(-1)
            mask[OUTER_DATA // SECTOR : OUTER_DATA // SECTOR + len(mine)] = mine
            masks.append(mask)
        return masks

    def _outer(self, masks: Sequence[Mask]) -> Mask:
        """The other way."""
        rows = self._chunks() // len(self.halves)
        count = rows * self.chunk
        mine = [mask[OUTER_DATA // SECTOR : OUTER_DATA // SECTOR + count].reshape(rows, self.chunk) for mask in masks]
        return np.stack(mine, axis=1).reshape(-1)
