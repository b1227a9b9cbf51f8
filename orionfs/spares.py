"""The spares that no array holds yet: those of one array that are still blank, and those that several share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orionfs.array.assembly import Source
from orionfs.array.signatures import find_signature
from orionfs.array.superblock import SuperblockError
from orionfs.array.superblock_io import read_superblock
from orionfs.config.spec import SpareSpec
from orionfs.device import StorageDevice
from orionfs.errors import NotFound, OrionError, Refused
from orionfs.monitor.events import EventLog
from orionfs.opening import Opener


@dataclass(slots=True)
class Spare:
    """One spare of the configuration.

    It is idle while ``device`` is there.  Otherwise ``holder`` is the array that has it, or ``problem`` says why nobody
    has: it is not there, or what is there was ``refused``.  ``set_uuid`` is the array that its superblock belongs to,
    empty for none.
    """

    spec: SpareSpec
    device: StorageDevice | None = None
    problem: str = ""
    refused: bool = False
    holder: str = ""
    set_uuid: bytes = b""

    @property
    def label(self) -> str:
        """What the configuration calls it."""
        return self.spec.label

    @property
    def state(self) -> str:
        """``idle``, ``lent`` or ``unavailable``."""
        return "idle" if self.device is not None else "lent" if self.holder else "unavailable"


class SparePool:
    """All spares of one mount.  Used on the event loop only."""

    def __init__(self, opener: Opener, events: EventLog, *, read_only: bool) -> None:
        self._opener = opener
        self._events = events
        self._read_only = read_only
        self._spares: dict[str, Spare] = {}

    async def update(self, specs: Sequence[SpareSpec]) -> None:
        """From now on the spares are *specs*: new ones are opened, and idle ones that are gone are closed.

        One that cannot be had is told by an event, no more.
        """
        listed = {spec.label for spec in specs}
        for label in [label for label in self._spares if label not in listed]:
            await self._let_go(self._spares.pop(label))
        for spec in specs:
            known = self._spares.get(spec.label)
            if known is not None:
                known.spec = spec
                continue
            spare = self._spares[spec.label] = Spare(spec)
            try:
                await self._open(spare)
            except OrionError as error:
                spare.problem = error.message
                self._events.emit("spare.not-usable", spec.label, error.message, severity="warning")

    async def check(self, label: str) -> None:
        """Raise what is wrong with *label* as a spare for whoever needs one; it is left as it is."""
        device = await self._opener.open(label)
        try:
            noun = await find_signature(device)
        finally:
            await device.aclose()
        if noun:
            raise Refused(f"{label} already holds {noun}, which a rebuild would destroy", hint="choose another one")

    async def _open(self, spare: Spare) -> None:
        device = await self._opener.open(spare.label, read_only=self._read_only, line=spare.spec.line)
        try:
            await self._take(spare, device)
        except BaseException:
            await device.aclose()
            raise

    async def _take(self, spare: Spare, device: StorageDevice) -> None:
        try:
            spare.set_uuid = (await read_superblock(device)).set_uuid
        except SuperblockError:
            spare.set_uuid = b""  # blank, or something that whoever wants to use it will refuse
        spare.device, spare.problem, spare.refused = device, "", False

    async def offer(self, label: str, device: StorageDevice) -> Spare:
        """The missing spare *label* is there again, as *device*."""
        spare = self._spares[label]
        await self._take(spare, device)
        self._events.emit("spare.returned", label, f"{label} is there again")
        return spare

    def note(self, spec: SpareSpec, holder: str) -> None:
        """*holder* has got the spare *spec* by itself."""
        self._spares[spec.label] = Spare(spec, holder=holder)

    def named(self, name: str) -> Spare:
        """The spare that *name* means, in full or by the last part of its label.  Raises NotFound."""
        for spare in self._spares.values():
            if name in (spare.label, spare.label.rsplit("/", 1)[-1]):
                return spare
        listed = ", ".join(self._spares)
        raise NotFound(f"there is no spare {name}", hint=f"there is: {listed}" if listed else "there are none")

    # --- giving ----------------------------------------------------------------------------------------------------

    def belonging_to(self, name: str, set_uuid: bytes) -> list[Source]:
        """The idle spares that the superblocks of array *name* know already, as what it is assembled from."""
        found = []
        for spare in self._spares.values():
            if spare.device is not None and name in spare.spec.serves and spare.set_uuid == set_uuid:
                found.append(Source(spare.label, self.hand_over(spare, name)))
        return found

    def dedicated_to(self, name: str) -> list[Spare]:
        """The idle spares that wait for array *name* alone."""
        return [spare for spare in self._spares.values() if spare.device is not None and spare.spec.serves == (name,)]

    def hand_over(self, spare: Spare, name: str) -> StorageDevice:
        """Give the idle *spare* to array *name*, which owns its device now."""
        assert spare.device is not None, f"{spare.label} is not idle"
        device, spare.device, spare.holder, spare.problem = spare.device, None, name, ""
        return device

    def take_back(self, label: str, problem: str) -> None:
        """The array has refused *label*, whose device is closed."""
        spare = self._spares[label]
        spare.holder, spare.problem, spare.refused = "", problem, True

    async def lend(self, name: str, size: int, block: int) -> tuple[str, StorageDevice] | None:
        """The smallest idle spare of at least *size* bytes that may serve array *name*; None if there is none.

        It is addressed in blocks of *block* bytes or less.  The array owns the device.  One that holds something
        recognizable is passed over, with an event.
        """
        fit = [
            spare
            for spare in self._spares.values()
            if spare.device is not None
            and name in spare.spec.serves
            and spare.device.geometry.size >= size
            and spare.device.geometry.logical_block <= block
        ]
        for spare in sorted(fit, key=lambda spare: spare.device.geometry.size if spare.device else 0):
            # Somebody else may have taken it while it, or one before it, was looked at.
            if spare.device is not None and await self._usable(spare, spare.device) and spare.device is not None:
                return spare.label, self.hand_over(spare, name)
        return None

    async def _usable(self, spare: Spare, device: StorageDevice) -> bool:
        try:
            noun = await find_signature(device)
        except OrionError as error:
            problem = f"it cannot be read: {error.message}"
        else:
            if not noun:
                return True
            problem = f"it holds {noun}, which a rebuild would destroy"
        if spare.problem != problem:
            spare.problem = problem
            self._events.emit("spare.not-usable", spare.label, problem, severity="warning")
        return False

    async def reopen(self, name: str) -> None:
        """Array *name* was stopped, which closed the spares that it had, and is about to be assembled: open them."""
        for spare in self._spares.values():
            if spare.holder == name:
                spare.holder = ""
                try:
                    await self._open(spare)
                except OrionError as error:
                    spare.problem = error.message

    # --- facts and end ---------------------------------------------------------------------------------------------

    def missing(self) -> list[Spare]:
        """Those that nobody has."""
        return [spare for spare in self._spares.values() if spare.state == "unavailable"]

    def describe(self) -> list[dict[str, Any]]:
        """Those that no array holds, for status."""
        return [
            {
                "name": spare.label,
                "state": spare.state,
                "serves": list(spare.spec.serves),
                "size": spare.device.geometry.size if spare.device is not None else 0,
                "why": spare.problem,
            }
            for spare in self._spares.values()
            if spare.state != "lent"
        ]

    async def _let_go(self, spare: Spare) -> None:
        """Close *spare* if it is idle.  Nothing of anybody's is on it, so that going wrong is no more than an event."""
        device, spare.device = spare.device, None
        if device is not None:
            try:
                await device.aclose()
            except OrionError as error:
                self._events.emit("spare.close-failed", spare.label, error.message, severity="warning")

    async def aclose(self) -> None:
        """Close what is idle."""
        for spare in self._spares.values():
            await self._let_go(spare)
