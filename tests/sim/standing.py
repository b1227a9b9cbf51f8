"""Standing: what the superblocks on some disks say of their array, read apart from the code under test.

By md-format sections 2, 5 and 6 alone: the highest event counts are the newest accounts; who is disowned by one of
them, or is more than one event behind, is not believed; a member that its own superblock calls recovering is in sync
only up to where it says.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np

from orionfs.testing.crash import PAGE, DiskState, load
from orionfs.testing.oracle import Mask, Violation
from orionfs.units import SECTOR

from .redundancy import Model, model_of

_MAGIC = 0xA92B4EFC
_DONE = 2**64 - 1
_NO_SLOT = 0xFF00
_SPARE = 0xFFFF
_RECOVERING, _REPLACEMENT = 0x2, 0x10


class Mark(NamedTuple):
    """The fields of one superblock that decide anything; sizes are bytes."""

    level: int
    layout: int
    chunk: int
    component: int
    slots: int
    data_offset: int
    recovered: int
    number: int
    features: int
    events: int
    resync_offset: int
    roles: tuple[int, ...]

    def __str__(self) -> str:
        roles = {number: role for number, role in enumerate(self.roles) if role != _SPARE}
        done = "clean" if self.resync_offset == _DONE else f"resync from {self.resync_offset}"
        filled = "" if self.recovered == _DONE else f", recovered {self.recovered}"
        return (
            f"number {self.number}, events {self.events}, {done}, features {self.features:#x}{filled}, roles"
            f" {', '.join(f'{number}: {role if role < _NO_SLOT else hex(role)}' for number, role in roles.items())}"
        )

    def role_of(self, number: int) -> int:
        return self.roles[number] if number < len(self.roles) else _SPARE


@lru_cache(4096)
def _parse(raw: bytes) -> Mark | None:
    if struct.unpack_from("<I", raw)[0] != _MAGIC:
        return None
    features = struct.unpack_from("<I", raw, 8)[0]
    level, layout, size, chunk, slots = struct.unpack_from("<iIQII", raw, 72)
    data_offset, _data_size, _super, recovered, number = struct.unpack_from("<QQQQI", raw, 128)
    events, resync_offset, _checksum, roles = struct.unpack_from("<QQII", raw, 200)
    return Mark(
        level,
        layout,
        chunk * SECTOR,
        size * SECTOR,
        slots,
        data_offset * SECTOR,
        recovered * SECTOR if features & _RECOVERING else _DONE,
        number,
        features,
        events,
        resync_offset,
        struct.unpack_from(f"<{roles}H", raw, 256),
    )


def read_mark(state: DiskState) -> Mark | None:
    """The superblock of a disk; None if it has none."""
    return _parse(state.visible.get(1, bytes(PAGE)))


class Standing(NamedTuple):
    """What the superblocks of some disks say.

    ``events`` is the highest count of those in sync.  ``holders``: for each slot the disk that is in sync throughout,
    or None.  ``lost``: the disks that had a slot and are not believed, and those that are not there.  ``partial``:
    those being filled, replacements among them, and up to which byte.  ``spares``: those without a slot.
    """

    events: int
    dirty: bool
    model: Model
    data_offset: int
    component: int
    holders: tuple[str | None, ...]
    lost: tuple[str, ...]
    partial: dict[str, int]
    spares: tuple[str, ...]

    @property
    def empty(self) -> list[int]:
        """The slots that nobody holds all of."""
        return [slot for slot, name in enumerate(self.holders) if name is None]

    @property
    def degraded(self) -> bool:
        """Whether there are such slots."""
        return None in self.holders

    @property
    def doubtful(self) -> bool:
        """Dirty and degraded: without a log, nobody knows what parity is worth."""
        return self.dirty and self.degraded

    @property
    def survivable(self) -> list[frozenset[str]]:
        """Every set of disks, of those that hold a slot, that all data are there without; not the empty one."""
        return _survivable(self.model, self.holders)

    def survives_without(self, gone: frozenset[str]) -> bool:
        """Whether all data are there without the disks *gone* too."""
        return self.model.survives(slot for slot, name in enumerate(self.holders) if name is None or name in gone)

    def unheld(self, gone: frozenset[str]) -> Mask:
        """The blocks that only empty slots hold, and those of *gone*."""
        return self.model.held_by(slot for slot, name in enumerate(self.holders) if name is None or name in gone)

    def stripes_of(self, blocks: Mask) -> Mask:
        """The blocks that share redundancy with any of *blocks*."""
        return self.model.stripes_of(blocks)

    def whole_stripes(self, first: int, end: int) -> Mask:
        """The blocks of those stripes, of all blocks, that lie in [first, end) as a whole."""
        return self.model.whole_stripes(first, end)

    def check_redundancy(self, states: Sequence[DiskState], *, may_be_dirty: bool = False) -> None:
        """The disks of a closed array: clean, and copies or parity that agree, as far as there are members for it.

        Raises Violation.
        """
        if self.dirty and may_be_dirty:
            return  # and will be resynced
        if self.dirty and self.model.agrees_without(self.empty):
            raise Violation("the array was closed and is not clean")
        media = {state.name: state.visible for state in states}
        areas = {
            slot: np.frombuffer(b"".join(load(media[name], self.data_offset, self.component)), np.uint8)
            for slot, name in enumerate(self.holders)
            if name is not None
        }
        wrong = self.model.disagreements(areas)
        if wrong:
            raise Violation(
                f"the array is closed, and its redundancy does not agree in {len(wrong)} places, the first at byte"
                f" {wrong[0].offset} of the data area of slot {wrong[0].slot}"
            )


@lru_cache(1024)
def _survivable(model: Model, holders: tuple[str | None, ...]) -> list[frozenset[str]]:
    names = [name for name in holders if name is not None]
    found = []
    for gone in chain.from_iterable(combinations(names, count) for count in range(1, len(names))):
        empty = [slot for slot, name in enumerate(holders) if name is None or name in gone]
        if model.survives(empty):
            found.append(frozenset(gone))
    return found


def standing(states: Sequence[DiskState], absent: frozenset[str] = frozenset()) -> Standing:
    """What *states* say, without the disks *absent*.  There must be at least one superblock."""
    marks = {state.name: mark for state in states if state.name not in absent and (mark := read_mark(state))}
    events = max(mark.events for mark in marks.values())
    newest = [mark for mark in marks.values() if mark.events == events]
    first = newest[0]
    holders: list[str | None] = [None] * first.slots
    lost = [state.name for state in states if state.name in absent]
    spares = []
    partial: dict[str, int] = {}
    stand_ins: dict[int, str] = {}
    for name, mark in marks.items():
        own = mark.role_of(mark.number)
        role = max(account.role_of(mark.number) for account in newest)
        if role == _SPARE and own == _SPARE:
            spares.append(name)
        elif role >= _NO_SLOT or mark.events < events - 1:
            lost.append(name)
        elif mark.features & _RECOVERING:
            partial[name] = mark.recovered
        elif own == role and mark.features & _REPLACEMENT:
            stand_ins[role] = name
        elif own == role:
            holders[role] = name
        else:
            lost.append(name)
    for role, name in stand_ins.items():  # a replacement that is complete
        if holders[role] is None:
            holders[role] = name
        else:
            partial[name] = _DONE
    # A mark counts when it is on all members: what only a spare, or who is being filled, says has no effect yet.
    counting = [marks[name] for name in holders if name is not None] or newest
    latest = max(mark.events for mark in counting)
    return Standing(
        latest,
        any(mark.resync_offset != _DONE for mark in counting if mark.events == latest),
        _model(first.level, first.slots, first.layout, first.chunk, first.component),
        first.data_offset,
        first.component,
        tuple(holders),
        tuple(lost),
        partial,
        tuple(spares),
    )


@lru_cache(256)
def _model(level: int, slots: int, layout: int, chunk: int, component: int) -> Model:
    return model_of(level, slots, layout, chunk, component)
