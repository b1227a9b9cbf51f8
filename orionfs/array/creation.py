"""Creation: making an array out of devices.

Zeros everywhere are in sync at every level, which is why a new array is clean: its data areas read as zeros before the
first superblock says that there is an array.

A cut never leaves a half-made array that starts.  All members are first *prepared*: superblocks that list nobody, event
count 0.  When that is durable on all of them, the real ones follow with event count 1.  Until the last of those is in
place some member still calls itself a spare that was never used, and :func:`~orionfs.array.verdict.judge` refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from orionfs.array import placement
from orionfs.array.levels import BY_MD_LEVEL
from orionfs.array.signatures import find_signature
from orionfs.array.superblock import (
    FEATURE_RAID0_LAYOUT,
    LEVEL_NAMES,
    MAX_ROLES,
    OFFSET,
    ROLE_SPARE,
    Superblock,
    encode_name,
    pack_time,
    roles_for,
)
from orionfs.array.superblock_io import write_superblock
from orionfs.array.support import MIN_CHUNK
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, OrionError, Refused
from orionfs.randomness import random_uuid
from orionfs.units import SECTOR, format_size

#: Less than this behind the data offset is not worth a member.
_MIN_DATA = 8


@dataclass(frozen=True, slots=True)
class MdSpec:
    """What the superblocks of a new array say.  Numbers of the format; ``chunksize`` in sectors (0: none).

    ``layout`` is one of those of the :class:`~orionfs.array.levels.Level`, None its default.  ``name`` is at most
    32 bytes of UTF-8.
    """

    level: int
    name: str
    layout: int | None = None
    chunksize: int = 0


async def create_array(
    devices: Sequence[StorageDevice],
    *,
    spec: MdSpec,
    environment: Environment,
    freshly_made: bool,
    replace: bool = False,
) -> list[Superblock]:
    """Make *devices*, in slot order, the members of a new and clean array; durable when this returns.

    *freshly_made* promises that every byte of every device reads as zero already.  Otherwise all of them are zeroed
    first, which takes as long as the devices take for it.  The array reads as zeros.

    Raises ConfigError for a *spec* or devices that do not make an array, Refused if a device holds something
    recognizable and *replace* was not given: nothing was written then.  After any other error or a cancellation the
    devices hold no array that starts.
    """
    superblocks = plan_array(devices, spec=spec, environment=environment)
    if not replace:
        for device in devices:
            await _refuse_used(device, spec)
    if not freshly_made:
        await _zero(devices, superblocks[0].data_offset * SECTOR)
    await _write(devices, [_prepared(superblock) for superblock in superblocks], with_bblog=True)
    await _write(devices, superblocks)
    return superblocks


def plan_array(devices: Sequence[StorageDevice], *, spec: MdSpec, environment: Environment) -> list[Superblock]:
    """The superblocks that :func:`create_array` would write.  Nothing is read or written; raises ConfigError."""
    _check_spec(spec, len(devices))
    block = max(device.geometry.logical_block for device in devices)
    if block > OFFSET or spec.chunksize * SECTOR % block:
        raise ConfigError(
            f"array {spec.name}: a member is addressed in blocks of {format_size(block)}, which do not fit MD metadata"
            f" or a chunk of {format_size(spec.chunksize * SECTOR)}",
            hint="choose a chunk that is a multiple of the block, or other members",
        )
    sizes = [device.geometry.size // SECTOR for device in devices]
    offset = placement.data_offset(sizes[0], spec.chunksize)
    least = offset + max(spec.chunksize, _MIN_DATA)
    for device, size in zip(devices, sizes, strict=True):
        if size < least:
            raise ConfigError(
                f"array {spec.name}: {device.name} has {format_size(size * SECTOR)}, and with the data at"
                f" {format_size(offset * SECTOR)} a member needs at least {format_size(least * SECTOR)}",
                hint="make it larger, or choose a smaller chunk",
            )
    level = BY_MD_LEVEL[spec.level]
    component = 0
    if level.tolerates(len(devices)):
        component = placement.component_size(min(sizes) - offset, spec.chunksize, block)
    first = Superblock(
        set_uuid=random_uuid(environment.randomness),
        device_uuid=b"",
        set_name=spec.name,
        level=spec.level,
        layout=level.layouts[level.default_layout] if spec.layout is None else spec.layout,
        size=component,
        chunksize=spec.chunksize,
        raid_disks=len(devices),
        dev_number=0,
        dev_roles=roles_for(len(devices)),
        data_offset=offset,
        data_size=0,
        feature_map=FEATURE_RAID0_LAYOUT if spec.level == 0 else 0,
        ctime=pack_time(environment.clock.wall_ns()),
        events=1,
        bblog_size=placement.BBLOG_SIZE,
        bblog_offset=placement.bblog_offset(component),
    )
    first.utime = first.ctime
    superblocks = []
    for slot, size in enumerate(sizes):
        superblock = first.copy()
        superblock.dev_number = slot
        superblock.device_uuid = random_uuid(environment.randomness)
        superblock.data_size = size - offset
        superblocks.append(superblock)
    return superblocks


def _check_spec(spec: MdSpec, count: int) -> None:
    """Raise ConfigError unless an array as in *spec* can have *count* members."""
    place = f"array {spec.name}"
    level = BY_MD_LEVEL.get(spec.level)
    if level is None:
        noun = LEVEL_NAMES.get(spec.level, spec.level)
        known = ", ".join(level.name for level in BY_MD_LEVEL.values())
        raise ConfigError(f"{place}: this release cannot make level {noun}", hint=f"choose one of {known}")
    most = level.maximum_members or MAX_ROLES
    if not level.minimum_members <= count <= most:
        raise ConfigError(
            f"{place}: {level.name} takes {level.minimum_members} to {most} members, not {count}",
            hint="correct the list of members",
        )
    try:
        encode_name(spec.name)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}", hint="choose a shorter name") from None
    if spec.layout is not None and spec.layout not in level.layouts.values():
        raise ConfigError(
            f"{place}: {level.name} has no layout {spec.layout}",
            hint=f"{level.layouts[level.default_layout]} is the default",
        )
    if not level.chunked and spec.chunksize:
        raise ConfigError(f"{place}: {level.name} has no chunk", hint="leave it out")
    if level.chunked and (spec.chunksize < MIN_CHUNK or spec.chunksize & spec.chunksize - 1):
        raise ConfigError(
            f"{place}: a chunk of {format_size(spec.chunksize * SECTOR)} is not a power of two of at least 4 KiB",
            hint="64 KiB is a good choice",
        )


async def _refuse_used(device: StorageDevice, spec: MdSpec) -> None:
    noun = await find_signature(device)
    if noun:
        raise Refused(
            f"array {spec.name}: {device.name} already holds {noun}, which this would destroy",
            hint="choose another member, or clear it first (wipefs -a)",
        )


async def _zero(devices: Sequence[StorageDevice], data_offset: int) -> None:
    """Make every byte read as zero: what made the devices something else first, durably on all, then the data."""

    async def forget(index: int) -> None:
        await devices[index].write_zeroes(0, data_offset)
        await devices[index].flush()

    async def clear(index: int) -> None:
        device = devices[index]
        await device.write_zeroes(data_offset, device.geometry.size - data_offset)
        await device.flush()

    await _for_each(len(devices), forget)
    await _for_each(len(devices), clear)


def _prepared(superblock: Superblock) -> Superblock:
    """The same member before there is an array: nobody has a slot."""
    prepared = superblock.copy()
    prepared.dev_roles = [ROLE_SPARE] * superblock.max_dev
    prepared.events = 0
    return prepared


async def _write(
    devices: Sequence[StorageDevice], superblocks: Sequence[Superblock], *, with_bblog: bool = False
) -> None:
    """Store one superblock on each device, durably on all."""

    async def store(index: int) -> None:
        device, superblock = devices[index], superblocks[index]
        if with_bblog:
            # All ones: no entry.  The log is not read before its feature bit is set, but then it must be right.
            empty = b"\xff" * (superblock.bblog_size * SECTOR)
            await device.write(OFFSET + superblock.bblog_offset * SECTOR, [empty])
        await write_superblock(device, superblock)
        await device.flush()

    await _for_each(len(devices), store)


async def _for_each(count: int, step: Callable[[int], Awaitable[None]]) -> None:
    """Run *step* for 0 to *count* - 1 at once; the first error ends the others and is raised."""
    errors: list[OrionError] = []

    async def guarded(index: int) -> None:
        try:
            await step(index)
        except OrionError as error:
            errors.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for index in range(count):
            nursery.start_soon(guarded, index)
    if errors:
        raise errors[0]
