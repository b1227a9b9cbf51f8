"""Support: which arrays this release can open.  Pure.

During a *reshape* one array has two geometries; behind a write *journal* the newest data may not be on the members; a
*cluster* has other writers.  Not even reading is right, so these are refused (:data:`NEVER`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orionfs.array import superblock as md
from orionfs.array.levels import BY_MD_LEVEL, Level
from orionfs.array.raid10_layout import split_layout
from orionfs.array.superblock import Superblock
from orionfs.errors import ConfigError, IntegrityError, Refused, Unsupported
from orionfs.units import SECTOR, format_size

#: Features with which this release opens no array.
NEVER = (
    md.FEATURE_RESHAPE_ACTIVE
    | md.FEATURE_RESHAPE_BACKWARDS
    | md.FEATURE_NEW_OFFSET
    | md.FEATURE_CLUSTERED
    | md.FEATURE_JOURNAL
)
#: A page of the kernel, which a chunk of a parity array has to hold.
MIN_CHUNK = 4096 // SECTOR


class Labelled(NamedTuple):
    """A superblock and what the configuration calls its member."""

    label: str
    superblock: Superblock


@dataclass(frozen=True, slots=True)
class Expectation:
    """What the configuration says of an array; None where it says nothing.  Units and numbers of the superblock."""

    level: int | None = None
    chunksize: int | None = None
    layout: int | None = None


def tolerated(superblock: Superblock) -> int:
    """How many members an array of that level can do without; 0 for a level that this release does not have."""
    level = BY_MD_LEVEL.get(superblock.level)
    return level.tolerates(superblock.raid_disks) if level else 0


def check_features(name: str, members: Sequence[Labelled]) -> None:
    """Raise Refused if a feature of one of *members* forbids opening the array *name*."""
    for label, superblock in members:
        forbidden = superblock.feature_map & NEVER
        if forbidden:
            bit = forbidden & -forbidden
            raise Refused(
                f"array {name}: {label} has the MD feature {md.FEATURE_NAMES[bit]} ({bit:#x}), which this release of"
                " OrionFS cannot open",
                hint="assemble it with mdadm",
            )
        ppl = superblock.feature_map & (md.FEATURE_PPL | md.FEATURE_MULTIPLE_PPLS)
        if ppl and (superblock.level != 5 or superblock.feature_map & md.FEATURE_BITMAP):
            raise Refused(
                f"array {name}: {label} claims a partial parity log, which only RAID 5 without a bitmap has",
                hint="leave it out of the list of members",
            )


def check_expectation(name: str, superblock: Superblock, expect: Expectation) -> None:
    """Raise ConfigError if the configuration and the media disagree."""
    pairs = (
        ("level", expect.level, superblock.level, _level_text),
        ("chunk", expect.chunksize, superblock.chunksize, _chunk_text),
        ("layout", expect.layout, superblock.layout, lambda number: layout_text(superblock.level, number)),
    )
    for noun, expected, actual, text in pairs:
        if expected is not None and expected != actual:
            raise ConfigError(
                f"array {name}: the configuration says {noun} {text(expected)} and the members say {text(actual)};"
                " nothing was touched",
                hint="correct the configuration, or name the right members",
            )


def check_geometry(name: str, members: Sequence[Labelled]) -> None:
    """Raise unless *members* (not empty, of one mind) describe a geometry that this release has.

    Unsupported: a level, layout or chunk that it does not have.  Refused: RAID 0 whose layout nobody recorded.
    IntegrityError: numbers that no array can have.
    """
    first = members[0].superblock
    level, chunk = BY_MD_LEVEL.get(first.level), first.chunksize
    if level is None:
        raise Unsupported(
            f"array {name} is {_level_text(first.level)}, which this release of OrionFS does not have",
            hint="assemble it with mdadm",
        )
    if level.chunked and not is_chunk(level, chunk):
        raise Unsupported(
            f"array {name} has a chunk of {_chunk_text(chunk)}, and this release of OrionFS needs a power of two",
            hint="assemble it with mdadm",
        )
    # RAID 0 has a rule of its own, below.
    if first.level != 0 and len(level.layouts) > 1 and first.layout not in level.layouts.values():
        raise Unsupported(
            f"array {name} has layout {first.layout}, which this release of OrionFS does not have for {level.name}",
            hint="assemble it with mdadm",
        )
    # A RAID 1, RAID 0 or linear array of one member is odd, but works.
    if (level.has_parity or first.level == 10) and first.raid_disks < level.fewest(first.layout):
        raise IntegrityError(
            f"array {name}: its superblocks describe a {level.name} of {first.raid_disks} members",
            hint=f"create it again, with at least {level.fewest(first.layout)}",
        )
    if level.maximum_members is not None and first.raid_disks > level.maximum_members:
        raise Unsupported(
            f"array {name} is a {level.name} of {first.raid_disks} members, more than the {level.maximum_members} that"
            " this release of OrionFS can tell apart in its second parity",
            hint="assemble it with mdadm",
        )
    for label, superblock in members:
        used = superblock.size if tolerated(superblock) else superblock.data_size
        chunks = split_layout(first.layout).far if first.level == 10 else 1
        if used < max(chunk, 1) * chunks:
            least = "one chunk" if chunks == 1 else f"the {chunks} chunks of its layout"
            raise IntegrityError(
                f"array {name}: {label} has only {format_size(used * SECTOR)} for data, less than {least}",
                hint="check that it is the right file",
            )
    if first.level == 0:
        _check_raid0_layout(name, [member.superblock for member in members])


def is_chunk(level: Level, sectors: int) -> bool:
    """Whether a chunked array of *level* can have a chunk of *sectors*: a power of two, at least a page with parity."""
    least = MIN_CHUNK if level.tolerates(level.minimum_members) else 1
    return sectors >= least and not sectors & sectors - 1


def _check_raid0_layout(name: str, superblocks: Sequence[Superblock]) -> None:
    """RAID 0 over different sizes is in one of two layouts, and a wrong guess scrambles the data."""
    known = BY_MD_LEVEL[0].layouts.values()
    if all(item.feature_map & md.FEATURE_RAID0_LAYOUT and item.layout in known for item in superblocks):
        return
    rows = [item.data_size // item.chunksize for item in superblocks]
    if len(rows) - rows.count(min(rows)) > 1:
        raise Refused(
            f"array {name}: its members differ in size and its superblocks do not say in which RAID 0 layout it was"
            " written",
            hint="record it with mdadm --assemble --update=layout-original (or layout-alternate)",
        )


def layout_text(level: int, layout: int) -> str:
    """The name of a layout, or its number if it has none."""
    known = BY_MD_LEVEL.get(level)
    return (known.layout_name(layout) if known else "") or str(layout)


def _level_text(level: int) -> str:
    return md.LEVEL_NAMES.get(level, str(level))


def _chunk_text(sectors: int) -> str:
    return format_size(sectors * SECTOR)
