"""What one run of ``mount.orionfs`` was asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orionfs.tools.options import MountOptions


@dataclass(frozen=True, slots=True)
class MountRequest:
    """``source`` is SPEC as the caller wrote it: the name in the mount table, by which mount(8) knows the mount again.

    ``spec`` is the same as an absolute path; ``mountpoint`` is absolute and without symbolic links.
    """

    source: str
    spec: Path
    mountpoint: str
    options: MountOptions
    verbose: bool = False
