"""What one run of ``mount.orionfs`` was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from orionfs.config.spec import Spec
from orionfs.tools.options import MountOptions


@dataclass(frozen=True, slots=True)
class MountRequest:
    """``source`` is SPEC as the caller wrote it: the name in the mount table, by which mount(8) knows the mount again.

    ``spec`` is what it says and ``spec_text`` the file as it was read; ``mountpoint`` is absolute and without symbolic
    links.
    """

    source: str
    spec: Spec
    spec_text: str
    mountpoint: str
    options: MountOptions
    verbose: bool = False
