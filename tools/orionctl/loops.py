"""Loop devices as sysfs shows them.  Nothing here opens a device or looks beneath a mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_SYS_BLOCK = Path("/sys/block")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop device that is set up."""

    device: str
    backing: str
    direct_io: bool
    read_only: bool


def all_loops(sys_block: Path = _SYS_BLOCK) -> list[Loop]:
    """Every loop device with a file behind it."""
    found = []
    for folder in sorted(sys_block.glob("loop*"), key=lambda folder: (len(folder.name), folder.name)):
        try:
            backing = os.fsdecode((folder / "loop" / "backing_file").read_bytes()).rstrip("\n")
            direct = (folder / "loop" / "dio").read_text().strip() == "1"
            read_only = (folder / "ro").read_text().strip() == "1"
        except FileNotFoundError:
            continue  # not set up, or taken away meanwhile
        found.append(Loop(f"/dev/{folder.name}", backing.removesuffix(_DELETED), direct, read_only))
    return found


def loops_over(path: str) -> list[Loop]:
    """The loop devices whose file is *path*."""
    return [loop for loop in all_loops() if loop.backing == path]
