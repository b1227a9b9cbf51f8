"""Whether the members that a configuration names can be what it says: asked of the host, opening nothing.

A mount finds all of this out as well, and more; this is for ``orionctl config check``, which names lines.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orionfs.array.levels import LEVELS
from orionfs.backends import path_of
from orionfs.config.aliases import find_aliases
from orionfs.config.graph import Use, uses
from orionfs.config.spec import MISSING, ArraySpec, Spec
from orionfs.errors import AccessRefused, ConfigError, NotFound, OrionError
from orionfs.units import MIB, SECTOR, format_size

Severity = Literal["problem", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (``problem``) or odd (``warning``).  ``line`` is of the spec.

    With a problem a mount would fail, or would do without a member that is there and damaged.
    """

    severity: Severity
    line: int
    error: OrionError


def check_members(spec: Spec) -> list[Finding]:
    """What the host says against the members and spares of *spec*, by line.  Blocks; follows no array into another."""
    findings = [Finding("problem", error.line, error) for error in find_aliases(spec)]
    for array in spec.arrays:
        findings += _check_array(spec, array)
    for use in uses(spec):
        if use.noun == "spare":
            findings += _check_spare(spec, use)
    return sorted(findings, key=lambda finding: finding.line)


def _check_array(spec: Spec, array: ArraySpec) -> list[Finding]:
    findings: list[Finding] = []
    missing: dict[int, Path] = {}
    for position, member in array.present:
        path = None if spec.array(member) is not None else path_of(member, spec.folder)
        if path is None:
            continue
        line = array.line_of_member(position)
        try:
            _check_path(path, read_only=array.read_only or spec.mount.read_only)
        except NotFound:
            missing[position] = path
        except OrionError as error:
            findings.append(Finding("problem", line, error))
    return findings + _missing(array, missing)


def _check_spare(spec: Spec, use: Use) -> list[Finding]:
    """A spare that cannot be one does not keep a mount from starting."""
    path = path_of(use.label, spec.folder)
    if path is None:
        return []
    try:
        _check_path(path, read_only=spec.mount.read_only, noun="spare")
    except NotFound:
        error = NotFound(f"spare {path} does not exist", hint="make it, or take it out of the list")
        return [Finding("warning", use.line, error)]
    except OrionError as error:
        return [Finding("warning", use.line, error)]
    return []


def _check_path(path: Path, *, read_only: bool, noun: str = "member") -> None:
    """Raise the sentence that says why *path* cannot be used, if so."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"{noun} {path} does not exist") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise ConfigError(f"{noun} {path} is not a usable path: {error.strerror}", hint="check the path") from error
        raise AccessRefused(f"{noun} {path} cannot be looked at: {error.strerror}") from error
    kind = _KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise ConfigError(f"{noun} {path} is {kind}", hint="name a regular file or a block device")
    needed = os.R_OK if read_only else os.R_OK | os.W_OK
    if not os.access(path, needed, effective_ids=True):
        what = "read" if read_only else "read and written"
        raise AccessRefused(
            f"{noun} {path} may not be {what} by this user", hint=f"become its owner, or: chmod u+rw {path}"
        )
    if stat.S_ISREG(status.st_mode):
        _check_size(path, status.st_size, noun)


def _check_size(path: Path, size: int, noun: str) -> None:
    if size <= MIB:
        message = f"{noun} {path} is too small: it has {format_size(size)}, and its superblock alone needs 1 MiB"
        raise ConfigError(message, hint="name a larger file; was it cut short?")
    if size % SECTOR:
        message = f"{noun} {path} has {size} bytes, which is not a multiple of {SECTOR}"
        raise ConfigError(message, hint="was it cut short?")


def _missing(array: ArraySpec, missing: dict[int, Path]) -> list[Finding]:
    """A file that is not there is a warning if ``orionctl init`` would make it or the array can do without it.

    *missing* are the paths by slot.
    """
    to_be_made = array.member_size is not None and len(missing) == len(array.members)
    starts = _survives(array, missing)
    found = []
    for slot, path in missing.items():
        if to_be_made:
            error = NotFound(f"member {path} does not exist yet", hint="orionctl init makes it")
        elif starts:
            error = NotFound(f"member {path} does not exist", hint=f"{array.name} would start degraded")
        else:
            error = NotFound(f"member {path} does not exist", hint=f"{array.name} cannot start without it")
        severity: Severity = "warning" if to_be_made or starts else "problem"
        found.append(Finding(severity, array.line_of_member(slot), error))
    return found


def _survives(array: ArraySpec, missing: Collection[int]) -> bool:
    """Whether *array* starts without the members in the slots *missing*, if it is in the order of the configuration."""
    level = LEVELS.get(array.level)
    if level is None:
        return not missing
    layout = level.layouts[array.layout or level.default_layout]
    gone = {*missing, *(slot for slot, member in enumerate(array.members) if member == MISSING)}
    return level.survives(layout, len(array.members), gone)


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
}
