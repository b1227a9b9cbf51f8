"""Creation: making an array out of devices.

Zeros everywhere are in sync at every level, which is why a new array is clean and its bitmap empty: its data areas read
as zeros before the first superblock says that there is an array.

A cut never leaves a half-made array that starts.  All members are first *prepared*: superblocks that list nobody, event
count 0.  When that is durable on all of them, the real ones follow with event count 1.  Until the last of those is in
place some member still calls itself a spare that was never used, and :func:`~orionfs.array.verdict.judge` refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import trio

from orionfs.array import placement
from orionfs.array.bitmap import PAGE, Bitmap, default_chunk, length_of
from orionfs.array.levels import BY_MD_LEVEL, Level
from orionfs.array.policies import Consistency
from orionfs.array.ppl_format import encode_header, signature_of
from orionfs.array.raid10_layout import Raid10Layout, split_layout
from orionfs.array.signatures import find_signature
from orionfs.array.superblock import (
    FEATURE_BITMAP,
    FEATURE_PPL,
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
from orionfs.units import GIB, KIB, SECTOR, format_size

#: Less than this behind the data offset is not worth a member.
_MIN_DATA = 8
#: Less than this before the data is not worth a journal.
_MIN_JOURNAL = 256 * KIB // SECTOR
_WRITE_MOSTLY = 0x1
#: What mdadm takes, and what the format can hold.
_MIN_BITMAP_CHUNK = 4 * KIB
_MAX_BITMAP_CHUNK = 2 * GIB


@dataclass(frozen=True, slots=True)
class MdSpec:
    """What the superblocks of a new array say.  Numbers of the format; ``chunksize`` in sectors (0: none).

    ``layout`` is one of those of the :class:`~orionfs.array.levels.Level`, None its default.  ``name`` is at most
    32 bytes of UTF-8.  With ``bitmap`` there is a write-intent bitmap, whose chunk is ``bitmap_chunk`` bytes (0: see
    :func:`~orionfs.array.bitmap.default_chunk`).  ``consistency`` matters for levels with parity: ``ppl`` makes room
    for a partial parity log, ``journal`` makes sure that there is room for a journal, which is made when the array
    first runs.  The last ``spares`` devices take no slot.  ``write_mostly`` are indexes of devices that are read only
    if there is no other way.
    """

    level: int
    name: str
    layout: int | None = None
    chunksize: int = 0
    bitmap: bool = False
    bitmap_chunk: int = 0
    consistency: Consistency = "resync"
    spares: int = 0
    write_mostly: Collection[int] = ()


async def create_array(
    devices: Sequence[StorageDevice],
    *,
    spec: MdSpec,
    environment: Environment,
    freshly_made: bool,
    replace: bool = False,
) -> list[Superblock]:
    """Make *devices*, in slot order and then the spares, members of a new and clean array; durable on return.

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
    logs = [_logs(superblock, spec) for superblock in superblocks]
    await _write(devices, [_prepared(superblock) for superblock in superblocks], logs)
    await _write(devices, superblocks)
    return superblocks


