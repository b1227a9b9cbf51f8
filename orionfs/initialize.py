"""Making what a configuration declares and the host does not have yet: member files and the arrays over them.

Never touches data that is there.  Superblocks are written only where every byte of every member reads as zero, or where
an earlier attempt was cut off before there was an array.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import trio

from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.superblock import NoSuperblock, SuperblockError
from orionfs.array.superblock_io import read_superblock
from orionfs.backends import OpenOptions, open_backend, path_of
from orionfs.backends.create import create_file
from orionfs.backends.opening import CutShort
from orionfs.config.aliases import refuse_aliases
from orionfs.config.graph import opening_order
from orionfs.config.spec import DEFAULT_CHUNK, ArraySpec, Spec
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, NotFound, Refused
from orionfs.extents import Kind
from orionfs.monitor.events import EventLog
from orionfs.units import MIB, SECTOR

Action = Literal["created", "exists"]
#: What a member is before anything is done: not there, all zeros, one of an array, or left by an attempt that was cut.
State = Literal["missing", "empty", "member", "prepared"]

_LOOK_ONLY = OpenOptions(read_only=True, lock=False)  # so that a second init works while the first result is mounted


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or was found done.  ``size`` is bytes."""

    action: Action
    kind: Literal["member", "array"]
    name: str
    size: int = 0


async def initialize(spec: Spec, environment: Environment, *, dry_run: bool = False) -> list[Step]:
    """Make the missing members and arrays of *spec*; what was done, inner arrays first.  Idempotent.

    With *dry_run*, what would be done.  Raises :class:`~orionfs.errors.Refused` for members that hold other data and
    for an array of which only some members are there, :class:`~orionfs.errors.ConfigError` for a missing member whose
    size nobody said, for two that are one file, and for what cannot be a member; nothing was changed then.
    """
    refuse_aliases(spec)
    work = _Initialization(spec, environment)
    plans: dict[str, list[State]] = {}
    for array in opening_order(spec):
        plans[array.name] = await work.survey(array, plans)
    steps: list[Step] = []
    for array in opening_order(spec):
        states = plans[array.name]
        if all(state == "member" for state in states):
            steps.append(Step("exists", "array", array.name))
        else:
            steps += _planned(array, states) if dry_run else await work.make(array, states)
    return steps


def _planned(array: ArraySpec, states: list[State]) -> list[Step]:
    files = [member for member, state in zip(array.members, states, strict=True) if state == "missing"]
    steps = [Step("created", "member", member, array.member_size or 0) for member in files]
    return [*steps, Step("created", "array", array.name)]


