"""StorageManager: from a configuration to running devices, and back to clean members.

The configuration is the truth for what is composed, the media are the truth for layout and state.  The manager opens
members, assembles arrays from the inside out, runs their background work and closes everything in the opposite order.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from orionfs.array.array import Array
from orionfs.array.assembly import Source, assemble
from orionfs.array.levels import LEVELS
from orionfs.array.support import Expectation
from orionfs.attributes import AttributeStore
from orionfs.backends import OpenOptions, open_backend
from orionfs.backends.opening import CutShort
from orionfs.config.aliases import refuse_aliases
from orionfs.config.graph import claimed, opening_order
from orionfs.config.spec import ArraySpec, Spec
from orionfs.device import Description, StorageDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, NotFound, OrionError
from orionfs.exposed import Exposed
from orionfs.layers.bytewise import Bytewise
from orionfs.monitor.events import EventLog
from orionfs.units import SECTOR

DEFAULT_MODE = 0o600


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
    """All devices of one configuration.  Made by :meth:`open`; :meth:`run` does the background work."""

    def __init__(self, spec: Spec, options: ManagerOptions, environment: Environment) -> None:
        self.spec = spec
        self.options = options
        self.environment = environment
        self.events = EventLog(environment.clock)
        self.arrays: dict[str, Array] = {}
        self.exposed: list[Exposed] = []
        self._attributes: AttributeStore | None = None
        self._closed = trio.Event()

    @classmethod
    async def open(cls, spec: Spec, *, environment: Environment, options: ManagerOptions) -> StorageManager:
        """Open every device of *spec*.  Raises the first :class:`OrionError`, with everything closed again.

        Writes nothing to any member.
        """
        manager = cls(spec, options, environment)
        try:
            refuse_aliases(spec)
            for array in opening_order(spec):
                manager.arrays[array.name] = await manager._assemble(array)
            await manager._expose()
        except BaseException:
            with trio.CancelScope(shield=True):
                await manager._close_devices()
            raise
        return manager

    async def _assemble(self, spec: ArraySpec) -> Array:
        """Open the members of one array and start it; none of them stays open if that fails."""
        opened: list[StorageDevice] = []
        try:
            sources: list[Source] = []
            for index, member in enumerate(spec.members):
                source = await self._source(spec, index, member)
                if source.device is not None:
                    opened.append(source.device)
                sources.append(source)
            return await assemble(
                spec.name,
                sources,
                environment=self.environment,
                events=self.events,
                read_only=self.read_only or spec.read_only,
                force=self.options.force,
                expect=_expectation(spec),
            )
        except BaseException:
            with trio.CancelScope(shield=True):
                for device in opened:
                    if not isinstance(device, Array):
                        await device.aclose()
            raise

    async def _source(self, spec: ArraySpec, index: int, member: str) -> Source:
        inner = self.arrays.get(member)
        if inner is not None:
            return Source(member, inner)
        options = OpenOptions(
            read_only=self.read_only or spec.read_only,
            lock=self.options.lock,
            direct=self.options.direct or spec.direct,
        )
        try:
            device = await open_backend(member, base=self.spec.folder, options=options, environment=self.environment)
        except NotFound as error:
            return Source(member, None, error.message)
        except CutShort as error:
            return Source(member, None, error.message, "damaged")
        except ConfigError as error:
            line = spec.line_of_member(index)
            raise ConfigError(error.message, hint=error.hint, path=str(self.spec.path), line=line) from error
        return Source(member, device)

    @property
    def read_only(self) -> bool:
        """Whether nothing at all may be written."""
        return self.options.read_only or self.spec.mount.read_only

    async def _expose(self) -> None:
        self._attributes = await AttributeStore.open(
            self.spec.state_folder / "attributes.json", environment=self.environment, events=self.events
        )
        owners = claimed(self.spec)
        options, mount = self.options, self.spec.mount
        for array in self.spec.arrays:
            attributes = self._attributes.get(
                f"arrays/{array.name}",
                mode=_first(array.mode, options.mode, mount.mode, DEFAULT_MODE),
                uid=_first(array.uid, options.uid, mount.uid, os.geteuid()),
                gid=_first(array.gid, options.gid, mount.gid, os.getegid()),
            )
            device = self.arrays[array.name]
            self.exposed.append(
                Exposed(
                    array.name,
                    "arrays",
                    Bytewise(device),
                    attributes,
                    read_only=device.read_only,
                    truncate=array.truncate,
                    claimed_by=owners.get(array.name, ""),
                )
            )

    @property
    def attributes(self) -> AttributeStore:
        """Where modes, owners and times of the exposed files are kept."""
        assert self._attributes is not None, "the manager is not open"
        return self._attributes

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the background work of all devices until :meth:`aclose`."""
        async with trio.open_nursery() as nursery:
            for array in self.arrays.values():
                nursery.start_soon(array.run)
            task_status.started()
            await self._closed.wait()

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

    def descriptions(self) -> list[Description]:
        """Every array that the configuration declares, in its order."""
        return [self.arrays[array.name].describe() for array in self.spec.arrays]

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
            self._closed.set()
        if problems:
            raise problems[0]

    async def _close_devices(self) -> list[OrionError]:
        problems: list[OrionError] = []
        for array in reversed(list(self.arrays.values())):
            try:
                await array.aclose()
            except OrionError as error:
                self.events.emit("array.close-failed", array.name, str(error), severity="error")
                problems.append(error)
        return problems


def _times_lost(error: OrionError) -> OrionError:
    """Modes and owners are saved when they are set, so that only times can be lost at the end."""
    message = f"the members are closed, but the times of the arrays' files could not be kept: {error.message}"
    return type(error)(message, hint="no data is affected")


def _first(*values: int | None) -> int:
    """The first of *values* that is set; the last one always is."""
    return next(value for value in values if value is not None)


def _expectation(spec: ArraySpec) -> Expectation:
    level = LEVELS[spec.level]
    return Expectation(
        level=level.md_level,
        chunksize=spec.chunk // SECTOR if spec.chunk is not None and level.chunked else None,
        layout=level.layouts[spec.layout] if spec.layout is not None else None,
    )
