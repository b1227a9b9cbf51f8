"""How the declared devices hang together: the order of opening, cycles, and members that are used twice.

Pure but for resolving symbolic links.  Two names of one file that only the file system can tell apart (hard links,
bind mounts) are found when members are opened, by device and inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from orionfs.backends import path_of
from orionfs.config.spec import ArraySpec, Spec
from orionfs.errors import ConfigError


def inner_arrays(spec: Spec, array: ArraySpec) -> list[ArraySpec]:
    """The declared arrays that are members of *array*, in the order of its members."""
    return [inner for member in array.members if (inner := spec.array(member)) is not None]


def opening_order(spec: Spec) -> list[ArraySpec]:
    """The arrays such that each comes after those that it is made of, otherwise as written.

    *spec* must be free of cycles, as every loaded one is.
    """
    order: dict[str, ArraySpec] = {}

    def visit(array: ArraySpec) -> None:
        if array.name in order:
            return
        for inner in inner_arrays(spec, array):
            visit(inner)
        order[array.name] = array

    for array in spec.arrays:
        visit(array)
    return list(order.values())


def claimed(spec: Spec) -> dict[str, str]:
    """The arrays that are members of another, by name, with the name of that other: the tree shows them read-only."""
    return {inner.name: array.name for array in spec.arrays for inner in inner_arrays(spec, array)}


def check_graph(spec: Spec) -> list[ConfigError]:
    """What is wrong with the way the devices of *spec* hang together: every cycle, every member used twice."""
    return [*_cycles(spec), *_used_twice(spec)]


def _cycles(spec: Spec) -> Iterator[ConfigError]:
    done: set[str] = set()
    for start in spec.arrays:
        path: list[ArraySpec] = []
        cycle = _find_cycle(spec, start, path, done)
        if cycle:
            names = " -> ".join(array.name for array in cycle)
            message = f"array {cycle[0].name} would be made of itself ({names})"
            line = cycle[0].line_of_member(cycle[0].members.index(cycle[1].name))
            yield ConfigError(message, hint="take one of these members out", path=str(spec.path), line=line)


def _find_cycle(spec: Spec, array: ArraySpec, path: list[ArraySpec], done: set[str]) -> list[ArraySpec]:
    """The first cycle that a walk from *array* meets, its first array repeated at the end; empty if there is none."""
    if array in path:
        return [*path[path.index(array) :], array]
    if array.name in done:
        return []
    path.append(array)
    for inner in inner_arrays(spec, array):
        cycle = _find_cycle(spec, inner, path, done)
        if cycle:
            done.update(member.name for member in path)
            return cycle
    path.pop()
    done.add(array.name)
    return []


def _used_twice(spec: Spec) -> Iterator[ConfigError]:
    first: dict[str, tuple[str, str, int]] = {}
    for array in spec.arrays:
        for position, member in enumerate(array.members):
            key = _identity(spec, member)
            line = array.line_of_member(position)
            if key is None:
                continue
            if key not in first:
                first[key] = (member, array.name, line)
                continue
            other, owner, other_line = first[key]
            same = "" if other == member else f" (as {other})"
            message = f"member {member} of {array.name} is already a member of {owner}{same}, on line {other_line}"
            yield ConfigError(message, hint="use each device once", path=str(spec.path), line=line)


def _identity(spec: Spec, member: str) -> str | None:
    """What tells *member* from others; None for one that is a new device each time it is named."""
    if spec.array(member) is not None:
        return f"array {member}"
    path = path_of(member, spec.folder)
    return None if path is None else f"path {os.path.realpath(path)}"
