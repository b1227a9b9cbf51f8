"""Rejoining: members and spares that find their way into a running array without a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orionfs.array.array import Array
from orionfs.array.single import Single
from orionfs.array.superblock_io import read_superblock
from orionfs.backends import path_of
from orionfs.device import StorageDevice
from orionfs.errors import OrionError, Refused
from orionfs.monitor.events import EventLog
from orionfs.opening import Opener
from orionfs.spares import Spare, SparePool
from orionfs.watch import Absent

#: What watching for a member's return concerns, and what is taken back as soon as the array runs.
_LOST = ("missing", "failed")
_OUTDATED = ("stale", "recovering")


class Rejoining:
    """Who may come back into *arrays*, and how.  *labels* has every device that the configuration names."""

    def __init__(
        self,
        arrays: Mapping[str, Array | Single],
        spares: SparePool,
        opener: Opener,
        events: EventLog,
        *,
        labels: Callable[[], set[str]],
    ) -> None:
        self._arrays = arrays
        self._spares = spares
        self._opener = opener
        self._events = events
        self._labels = labels

    async def complete(self, array: Array) -> None:
        """Let those join who belong to *array* and have no part in it: outdated members, and blank spares."""
        if array.policies.spare_policy == "auto":
            for member in list(array.roster.slots):
                if member.state in _OUTDATED:
                    try:
                        await array.readd(member.label)
                    except OrionError as error:
                        self._refused(array.name, member.label, error)
        for spare in self._spares.dedicated_to(array.name):
            await self.enlist(array, spare.label)

    async def enlist(self, array: Array, label: str) -> None:
        """Give *array* the idle spare *label* that waits for it alone."""
        spare = self._spares.find(label)
        assert spare is not None, f"{label} is no spare"
        device = self._spares.hand_over(spare, array.name)
        try:
            await array.add(label, device)
        except OrionError as error:
            await self._close(device)
            self._spares.take_back(label, error.message)
            self._refused(array.name, label, error)

    def absent(self) -> Iterator[Absent]:
        """The members and spares whose return is worth waiting for."""
        for array in self._arrays.values():
            if isinstance(array, Array) and not array.read_only and not array.failed:
                for member in array.roster.slots:
                    path = self._path_of(member.label) if member.state in _LOST else None
                    if path is not None:
                        yield Absent(array.name, member.label, path, member.state == "failed")
        for spare in self._spares.missing():
            path = self._path_of(spare.label)
            if path is not None:
                yield Absent("", spare.label, path, failed=bool(spare.problem))

    def _path_of(self, label: str) -> Path | None:
        return path_of(label, self._opener.folder) if label in self._labels() else None

    async def take_back(self, one: Absent) -> bool:
        """Open what has come back and give it to its array; whether that went well."""
        array = self._arrays.get(one.owner)
        try:
            device = await self._opener.open(one.label)
        except OrionError as error:
            self._refused(one.owner or one.label, one.label, error)
            return False
        try:
            if isinstance(array, Array):
                await self._rejoin(array, one.label, device)
            else:
                await self._spare_returned(await self._spares.offer(one.label, device))
        except OrionError as error:
            await self._close(device)
            self._refused(one.owner or one.label, one.label, error)
            return False
        return True

    async def _rejoin(self, array: Array, label: str, device: StorageDevice) -> None:
        """*device* is at the path of the member *label*: take it back, if that is what it is."""
        member = array.roster.find(label)
        superblock = await read_superblock(device)
        if superblock.set_uuid != array.uuid or superblock.role != member.slot:
            raise Refused(f"it is not the member that slot {member.slot} of {array.name} is missing")
        if member.device is not None:  # the one that failed
            former = await array.remove(label)
            if former is not None:
                await self._close(former)
        await array.member_returned(label, device)

    async def _spare_returned(self, spare: Spare) -> None:
        for name in spare.spec.serves:
            array = self._arrays.get(name)
            if isinstance(array, Array):
                if spare.spec.dedicated:
                    await self.enlist(array, spare.label)
                else:
                    array.background.wake()

    def _refused(self, subject: str, label: str, error: OrionError) -> None:
        message = f"{label} is there and is not used: {error.message}"
        self._events.emit("member.not-usable", subject, message, severity="warning")

    async def _close(self, device: StorageDevice) -> None:
        try:
            await device.aclose()
        except OrionError as error:
            self._events.emit("member.close-failed", device.name, error.message, severity="error")
