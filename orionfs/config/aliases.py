"""Aliases: members that are one device under names that only the host can tell to be the same.

Symbolic links are followed by :mod:`orionfs.config.graph`; these are hard links, bind mounts, and two nodes of one
block device.  The lock of the second would fail too, but could not say what it collided with.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orionfs.backends import path_of
from orionfs.config.spec import Spec
from orionfs.errors import ConfigError


def find_aliases(spec: Spec) -> Iterator[ConfigError]:
    """One error for each member of *spec* that is the same device as one before it.  Blocks; opens nothing."""
    seen: dict[tuple[str, int, int], tuple[str, str]] = {}
    for array in spec.arrays:
        for index, member in enumerate(array.members):
            path = path_of(member, spec.folder) if spec.array(member) is None else None
            identity = _identity(path) if path is not None else None
            if identity is None:
                continue
            if identity not in seen:
                seen[identity] = member, array.name
                continue
            other, owner = seen[identity]
            yield ConfigError(
                f"member {member} of {array.name} is the same device as {other} of {owner}",
                hint="use each device once",
                path=str(spec.path),
                line=array.line_of_member(index),
            )


def refuse_aliases(spec: Spec) -> None:
    """Raise the first error of :func:`find_aliases`, if there is one."""
    for error in find_aliases(spec):
        raise error


def _identity(path: Path) -> tuple[str, int, int] | None:
    """What *path* is, whatever it is called; None for what cannot be looked at: opening it says what is wrong."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if stat.S_ISBLK(found.st_mode):
        return "block", os.major(found.st_rdev), os.minor(found.st_rdev)
    return "file", found.st_dev, found.st_ino
