"""Logs: what an array has beside its superblocks to survive an unclean stop: bitmap, journal, PPL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orionfs.array.bitmap import BitmapError
from orionfs.array.policies import Consistency
from orionfs.array.superblock import FEATURE_BITMAP, Superblock
from orionfs.array.verdict import Verdict
from orionfs.array.write_intent import WriteIntent, find_bitmap
from orionfs.device import StorageDevice
from orionfs.units import SECTOR

if TYPE_CHECKING:
    from orionfs.array.array import Array


@dataclass(slots=True)
class Logs:
    """What was found, and whether it tells what was being written when the array was left."""

    usable: bool = False
    notices: list[str] = field(default_factory=list)

    async def attach(self, array: Array, verdict: Verdict) -> None:
        """Give *array* what it needs to go on; nothing is written.

        Raises :class:`~orionfs.array.bitmap.BitmapError` for a bitmap that could not be kept up to date.
        """
        if verdict.freshest.feature_map & FEATURE_BITMAP:
            await self._attach_bitmap(array, verdict)

    async def _attach_bitmap(self, array: Array, verdict: Verdict) -> None:
        current = [
            (member.label, member.superblock, member.device)
            for member in array.engine.members
            if member.active and member.superblock is not None and member.device is not None
        ]
        sync = array.engine.sync
        sync_size = verdict.freshest.size
        if verdict.freshest.level == 10:
            sync_size = array.engine.layout.size // SECTOR
        try:
            found = await find_bitmap(current, freshest=verdict.freshest, sync_size=sync_size)
        except BitmapError as error:
            if not array.read_only:
                raise
            self.notices.append(error.message)
            return
        self.notices += found.notices
        array.use_bitmap(WriteIntent(array.engine.members, found.bitmap, stale=found.stale))
        if verdict.dirty and not found.stale and array.engine.can_sync:
            begun = sync.position * sync.unit_size
            sync.position = sync.unit_count
            for low, high in found.bitmap.dirty_ranges():
                if high > begun:
                    sync.doubt(max(low, begun), high)


async def examine_logs(members: Sequence[tuple[Superblock, StorageDevice]], *, consistency: Consistency) -> Logs:
    """Read what there is, for the verdict and for :meth:`Logs.attach`."""
    return Logs()
