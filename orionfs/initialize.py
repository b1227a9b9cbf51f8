"""Making what a configuration declares and the host does not have yet: member files and the arrays over them.

Never touches data that is there.  Superblocks are written only where every byte of every member reads as zero, or where
an earlier attempt was cut off before there was an array.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
from orionfs.config.levels import redundant
from orionfs.config.spec import DEFAULT_CHUNK, JBOD, MISSING, ArraySpec, Spec
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, NotFound, Refused
from orionfs.extents import Kind
from orionfs.monitor.events import EventLog
from orionfs.units import MIB, SECTOR

Action = Literal["created", "exists"]
Noun = Literal["member", "spare"]
#: What a member is before anything is done: not there, all zeros, one of an array, or left by an attempt that was cut.
State = Literal["missing", "empty", "member", "prepared"]

_LOOK_ONLY = OpenOptions(read_only=True, lock=False)  # so that a second init works while the first result is mounted


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done, or was found done.  ``size`` is bytes."""

    action: Action
    kind: Literal["member", "spare", "array"]
    name: str
    size: int = 0


async def initialize(
    spec: Spec,
    environment: Environment,
    *,
    dry_run: bool = False,
    only: Collection[str] | None = None,
    running: Mapping[str, StorageDevice] | None = None,
) -> list[Step]:
    """Make the missing members, spares and arrays of *spec*; what was done, inner arrays first.  Idempotent.

    With *dry_run*, what would be done.  *only* names the arrays to look at, if not all; *running* has those that are in
    use already, which stay the caller's.

    Raises :class:`~orionfs.errors.Refused` for members that hold other data and for an array of which only some members
    are there, :class:`~orionfs.errors.ConfigError` for a missing member whose size nobody said, for two that are one
    file, and for what cannot be a member; nothing was changed then.
    """
    refuse_aliases(spec)
    work = _Initialization(spec, environment, running or {})
    arrays = [array for array in opening_order(spec) if only is None or array.name in only]
    plans: dict[str, Plan] = {}
    for array in arrays:
        plans[array.name] = await work.survey(array, plans)
    steps: list[Step] = []
    for array in arrays:
        steps += _planned(array, plans[array.name]) if dry_run else await work.make(array, plans[array.name])
    return steps


class Plan(NamedTuple):
    """What was found: for each member that the array names, and each spare, what it is."""

    members: list[State]
    spares: list[State]

    @property
    def exists(self) -> bool:
        """Whether the array is there, as a whole."""
        return all(state == "member" for state in self.members)


def _planned(array: ArraySpec, plan: Plan) -> list[Step]:
    labels = [*(member for _index, member in array.present), *array.spares]
    missing = [label for label, state in zip(labels, [*plan.members, *plan.spares], strict=True) if state == "missing"]
    steps = [
        Step("created", "spare" if label in array.spares else "member", label, array.member_size or 0)
        for label in missing
    ]
    return [*steps, Step("exists" if plan.exists else "created", "array", array.name)]


