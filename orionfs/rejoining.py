"""Rejoining: members and spares that find their way into a running array without a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import trio

from orionfs.array.array import Array
from orionfs.array.superblock_io import read_superblock
from orionfs.device import StorageDevice
from orionfs.errors import OrionError, Refused
from orionfs.layers.single import Single
from orionfs.monitor.events import EventLog
from orionfs.opening import Opener
from orionfs.spares import Spare, SparePool
from orionfs.watch import Absent

#: What watching for a member's return concerns, and what is taken back as soon as the array runs.
_LOST = ("missing", "failed")
_OUTDATED = ("stale", "recovering")


class Host(Protocol):
    """What of a mount this is about: :class:`~orionfs.manager.StorageManager` is one."""

    @property
    def arrays(self) -> Mapping[str, Array | Single]:
        """What runs."""

    @property
    def spares(self) -> SparePool:
        """The spares that no array holds."""

    @property
    def opener(self) -> Opener:
        """What opens devices."""

    @property
    def events(self) -> EventLog:
        """Where to tell what happens."""

    def membership(self, name: str) -> trio.Lock:
        """To be held while the members of array *name* change."""

    async def remove_member(self, array: Array, label: str) -> None:
        """Have *array* forget a member that is not in use, and the configuration, too."""

    async def close(self, device: StorageDevice) -> None:
        """Close a device that nobody uses; what goes wrong is an event."""

    def path_of(self, label: str) -> Path | None:
        """The path of a member or spare of the configuration; None if it has none, or is not one."""


class Rejoining:
    """Who may come back into the arrays of *host*, and how."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def complete(self, name: str) -> None:
        """Let those join array *name* who belong to it and have no part in it: outdated members, and blank spares."""
        host = self._host
        async with host.membership(name):
            array = host.arrays.get(name)
            if not isinstance(array, Array):
                return
            if array.policies.spare_policy == "auto":
                for member in list(array.roster.slots):
                    if member.state in _OUTDATED:
                        try:
                            await array.readd(member.label)
                        except OrionError as error:
                            self._refused(name, member.label, error)
            for spare in host.spares.dedicated_to(name):
                await self._enlist(array, spare)

    async def _enlist(self, array: Array, spare: Spare) -> None:
        """Give *array* the idle *spare* that waits for it alone."""
        device = self._host.spares.hand_over(spare, array.name)
        try:
            await array.add(spare.label, device)
        except OrionError as error:
            await self._host.close(device)
            self._host.spares.take_back(spare.label, error.message)
            self._refused(array.name, spare.label, error)

    # --- who is missed ---------------------------------------------------------------------------------------------

    def absent(self) -> Iterator[Absent]:
        """The members and spares whose return is worth waiting for."""
        host = self._host
        for array in host.arrays.values():
            if isinstance(array, Array) and not array.read_only and not array.failed:
                for member in array.roster.slots:
                    path = host.path_of(member.label) if member.state in _LOST else None
                    if path is not None:
                        yield Absent(array.name, member.label, path, member.state == "failed")
        for spare in host.spares.missing():
            path = host.path_of(spare.label)
            if path is not None:
                yield Absent("", spare.label, path, failed=spare.refused)

    async def take_back(self, one: Absent) -> bool:
        """Open what has come back and give it to its array; whether that went well."""
        try:
            device = await self._host.opener.open(one.label)
        except OrionError as error:
            self._refused(one.owner or one.label, one.label, error)
            return False
        try:
            if one.owner:
                await self._member_returned(one, device)
            else:
                await self._spare_returned(await self._host.spares.offer(one.label, device))
        except OrionError as error:
            await self._host.close(device)
            self._refused(one.owner or one.label, one.label, error)
            return False
        return True

    async def _member_returned(self, one: Absent, device: StorageDevice) -> None:
        """*device* is at the path of a member that is missed: take it back, if that is what it is."""
        host = self._host
        async with host.membership(one.owner):
            array = host.arrays.get(one.owner)
            if not isinstance(array, Array):
                raise Refused(f"{one.owner} is stopped")
            member = array.roster.find(one.label)
            superblock = await read_superblock(device)
            if superblock.set_uuid != array.uuid or superblock.role != member.slot:
                raise Refused(f"it is not the member that slot {member.slot} of {array.name} is missing")
            if member.device is not None:  # the one that failed
                former = await array.remove(one.label)
                if former is not None:
                    await self._host.close(former)
            await array.member_returned(one.label, device)

    async def _spare_returned(self, spare: Spare) -> None:
        host = self._host
        if spare.spec.dedicated:
            await self.complete(spare.spec.serves[0])
            return
        for name in spare.spec.serves:
            array = host.arrays.get(name)
            if isinstance(array, Array):
                array.background.wake()

    async def release_replaced(self) -> None:
        """Let go of each member as soon as its replacement has taken its slot, until cancelled."""
        host = self._host
        while True:
            seen = host.events.last
            for array in [array for array in host.arrays.values() if isinstance(array, Array)]:
                for member in [member for member in array.roster.retired if member.state == "replaced"]:
                    try:
                        await host.remove_member(array, member.label)
                    except OrionError as error:
                        message = f"{member.label} was replaced, and cannot be forgotten: {error}"
                        host.events.emit("member.not-removed", array.name, message, severity="warning")
            await host.events.wait(seen)

    # --- what goes wrong -------------------------------------------------------------------------------------------

    def _refused(self, subject: str, label: str, error: OrionError) -> None:
        message = f"{label} is there and is not used: {error.message}"
        self._host.events.emit("member.not-usable", subject, message, severity="warning")
