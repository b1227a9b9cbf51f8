"""Enlisting: whether a device may become a member of a running array, and what its superblock will say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orionfs.array.member import Member
from orionfs.array.roster import NO_SLOT
from orionfs.array.signatures import find_signature
from orionfs.array.superblock import ROLE_SPARE, Superblock, SuperblockError
from orionfs.array.superblock_io import read_superblock
from orionfs.device import StorageDevice
from orionfs.errors import Refused
from orionfs.randomness import random_uuid
from orionfs.units import SECTOR, format_size

if TYPE_CHECKING:
    from orionfs.array.administration import Administration


async def own_superblock(array: Administration, device: StorageDevice) -> Superblock | None:
    """The superblock of *device* if it was a member of *array*."""
    try:
        superblock = await read_superblock(device)
    except SuperblockError:
        return None
    same = superblock.set_uuid == array.freshest.set_uuid and superblock.level == array.freshest.level
    return superblock if same and superblock.size == array.freshest.size else None


async def enlist_device(array: Administration, label: str, device: StorageDevice, *, force: bool) -> Member:
    """A member in no slot on *device*.  Its superblock is not written yet, its list of bad blocks is.

    Raises :class:`Refused` if it is too small, addressed in larger blocks than the array, or in use already.
    """
    freshest = array.freshest
    offset = freshest.data_offset
    needed = offset + freshest.size
    size = device.geometry.size // SECTOR
    if size < needed:
        raise Refused(
            f"{label} has {format_size(size * SECTOR)}, and a member of {array.name} needs"
            f" {format_size(needed * SECTOR)}",
            hint="add a larger one",
        )
    block = max(member.present.geometry.logical_block for member in array.roster.slots if member.device is not None)
    if device.geometry.logical_block > block:
        raise Refused(
            f"{label} is addressed in blocks of {device.geometry.logical_block} bytes, and {array.name} in {block}",
            hint="add one with the blocks of the others",
        )
    noun = await find_signature(device)
    if noun and not force:
        raise Refused(
            f"{label} already holds {noun}, which this would destroy", hint="insist with --force, or choose another one"
        )
    superblock = freshest.copy()
    superblock.device_uuid = random_uuid(array.randomness)
    superblock.data_size = size - offset
    superblock.devflags = 0
    superblock.cnt_corrected_read = 0
    superblock.dev_roles = [ROLE_SPARE] * freshest.max_dev
    array.superblocks.enlist(superblock)
    member = Member(NO_SLOT, label, device, superblock, "spare")
    member.bad = await array.bad_blocks_of(member, fresh=True)
    if member.bad is not None:
        await member.bad.store(device)  # whatever was there is no list of bad blocks
    return member