class _Initialization:
    """One run over one configuration."""

    def __init__(self, spec: Spec, environment: Environment, running: Mapping[str, StorageDevice]) -> None:
        self._spec = spec
        self._environment = environment
        self._running = running
        self._events = EventLog(environment.clock)

    async def survey(self, array: ArraySpec, plans: Mapping[str, Plan]) -> Plan:
        """What the members of *array* are; raises unless the array exists whole or can be made.

        *plans* has the arrays that are inside of it.
        """
        states = [
            await self._state(array, member, "member", array.line_of_member(index), plans)
            for index, member in array.present
        ]
        spares = [
            await self._state(array, spare, "spare", array.line_of_spare(index), plans)
            for index, spare in enumerate(array.spares)
        ]
        plan = Plan(states, spares)
        if "prepared" in states or array.level == JBOD:  # it never started, so it never held anything
            return plan
        lone = [member for (_index, member), state in zip(array.present, states, strict=True) if state != "member"]
        if "member" in states and lone:
            problem = "is missing" if "missing" in states else "is empty"
            message = f"array {array.name}: {lone[0]} {problem} while other members already belong to an array"
            hint = "put the right file back, or mount without it; if nothing is stored there, remove the other members"
            raise Refused(message, hint=hint)
        if lone and MISSING in array.members:
            message = f"array {array.name} cannot be made with a slot that is {MISSING}"
            raise self._config_error(array.line_of_member(array.members.index(MISSING)), message, "name every member")
        return plan

    async def _state(self, array: ArraySpec, label: str, noun: Noun, line: int, plans: Mapping[str, Plan]) -> State:
        inner = self._spec.array(label) if noun == "member" else None
        if inner is not None and inner.name in plans and not plans[inner.name].exists:
            return "empty"  # it will be made, and a new array reads as zeros
        if inner is None and path_of(label, self._spec.folder) is None and array.level != JBOD:
            message = f"{noun} {label} of {array.name} keeps nothing, so no array can be made on it"
            raise self._config_error(line, message, "name a file or a block device")
        try:
            async with self._device(label, _LOOK_ONLY) as device:
                return "member" if array.level == JBOD else await self._examine(array, label, device)
        except NotFound as error:
            if inner is not None or isinstance(error, SuperblockError):
                raise
        except (ConfigError, CutShort) as error:
            raise self._config_error(line, error.message, error.hint) from error
        if array.member_size is None:
            message = f"{noun} {label} of {array.name} does not exist, and nothing says how large to make it"
            raise self._config_error(line, message, 'add a line such as member_size = "256MiB"')
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

    async def make(self, array: ArraySpec, plan: Plan) -> list[Step]:
        """Create what *plan* says is missing, then the array."""
        steps = []
        for (_index, member), state in zip(array.present, plan.members, strict=True):
            if state == "missing":
                steps.append(await self._make_file(array, "member", member))
        for spare, state in zip(array.spares, plan.spares, strict=True):
            if state == "missing":
                steps.append(await self._make_file(array, "spare", spare))
        if plan.exists:
            return [*steps, Step("exists", "array", array.name)]
        if array.level != JBOD:
            await self._make_array(array, redo="prepared" in plan.members)
        return [*steps, Step("created", "array", array.name)]

    async def _make_array(self, array: ArraySpec, *, redo: bool) -> None:
        options = OpenOptions(direct=array.direct)
        # Spares of several groups stay blank until one of them takes them.
        labels = [*array.members, *(() if self._spec.parts(array.name) else array.spares)]
        async with AsyncExitStack() as stack:
            devices = [await stack.enter_async_context(self._device(label, options)) for label in labels]
            for label, device in zip(labels, devices, strict=True):
                if await self._examine(array, label, device) == "member" and not redo:
                    raise Refused(f"array {array.name}: {label} belongs to an array", hint="name another device")
            await create_array(
                devices,
                spec=_md_spec(array, labels),
                environment=self._environment,
                freshly_made=not redo,
                replace=redo,
            )

    async def _make_file(self, array: ArraySpec, noun: Noun, label: str) -> Step:
        path = path_of(label, self._spec.folder)
        size = array.member_size
        assert path is not None, "the survey refuses members without a path"
        assert size is not None, "the survey refuses missing members without a size"
        worker = self._environment.threads.worker("initialize")
        try:
            await worker.run(self._environment.hostfs.make_folder, path.parent)
        finally:
            worker.close()
        await create_file(path, size, self._environment)
        return Step("created", noun, label, size)

    @asynccontextmanager
    async def _device(self, member: str, options: OpenOptions) -> AsyncIterator[StorageDevice]:
        """The device that *member* names, inner arrays assembled; closed at the end."""
        async with AsyncExitStack() as stack:
            yield await self._open(member, options, stack)

    async def _open(self, member: str, options: OpenOptions, stack: AsyncExitStack) -> StorageDevice:
        if member in self._running:
            return self._running[member]
        inner = self._spec.array(member)
        if inner is None:
            device = await open_backend(member, base=self._spec.folder, options=options, environment=self._environment)
            stack.push_async_callback(_close, device)
            return device
        sources = [Source(name, await self._open(name, options, stack)) for _index, name in inner.present]
        array = await assemble(
            inner.name, sources, environment=self._environment, events=self._events, read_only=options.read_only
        )
        stack.push_async_callback(_close, array)
        return array

    def _config_error(self, line: int, message: str, hint: str) -> ConfigError:
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


def _md_spec(array: ArraySpec, labels: Sequence[str]) -> MdSpec:
    """What the superblocks of the new *array* are to say; *labels* are its members and then its spares."""
    level = LEVELS[array.level]
    consistency = array.consistency or ("journal" if level.has_parity else "resync")
    bitmap = redundant(array.level) and consistency != "ppl" if array.bitmap is None else array.bitmap
    return MdSpec(
        level=level.md_level,
        name=array.name,
        layout=level.layouts[array.layout] if array.layout is not None else None,
        chunksize=(array.chunk or DEFAULT_CHUNK) // SECTOR if level.chunked else 0,
        bitmap=bitmap,
        consistency=consistency,
        spares=len(labels) - len(array.members),
        write_mostly=[labels.index(label) for label in array.write_mostly if label in labels],
    )