class _Initialization:
    """One run over one configuration."""

    def __init__(self, spec: Spec, environment: Environment) -> None:
        self._spec = spec
        self._environment = environment
        self._events = EventLog(environment.clock)

    async def survey(self, array: ArraySpec, plans: dict[str, list[State]]) -> list[State]:
        """What the members of *array* are; raises unless the array exists whole or can be made.

        *plans* has the arrays that are inside of it.
        """
        states = [await self._state(array, position, plans) for position in range(len(array.members))]
        if "prepared" in states:  # it never started, so it never held anything
            return states
        lone = [member for member, state in zip(array.members, states, strict=True) if state != "member"]
        if "member" in states and lone:
            problem = "is missing" if "missing" in states else "is empty"
            message = f"array {array.name}: {lone[0]} {problem} while other members already belong to an array"
            hint = "put the right file back, or mount without it; if nothing is stored there, remove the other members"
            raise Refused(message, hint=hint)
        return states

    async def _state(self, array: ArraySpec, position: int, plans: dict[str, list[State]]) -> State:
        member = array.members[position]
        inner = self._spec.array(member)
        if inner is not None and any(state != "member" for state in plans[inner.name]):
            return "empty"  # it will be made, and a new array reads as zeros
        if inner is None and path_of(member, self._spec.folder) is None:
            message = f"member {member} of {array.name} keeps nothing, so no array can be made on it"
            raise self._config_error(array, position, message, "name a file or a block device")
        try:
            async with self._device(member, _LOOK_ONLY) as device:
                return await self._examine(array, member, device)
        except NotFound as error:
            if inner is not None or isinstance(error, SuperblockError):
                raise
        except (ConfigError, CutShort) as error:
            raise self._config_error(array, position, error.message, error.hint) from error
        if array.member_size is None:
            message = f"member {member} of {array.name} does not exist, and nothing says how large to make it"
            raise self._config_error(array, position, message, 'add a line such as member_size = "256MiB"')
        return "missing"

    async def _examine(self, array: ArraySpec, member: str, device: StorageDevice) -> State:
        """Whether *device* is all zeros or has a superblock.  Raises Refused if it holds anything else."""
        try:
            superblock = await read_superblock(device)
        except NoSuperblock:
            if await is_zero(device):
                return "empty"
            reason = "holds data that is not OrionFS's"
        except SuperblockError as error:
            reason = error.message
        else:
            return "prepared" if superblock.events == 0 else "member"
        message = f"array {array.name}: {member} {reason}, and nothing is ever made over existing data"
        raise Refused(message, hint="name other members, or remove that one yourself")

    async def make(self, array: ArraySpec, states: list[State]) -> list[Step]:
        """Create what *states* says is missing, then the array."""
        steps = []
        for member, state in zip(array.members, states, strict=True):
            if state == "missing":
                steps.append(await self._make_file(array, member))
        options = OpenOptions(direct=array.direct)
        redo = "prepared" in states
        async with AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(self._device(member, options)) for member in array.members]
            for member, device in zip(array.members, devices, strict=True):
                if await self._examine(array, member, device) == "member" and not redo:
                    raise Refused(f"array {array.name}: {member} became part of an array meanwhile")
            await create_array(
                devices,
                spec=_md_spec(array),
                environment=self._environment,
                freshly_made=not redo,
                replace=redo,
            )
        return [*steps, Step("created", "array", array.name)]

    async def _make_file(self, array: ArraySpec, member: str) -> Step:
        path = path_of(member, self._spec.folder)
        size = array.member_size
        assert path is not None, "the survey refuses members without a path"
        assert size is not None, "the survey refuses missing members without a size"
        worker = self._environment.threads.worker("initialize")
        try:
            await worker.run(self._environment.hostfs.make_folder, path.parent)
        finally:
            worker.close()
        await create_file(path, size, self._environment)
        return Step("created", "member", member, size)

    @asynccontextmanager
    async def _device(self, member: str, options: OpenOptions) -> AsyncIterator[StorageDevice]:
        """The device that *member* names, inner arrays assembled; closed at the end."""
        async with AsyncExitStack() as stack:
            yield await self._open(member, options, stack)

    async def _open(self, member: str, options: OpenOptions, stack: AsyncExitStack) -> StorageDevice:
        inner = self._spec.array(member)
        if inner is None:
            device = await open_backend(member, base=self._spec.folder, options=options, environment=self._environment)
            stack.push_async_callback(_close, device)
            return device
        sources = [Source(name, await self._open(name, options, stack)) for name in inner.members]
        array = await assemble(
            inner.name, sources, environment=self._environment, events=self._events, read_only=options.read_only
        )
        stack.push_async_callback(_close, array)
        return array

    def _config_error(self, array: ArraySpec, position: int, message: str, hint: str) -> ConfigError:
        line = array.line_of_member(position)
        return ConfigError(message, hint=hint, path=str(self._spec.path), line=line)


async def is_zero(device: StorageDevice) -> bool:
    """Whether every byte of *device* reads as zero.  Reads what is stored, up to the first byte that is not."""
    buffer = bytearray(MIB)
    zeros = bytes(MIB)
    stored = [extent async for extent in device.extents(0, device.geometry.size) if extent.kind is Kind.DATA]
    for extent in stored:
        offset = extent.offset
        while offset < extent.end:
            view = memoryview(buffer)[: min(MIB, extent.end - offset)]
            await device.read(offset, [view])
            if view != zeros[: len(view)]:
                return False
            offset += len(view)
    return True


async def _close(device: StorageDevice) -> None:
    with trio.CancelScope(shield=True):
        await device.aclose()


def _md_spec(array: ArraySpec) -> MdSpec:
    level = LEVELS[array.level]
    return MdSpec(
        level=level.md_level,
        name=array.name,
        layout=level.layouts[array.layout] if array.layout is not None else None,
        chunksize=(array.chunk or DEFAULT_CHUNK) // SECTOR if level.chunked else 0,
    )
