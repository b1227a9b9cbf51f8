"""Logs: what an array has beside its superblocks to survive an unclean stop: bitmap, journal, PPL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orionfs.array.policies import Consistency
from orionfs.array.superblock import Superblock
from orionfs.array.verdict import Verdict
from orionfs.device import StorageDevice

if TYPE_CHECKING:
    from orionfs.array.array import Array


@dataclass(slots=True)
class Logs:
    """What was found, and whether it tells what was being written when the array was left."""

    usable: bool = False
    notices: list[str] = field(default_factory=list)

    async def attach(self, array: Array, verdict: Verdict) -> None:
        """Give *array* what it needs to go on; nothing is written."""


async def examine_logs(members: Sequence[tuple[Superblock, StorageDevice]], *, consistency: Consistency) -> Logs:
    """Read what there is, for the verdict and for :meth:`Logs.attach`."""
    return Logs()
