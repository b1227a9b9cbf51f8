"""How the declared devices hang together: the order of opening, cycles, and members that are used twice.

Pure but for resolving symbolic links.  Two names of one file that only the file system can tell apart (hard links,
bind mounts) are found when members are opened, by device and inode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from orionfs.backends import path_of
from orionfs.config.levels import redundant
from orionfs.config.spec import ArraySpec, SpareSpec, Spec
from orionfs.errors import ConfigError


class Use(NamedTuple):
    """One place where the configuration names a device: as what, of which array (empty: of all), on which line."""

    label: str
    noun: str
    owner: str
    line: int

    @property
    def text(self) -> str:
        """``member d0 of vault``, ``spare s0``."""
        return f"{self.noun} {self.label} of {self.owner}" if self.owner else f"{self.noun} {self.label}"

    @property
    def role(self) -> str:
        """``a member of vault``, ``a shared spare``."""
        return f"a {self.noun} of {self.owner}" if self.owner else "a shared spare"


def uses(spec: Spec) -> Iterator[Use]:
    """Every device that *spec* names, arrays among the members included, once for each time that it is named."""
    for array in spec.arrays:
        for index, member in array.present:
            yield Use(member, "member", array.name, array.line_of_member(index))
    for array in spec.arrays:
        for index, spare in enumerate(array.spares):
            yield Use(spare, "spare", array.name, array.line_of_spare(index))
    for index, spare in enumerate(spec.mount.spares):
        line = spec.mount.spare_lines[index] if index < len(spec.mount.spare_lines) else 0
        yield Use(spare, "spare", "", line)


def spares_of(spec: Spec) -> list[SpareSpec]:
    """The spares of *spec* with the arrays that each may serve: those of one, of its groups, or of all."""
    found = []
    for array in spec.arrays:
        inner = tuple(part.name for part in spec.parts(array.name))
        for index, spare in enumerate(array.spares):
            found.append(SpareSpec(spare, inner or (array.name,), array.line_of_spare(index)))
    every = tuple(array.name for array in spec.arrays if redundant(array.level))
    for use in uses(spec):
        if use.noun == "spare" and not use.owner:
            found.append(SpareSpec(use.label, every, use.line))
    return found


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
    """What is wrong with the way the devices of *spec* hang together: every cycle, every device used twice."""
    return [*_cycles(spec), *_used_twice(spec), *_array_spares(spec)]


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
    first: dict[str, Use] = {}
    for use in uses(spec):
        key = _identity(spec, use.label)
        other = first.setdefault(key, use) if key is not None else use
        if other is use:
            continue
        same = "" if other.label == use.label else f" (as {other.label})"
        message = f"{use.text} is already {other.role}{same}, on line {other.line}"
        yield ConfigError(message, hint="use each device once", path=str(spec.path), line=use.line)


def _array_spares(spec: Spec) -> Iterator[ConfigError]:
    for use in uses(spec):
        if use.noun == "spare" and spec.array(use.label) is not None:
            message = f"{use.text} is an array, and spares are files or block devices"
            yield ConfigError(message, hint=f"a file of that name is ./{use.label}", path=str(spec.path), line=use.line)


def _identity(spec: Spec, member: str) -> str | None:
    """What tells *member* from others; None for one that is a new device each time it is named."""
    if spec.array(member) is not None:
        return f"array {member}"
    path = path_of(member, spec.folder)
    return None if path is None else f"path {os.path.realpath(path)}"
