"""Tables that stand for several arrays: RAID 50 and 60, and jbod.

``vault`` of level raid50 with two groups is what mdadm users build by hand: the RAID 5 arrays ``vault.0`` and
``vault.1``, and the RAID 0 ``vault`` over them.  ``disks`` of level jbod is one file for each member: ``disks.0``,
``disks.1`` and so on.
"""

from __future__ import annotations

from dataclasses import replace

from orionfs.array.levels import LEVELS
from orionfs.config.levels import NESTED, base_of
from orionfs.config.spec import DEFAULT_CHUNK, JBOD, MAX_CHUNK, ArraySpec

DEFAULT_GROUPS = 2


def part_name(name: str, index: int) -> str:
    """What part *index* of the table *name* is called."""
    return f"{name}.{index}"


def parts_of(array: ArraySpec) -> int:
    """For how many arrays besides itself *array*, as it is written, stands."""
    if array.level in NESTED:
        return array.groups or DEFAULT_GROUPS
    return len(array.members) if array.level == JBOD else 0


def expand(array: ArraySpec) -> list[ArraySpec]:
    """The arrays that *array*, as it is written, stands for; itself, for most."""
    if array.level in NESTED:
        return _nested(array)
    if array.level == JBOD:
        return [_part(array, index, JBOD, slice(index, index + 1)) for index in range(len(array.members))]
    base = base_of(array.level)
    if base is not None and base.name != array.level:  # raid1e
        return [replace(array, level=base.name, declared_level=array.level)]
    return [array]


def _nested(array: ArraySpec) -> list[ArraySpec]:
    """The RAID 0 first, then its groups.  Spares stay with the RAID 0 and serve every group."""
    groups = parts_of(array)
    each = len(array.members) // groups
    inner_level = NESTED[array.level]
    parts = [
        _part(array, index, inner_level, slice(index * each, (index + 1) * each), layout=array.layout)
        for index in range(groups)
    ]
    outer = replace(
        array,
        level="raid0",
        declared_level=array.level,
        groups=groups,
        members=tuple(part.name for part in parts),
        member_lines=tuple(part.line_of_member(0) for part in parts),
        chunk=_outer_chunk(array.chunk or DEFAULT_CHUNK, inner_level, each),
        layout=None,
        write_mostly=(),
        consistency=None,
        bitmap=None,
        policies={},
    )
    return [outer, *parts]


def _outer_chunk(chunk: int, level: str, members: int) -> int:
    """A stripe of the inner arrays, so that a write of one is complete there; rounded up to a power of two."""
    data = members - LEVELS[level].tolerates(members)
    return min(1 << (chunk * max(data, 1) - 1).bit_length(), MAX_CHUNK)


def _part(array: ArraySpec, index: int, level: str, members: slice, layout: str | None = None) -> ArraySpec:
    named = array.members[members]
    return replace(
        array,
        name=part_name(array.name, index),
        level=level,
        part_of=array.name,
        members=named,
        member_lines=array.member_lines[members],
        layout=layout,
        write_mostly=tuple(name for name in array.write_mostly if name in named),
        spares=(),
        spare_lines=(),
        groups=None,
    )
