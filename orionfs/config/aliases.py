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
from orionfs.config.graph import Use, uses
from orionfs.config.spec import Spec
from orionfs.errors import ConfigError


def find_aliases(spec: Spec) -> Iterator[ConfigError]:
    """One error for each member and spare of *spec* that is the same device as one before it.

    Blocks; opens nothing.
    """
    seen: dict[tuple[str, int, int], Use] = {}
    for use in uses(spec):
        path = path_of(use.label, spec.folder) if spec.array(use.label) is None else None
        identity = _identity(path) if path is not None else None
        if identity is None:
            continue
        other = seen.setdefault(identity, use)
        if other is not use:
            yield ConfigError(
                f"{use.text} is the same device as {other.text.removeprefix('member ')}",
                hint="use each device once",
                path=str(spec.path),
                line=use.line,
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