def plan_array(devices: Sequence[StorageDevice], *, spec: MdSpec, environment: Environment) -> list[Superblock]:
    """The superblocks that :func:`create_array` would write.  Nothing is read or written; raises ConfigError."""
    _check_spec(spec, len(devices))
    level = BY_MD_LEVEL[spec.level]
    count = len(devices) - spec.spares
    layout = level.layouts[level.default_layout] if spec.layout is None else spec.layout
    sizes = [device.geometry.size // SECTOR for device in devices]
    block = _check_devices(devices, spec)
    offset = placement.data_offset(sizes[0], spec.chunksize, ppl=_has_ppl(spec))
    component = 0
    if level.tolerates(count):
        far = split_layout(layout).far if spec.level == 10 else 1
        component = placement.component_size(min(sizes) - offset, spec.chunksize, block, far)
    first = Superblock(
        set_uuid=random_uuid(environment.randomness),
        device_uuid=b"",
        set_name=spec.name,
        level=spec.level,
        layout=layout,
        size=component,
        chunksize=spec.chunksize,
        raid_disks=count,
        dev_number=0,
        dev_roles=roles_for(count, spec.spares),
        data_offset=offset,
        data_size=0,
        feature_map=FEATURE_RAID0_LAYOUT if spec.level == 0 else 0,
        ctime=pack_time(environment.clock.wall_ns()),
        events=1,
        bblog_size=placement.BBLOG_SIZE,
    )
    first.utime = first.ctime
    _place_logs(first, spec)
    superblocks = []
    for number, size in enumerate(sizes):
        superblock = first.copy()
        superblock.dev_number = number
        superblock.device_uuid = random_uuid(environment.randomness)
        superblock.data_size = size - offset
        superblock.devflags = _WRITE_MOSTLY if number in spec.write_mostly else 0
        superblocks.append(superblock)
    return superblocks


# --- logs ------------------------------------------------------------------------------------------------------------


def _has_ppl(spec: MdSpec) -> bool:
    return spec.consistency == "ppl" and BY_MD_LEVEL[spec.level].has_parity


def _place_logs(superblock: Superblock, spec: MdSpec) -> None:
    """Enter the places of bitmap, PPL and bad-block log into *superblock*.  Raises ConfigError if there is no room."""
    length = 0
    if _has_ppl(spec):
        superblock.feature_map |= FEATURE_PPL
        superblock.bitmap_offset = placement.LOG_OFFSET | placement.PPL_SIZE << 16
    elif spec.bitmap:
        superblock.feature_map |= FEATURE_BITMAP
        superblock.bitmap_offset = placement.LOG_OFFSET
        length = _new_bitmap(superblock, spec).length()
    superblock.bblog_offset = placement.bblog_offset(superblock.size, bitmap_length=length, ppl=_has_ppl(spec))
    if spec.consistency == "journal" and BY_MD_LEVEL[spec.level].has_parity:
        _start, gap = placement.free_gap(superblock, length)
        if gap < _MIN_JOURNAL:
            raise ConfigError(
                f"array {spec.name}: there are only {format_size(gap * SECTOR)} left before the data of a member, too"
                f" little for a journal, which takes {format_size(_MIN_JOURNAL * SECTOR)}",
                hint='choose larger members, or consistency = "ppl" or "resync"',
            )


def _new_bitmap(superblock: Superblock, spec: MdSpec) -> Bitmap:
    """The bitmap of a new array, all of it in sync.  Raises ConfigError if it is too fine for its place."""
    sync_size = superblock.size
    if spec.level == 10:
        chunk = superblock.chunksize * SECTOR
        layout = Raid10Layout(chunk, superblock.raid_disks, superblock.size * SECTOR, superblock.layout)
        sync_size = layout.size // SECTOR
    # mdadm keeps no room for a bitmap over less than 64 KiB; a page is there nevertheless.
    space = max(placement.bitmap_space(superblock.size) * SECTOR, PAGE)
    chunk = spec.bitmap_chunk or default_chunk(sync_size, space, superblock.chunksize * SECTOR)
    if length_of(sync_size, chunk) > space:
        least = default_chunk(sync_size, space)
        raise ConfigError(
            f"array {spec.name}: a bitmap with chunks of {format_size(chunk)} takes"
            f" {format_size(length_of(sync_size, chunk))}, and there is room for {format_size(space)}",
            hint=f"leave the chunk out, or make it at least {format_size(least)}",
        )
    return Bitmap(superblock.set_uuid, superblock.events, superblock.events, sync_size, chunk)


def _logs(superblock: Superblock, spec: MdSpec) -> list[tuple[int, bytes]]:
    """What a new member holds beside its superblock: where, in bytes, and what."""
    # All ones: no entry.  The log is not read before its feature bit is set, but then it must be right.
    found = [(OFFSET + superblock.bblog_offset * SECTOR, b"\xff" * (superblock.bblog_size * SECTOR))]
    if superblock.feature_map & FEATURE_BITMAP:
        found.append((placement.bitmap_place(superblock)[0], bytes(_new_bitmap(superblock, spec).encode())))
    if superblock.feature_map & FEATURE_PPL:
        place, size = placement.ppl_place(superblock)
        header = encode_header(signature_of(superblock.set_uuid), 0, ())
        found.append((place, header.ljust(size, b"\0")))
    return found


# --- refusals --------------------------------------------------------------------------------------------------------


def _check_devices(devices: Sequence[StorageDevice], spec: MdSpec) -> int:
    """The logical block of an array on *devices*.  Raises ConfigError if they are too small or their blocks too big."""
    block = max(device.geometry.logical_block for device in devices)
    if block > OFFSET or spec.chunksize * SECTOR % block:
        raise ConfigError(
            f"array {spec.name}: a member is addressed in blocks of {format_size(block)}, which do not fit MD metadata"
            f" or a chunk of {format_size(spec.chunksize * SECTOR)}",
            hint="choose a chunk that is a multiple of the block, or other members",
        )
    offset = placement.data_offset(devices[0].geometry.size // SECTOR, spec.chunksize, ppl=_has_ppl(spec))
    level = BY_MD_LEVEL[spec.level]
    far = split_layout(spec.layout).far if spec.level == 10 and spec.layout is not None else 1
    least = offset + max(spec.chunksize * far, _MIN_DATA)
    for device in devices:
        size = device.geometry.size // SECTOR
        if size < least:
            raise ConfigError(
                f"array {spec.name}: {device.name} has {format_size(size * SECTOR)}, and with the data at"
                f" {format_size(offset * SECTOR)} a member needs at least {format_size(least * SECTOR)}",
                hint="make it larger, or choose a smaller chunk" if level.chunked else "make it larger",
            )
    return block


def _check_spec(spec: MdSpec, count: int) -> None:
    """Raise ConfigError unless an array as in *spec* can have *count* members, spares included."""
    place = f"array {spec.name}"
    level = BY_MD_LEVEL.get(spec.level)
    if level is None:
        noun = LEVEL_NAMES.get(spec.level, spec.level)
        known = ", ".join(level.name for level in BY_MD_LEVEL.values())
        raise ConfigError(f"{place}: this release cannot make level {noun}", hint=f"choose one of {known}")
    most = level.maximum_members or MAX_ROLES
    if not level.minimum_members <= count - spec.spares <= most or count > MAX_ROLES:
        found = f"{count - spec.spares} and {spec.spares} spares" if spec.spares else count
        raise ConfigError(
            f"{place}: {level.name} takes {level.minimum_members} to {most} members, not {found}",
            hint="correct the list of members",
        )
    try:
        encode_name(spec.name)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}", hint="choose a shorter name") from None
    _check_layout(spec, level, count - spec.spares)
    if not level.chunked and spec.chunksize:
        raise ConfigError(f"{place}: {level.name} has no chunk", hint="leave it out")
    if level.chunked and (spec.chunksize < MIN_CHUNK or spec.chunksize & spec.chunksize - 1):
        raise ConfigError(
            f"{place}: a chunk of {format_size(spec.chunksize * SECTOR)} is not a power of two of at least 4 KiB",
            hint="64 KiB is a good choice",
        )
    _check_extras(spec, level, count)


def _check_layout(spec: MdSpec, level: Level, members: int) -> None:
    number = level.layouts[level.default_layout] if spec.layout is None else spec.layout
    if number not in level.layouts.values():
        raise ConfigError(
            f"array {spec.name}: {level.name} has no layout {number}",
            hint=f"{level.layouts[level.default_layout]} is the default",
        )
    if members < level.fewest(number):
        raise ConfigError(
            f"array {spec.name}: {members} members cannot hold the {level.fewest(number)} copies of layout"
            f" {level.layout_name(number)}",
            hint="list more members, or choose a layout with fewer copies",
        )


def _check_extras(spec: MdSpec, level: Level, count: int) -> None:
    """Raise ConfigError if the bitmap, the PPL, spares or flags of *spec* are none that *level* can have."""
    place = f"array {spec.name}"
    redundant = level.tolerates(count - spec.spares) > 0
    if not redundant and (spec.bitmap or spec.spares):
        noun = "a write-intent bitmap" if spec.bitmap else "a spare"
        raise ConfigError(f"{place}: {level.name} has no redundancy, so {noun} would be of no use", hint="leave it out")
    if spec.consistency == "ppl":
        if spec.level != 5:
            raise ConfigError(
                f"{place}: only raid5 can have a partial parity log, not {level.name}",
                hint='choose consistency = "journal" for raid4 and raid6',
            )
        if spec.bitmap:
            raise ConfigError(
                f"{place}: with a partial parity log there can be no write-intent bitmap: they share one place",
                hint='choose bitmap = false, or consistency = "journal"',
            )
    chunk = spec.bitmap_chunk
    if chunk and (chunk < _MIN_BITMAP_CHUNK or chunk & chunk - 1 or chunk > _MAX_BITMAP_CHUNK):
        raise ConfigError(
            f"{place}: a bitmap chunk of {format_size(chunk)} is not a power of two from 4 KiB to 2 GiB",
            hint="leave it out",
        )
    if spec.write_mostly and spec.level != 1:
        raise ConfigError(f"{place}: only members of raid1 can be write-mostly", hint="leave it out")
    if any(not 0 <= number < count for number in spec.write_mostly):
        raise ConfigError(f"{place}: a member that is not there cannot be write-mostly", hint="correct the list")


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
    devices: Sequence[StorageDevice],
    superblocks: Sequence[Superblock],
    logs: Sequence[list[tuple[int, bytes]]] | None = None,
) -> None:
    """Store one superblock, and its *logs*, on each device, durably on all."""

    async def store(index: int) -> None:
        device, superblock = devices[index], superblocks[index]
        for place, content in logs[index] if logs else ():
            await device.write(place, [content])
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
