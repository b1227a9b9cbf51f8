"""StorageManager: from a configuration to running devices, and back to clean members.

The configuration is the truth for what is composed, the media are the truth for layout and state.  The manager opens
members, assembles arrays from the inside out, runs their background work and closes everything in the opposite order.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from orionfs.array.array import Array
from orionfs.array.assembly import Source, assemble
from orionfs.array.levels import LEVELS
from orionfs.array.member import Member
from orionfs.array.policies import Policies
from orionfs.array.superblock_io import read_superblock
from orionfs.array.support import Expectation
from orionfs.attributes import AttributeStore
from orionfs.backends import path_of
from orionfs.config.aliases import refuse_aliases
from orionfs.config.edit import Edit
from orionfs.config.graph import claimed, opening_order, spares_of, uses
from orionfs.config.spec import JBOD, MISSING, ArraySpec, Spec
from orionfs.configuration import Configuration
from orionfs.device import Description, Geometry, StorageDevice
from orionfs.environment import Environment
from orionfs.errors import InUse, NotFound, OrionError, ReadOnly, Refused
from orionfs.exposed import Exposed
from orionfs.layers.bytewise import Bytewise
from orionfs.layers.lent import Lent
from orionfs.layers.single import Single
from orionfs.monitor.events import EventLog
from orionfs.opening import Opener
from orionfs.rejoining import Rejoining
from orionfs.spares import SparePool
from orionfs.units import SECTOR
from orionfs.watch import Watch

DEFAULT_MODE = 0o600
#: Programs that are about to close an array's file get so long before a stop is refused.
RELEASE_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagerOptions:
    """How to open a configuration; what is None or False leaves it to the configuration.

    ``force`` starts an array that is dirty and degraded.  ``lock`` False opens members without locks, for filesystems
    that have none.  ``mode``, ``uid`` and ``gid`` are for objects that do not have their own.
    """

    read_only: bool = False
    force: bool = False
    lock: bool = True
    direct: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class StorageManager:
    """All devices of one configuration.  Made by :meth:`open`; :meth:`run` does the background work.

    Arrays can be stopped, and assembled again, while it runs; one such change at a time.
    """

    def __init__(self, spec: Spec, options: ManagerOptions, environment: Environment) -> None:
        self.configuration = Configuration(spec, environment)
        self.options = options
        self.environment = environment
        self.events = EventLog(environment.clock)
        #: What runs, by name: arrays, and the devices of a jbod.
        self.arrays: dict[str, Array | Single] = {}
        self.exposed: list[Exposed] = []
        #: Told of every device that is shown, or not any more, after :meth:`open`.
        self.on_show: Callable[[Exposed], object] = lambda _exposed: None
        self.on_hide: Callable[[Exposed], object] = lambda _exposed: None
        #: Awaited when the configuration has become another.
        self.on_spec: Callable[[], Awaitable[None]] | None = None
        self.opener = Opener(spec.path, spec.folder, environment, lock=options.lock)
        self.spares = SparePool(self.opener, self.events, read_only=self.read_only)
        self._rejoining = Rejoining(self)
        self._watch = Watch(environment, self.events, absent=self._rejoining.absent, offer=self._rejoining.take_back)
        self._attributes: AttributeStore | None = None
        self._closed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._membership: dict[str, trio.Lock] = {}
        #: Held by whoever changes what runs.
        self.changing = trio.Lock()

    @classmethod
    async def open(cls, spec: Spec, *, environment: Environment, options: ManagerOptions) -> StorageManager:
        """Open every device of *spec*.  Raises the first :class:`OrionError`, with everything closed again.

        Writes nothing to any member.
        """
        manager = cls(spec, options, environment)
        try:
            refuse_aliases(spec)
            await manager.spares.update(spares_of(spec))
            for array in opening_order(spec):
                manager.arrays[array.name] = await manager._assemble(array, force=options.force)
            manager._attributes = await AttributeStore.open(
                spec.state_folder / "attributes.json", environment=environment, events=manager.events
            )
            for array in spec.arrays:
                manager._expose(array)
        except BaseException:
            with trio.CancelScope(shield=True):
                await manager._close_devices()
                manager.configuration.close()
            raise
        return manager

    async def _assemble(self, spec: ArraySpec, *, force: bool) -> Array | Single:
        """Open the members of one array and start it; none of them stays open if that fails."""
        opened: list[StorageDevice] = []
        read_only = self.read_only or spec.read_only
        try:
            sources: list[Source] = []
            for index, member in spec.present:
                source = await self._source(spec, index, member)
                if source.device is not None:
                    opened.append(source.device)
                sources.append(source)
            if spec.level == JBOD:
                return _single(spec, sources[0], read_only)
            spares = self.spares.belonging_to(spec.name, await _set_uuid(sources))
            opened += [source.device for source in spares if source.device is not None]
            array = await assemble(
                spec.name,
                sources,
                environment=self.environment,
                events=self.events,
                read_only=read_only,
                force=force,
                expect=_expectation(spec),
                spares=spares,
                policies=Policies(**spec.policies),  # type: ignore[arg-type] # the configuration has checked them
                consistency=spec.consistency or "journal",
            )
        except BaseException:
            with trio.CancelScope(shield=True):
                for device in opened:
                    await device.aclose()
            raise
        array.spare_pool = lambda size: self.spares.lend(spec.name, size, array.geometry.logical_block)
        used = {id(member.device) for member in array.roster.everyone()}
        for device in opened:
            if id(device) not in used:
                await self.close(device)  # it is not locked for nothing: who wants to use it again may
        return array

    async def _source(self, spec: ArraySpec, index: int, member: str) -> Source:
        inner = self.arrays.get(member)
        if inner is not None:
            return Source(member, Lent(inner))
        if self.spec.array(member) is not None:
            return Source(member, None, "it is stopped")
        return await self.opener.source(
            member,
            read_only=self.read_only or spec.read_only,
            direct=self.options.direct or spec.direct,
            line=spec.line_of_member(index),
        )

    @property
    def spec(self) -> Spec:
        """The configuration as it was read last."""
        return self.configuration.spec

    @property
    def read_only(self) -> bool:
        """Whether nothing at all may be written."""
        return self.options.read_only or self.spec.mount.read_only

    def check_writable(self) -> None:
        """Raise :class:`~orionfs.errors.ReadOnly` if nothing may be written, be it to members or files."""
        if self.read_only:
            raise ReadOnly("it is mounted read-only, so nothing can be changed", hint="mount it for writing")

    def _expose(self, array: ArraySpec) -> Exposed:
        options, mount = self.options, self.spec.mount
        attributes = self.attributes.get(
            f"arrays/{array.name}",
            mode=_first(array.mode, options.mode, mount.mode, DEFAULT_MODE),
            uid=_first(array.uid, options.uid, mount.uid, os.geteuid()),
            gid=_first(array.gid, options.gid, mount.gid, os.getegid()),
        )
        device = self.arrays[array.name]
        exposed = Exposed(
            array.name,
            "arrays",
            Bytewise(device),
            attributes,
            read_only=device.read_only,
            truncate=array.truncate,
            claimed_by=self.owner_of(array.name),
        )
        self.exposed.append(exposed)
        return exposed

    @property
    def attributes(self) -> AttributeStore:
        """Where modes, owners and times of the exposed files are kept."""
        assert self._attributes is not None, "the manager is not open"
        return self._attributes

    # --- changes while it runs -------------------------------------------------------------------------------------

    async def start(self, names: list[str], *, force: bool = False) -> None:
        """Assemble and show the arrays *names* of the configuration, inner ones first.

        Raises the first :class:`OrionError`; those before it run then.  The caller holds :attr:`changing`.
        """
        for array in opening_order(self.spec):
            if array.name in names and array.name not in self.arrays:
                self.check_members_unused(self.spec, array.name)
                await self.spares.reopen(array.name)
                device = self.arrays[array.name] = await self._assemble(array, force=force)
                for exposed in self.exposed:
                    exposed.claimed_by = self.owner_of(exposed.name)
                self.on_show(self._expose(array))
                if self._nursery is not None and isinstance(device, Array):
                    self._nursery.start_soon(self._run_array, device)
                self.events.emit("array.assembled", array.name, f"it is {device.state}")

    async def edit(self, change: Callable[[Edit], object]) -> Spec:
        """Make *change* in the file of the configuration; what it says then.  What runs stays as it is."""
        self.check_writable()
        await self.configuration.edit(change)
        return await self._adopt()

    async def read_spec(self) -> Spec:
        """Read the file of the configuration anew; what it says.  What runs stays as it is."""
        await self.configuration.reload()
        return await self._adopt()

    async def _adopt(self) -> Spec:
        await self.spares.update(spares_of(self.spec))
        for exposed in self.exposed:
            if not self.owner_of(exposed.name):
                exposed.claimed_by = ""  # the other way round is for start(): nobody loses a file that he writes
        if self.on_spec is not None:
            await self.on_spec()
        return self.spec

    async def stop(self, name: str, *, force: bool = False) -> None:
        """Close the array *name* and take its file away; its members are clean and free when this returns.

        Raises :class:`InUse` if another array is made of it, or it is open and *force* is not given: with it, whoever
        has it open gets ENODEV.  The caller holds :attr:`changing`.
        """
        device = self.arrays.get(name)
        if device is None:
            raise NotFound(f"array {name} does not run", hint=f"orionctl array assemble {name}")
        self.check_unclaimed(name)
        if not force:
            await self.check_released(name)
        exposed = next(one for one in self.exposed if one.name == name)
        self.exposed.remove(exposed)
        self.on_hide(exposed)
        await exposed.device.retire()
        async with self.membership(name):
            del self.arrays[name]
            await device.aclose()
        self.events.emit("array.stopped", name, "its members are closed")

    async def check_released(self, name: str) -> None:
        """Raise :class:`InUse` if somebody has the file of *name* open, and goes on to have."""
        exposed = next(one for one in self.exposed if one.name == name)
        with trio.move_on_after(RELEASE_WITHIN_S):  # the kernel tells of a close a little later
            await exposed.await_release()
        if exposed.open_count:
            hint = f"end what uses it (a loop device: orionctl detach {name}), or insist with --force"
            raise InUse(f"{name} is open in {_places(exposed)}", hint=hint)

    def check_members_unused(self, spec: Spec, name: str) -> None:
        """Raise :class:`InUse` if an array that *spec* makes a member of *name* is open."""
        array = spec.array(name)
        members = array.members if array is not None else ()
        for exposed in self.exposed:
            if exposed.name in members and exposed.open_count and not exposed.claimed_by:
                message = f"{exposed.name} is open in {_places(exposed)}, so it cannot become a member of {name}"
                raise InUse(message, hint="close it first")

    def membership(self, name: str) -> trio.Lock:
        """Held by whoever changes the members of array *name*, so that it is not closed meanwhile."""
        return self._membership.setdefault(name, trio.Lock())

    def owner_of(self, name: str) -> str:
        """The array that *name* is a member of; empty if there is none."""
        return claimed(self.spec).get(name, "")

    def check_unclaimed(self, name: str) -> None:
        """Raise :class:`InUse` if a running array is made of *name*."""
        owner = self.owner_of(name)
        if owner in self.arrays:
            raise InUse(f"{name} is a member of {owner}", hint=f"orionctl array stop {owner}  first")

    async def remove_member(self, array: Array, label: str, *, instead: str = "") -> None:
        """Have *array* forget the member or spare *label*, and write *instead* in its place in the configuration.

        Without *instead* that is who has taken its slot, or nobody.  A member that the array does not know any more,
        because somebody has taken the slot that it left, may be only in the configuration.  Raises what the array
        raises.
        """
        async with self.membership(array.name):
            member = next((each for each in array.roster.everyone() if each.label == label), None)
            instead = instead or self._successor(array, label, member)

            def change(edit: Edit) -> None:
                if not edit.put_member(array.name, label, instead or MISSING):
                    edit.remove_spare(label)

            named = any(use.label == label for use in uses(self.spec))
            if named:
                await self.configuration.preview(change)
            if member is not None:
                device = await array.remove(label)
                if device is not None:
                    await self.close(device)
            if named:
                await self.edit(change)

    def _successor(self, array: Array, label: str, member: Member | None) -> str:
        """Who is in the slot that *label* has left, by what the configuration calls it; empty if nobody is."""
        spec = self.spec.array(array.name)
        listed = spec.members if spec is not None else ()
        slot = member.slot if member is not None else listed.index(label) if label in listed else -1
        if not 0 <= slot < len(array.roster.slots):
            return ""
        in_slot = array.roster.slots[slot]
        return in_slot.label if in_slot is not member and self.path_of(in_slot.label) is not None else ""

    async def close(self, device: StorageDevice) -> None:
        """Close a device that nobody uses; what goes wrong is an event."""
        with trio.CancelScope(shield=True):
            try:
                await device.aclose()
            except OrionError as error:
                self.events.emit("member.close-failed", device.name, error.message, severity="error")

    def path_of(self, label: str) -> Path | None:
        """The path of a member or spare of the configuration; None if it has none, or is not one."""
        known = any(use.label == label for use in uses(self.spec))
        return path_of(label, self.spec.folder) if known else None

    def device(self, name: str) -> Array | Single:
        """The device *name*.  Raises :class:`Refused` if it is stopped, :class:`NotFound` if it is not declared."""
        device = self.arrays.get(name)
        if device is not None:
            return device
        if self.spec.array(name) is not None:
            raise Refused(f"array {name} is stopped", hint=f"orionctl array assemble {name}")
        raise NotFound(f"there is no array {name}", hint=f"there is: {', '.join(self.spec.names)}")

    # --- background ------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the background work of all devices until :meth:`aclose`."""
        async with trio.open_nursery() as self._nursery:
            for array in self.arrays.values():
                if isinstance(array, Array):
                    self._nursery.start_soon(self._run_array, array)
            if not self.read_only:
                self._nursery.start_soon(self._watch.run)
                self._nursery.start_soon(self._rejoining.release_replaced)
            task_status.started()
            await self._closed.wait()
            self._nursery.cancel_scope.cancel()

    async def _run_array(self, array: Array) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(array.run)
            if not array.read_only:
                await self._rejoining.complete(array.name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StorageManager]:
        """The manager with its background work going on; closed at the end, whatever happens."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            try:
                yield self
            finally:
                with trio.CancelScope(shield=True):
                    await self.aclose()

    # --- facts and end ---------------------------------------------------------------------------------------------

    def descriptions(self) -> list[Description]:
        """Every array that the configuration declares, in its order; then what runs without being declared any more."""
        found = [self._describe(array) for array in self.spec.arrays]
        return found + [device.describe() for name, device in self.arrays.items() if self.spec.array(name) is None]

    def _describe(self, spec: ArraySpec) -> Description:
        facts = {"declared_level": spec.declared_level, "part_of": spec.part_of}
        device = self.arrays.get(spec.name)
        if device is None:
            details = {"level": spec.level, "why": ["it was stopped"], "next": f"orionctl array assemble {spec.name}"}
            return Description("array", spec.name, "stopped", Geometry(0), details={**details, **facts})
        description = device.describe()
        return replace(description, details={**description.details, **facts})

    async def aclose(self) -> None:
        """Flush, mark clean, save attributes and let go of every member.  Idempotent.

        Everything is let go of even if some of it fails; the first error is raised at the end.
        """
        with trio.CancelScope(shield=True):
            problems = await self._close_devices()
            if self._attributes is not None:
                try:
                    await self._attributes.aclose(save=not self.read_only)
                except OrionError as error:
                    self.events.emit("attributes.not-saved", str(self.spec.path), str(error), severity="error")
                    problems.append(_times_lost(error))
            self.configuration.close()
            self._closed.set()
        if problems:
            raise problems[0]

    async def _close_devices(self) -> list[OrionError]:
        problems: list[OrionError] = []
        for array in reversed(list(self.arrays.values())):
            try:
                async with self.membership(array.name):
                    await array.aclose()
            except OrionError as error:
                self.events.emit("array.close-failed", array.name, str(error), severity="error")
                problems.append(error)
        await self.spares.aclose()
        return problems


def _places(exposed: Exposed) -> str:
    return f"{exposed.open_count} place{'' if exposed.open_count == 1 else 's'}"


def _times_lost(error: OrionError) -> OrionError:
    """Modes and owners are saved when they are set, so that only times can be lost at the end."""
    message = f"the members are closed, but the times of the arrays' files could not be kept: {error.message}"
    return type(error)(message, hint="no data is affected")


def _first(*values: int | None) -> int:
    """The first of *values* that is set; the last one always is."""
    return next(value for value in values if value is not None)


def _single(spec: ArraySpec, source: Source, read_only: bool) -> Single:
    if source.device is None:
        raise NotFound(f"{spec.name}: {source.problem}", hint="bring it back, or take it out of the list of members")
    return Single(source.device, name=spec.name, read_only=read_only)


async def _set_uuid(sources: list[Source]) -> bytes:
    """The array that *sources* belong to, by the first of them that says so; empty if none does."""
    for source in sources:
        if source.device is not None:
            try:
                return (await read_superblock(source.device)).set_uuid
            except OrionError:
                continue  # assembly says what is wrong with it
    return b""


def _expectation(spec: ArraySpec) -> Expectation:
    level = LEVELS[spec.level]
    return Expectation(
        level=level.md_level,
        chunksize=spec.chunk // SECTOR if spec.chunk is not None and level.chunked else None,
        layout=level.layouts[spec.layout] if spec.layout is not None else None,
    )
