"""Who keeps a mount busy: processes, loop devices, mounts on top, other mount namespaces.

Only /proc and /sys are read: their links are text, so that nothing here waits for the mount itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orionfs.tools.mountinfo import Mount, is_beneath, mounts_beneath, parse_mountinfo

_PROC = Path("/proc")
_SYS_BLOCK = Path("/sys/block")
_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class Holder:
    """One reason why a mount is busy.  ``who`` names it, ``what`` is the file that it uses."""

    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.who} ({self.what})"


def find_holders(
    mountpoint: str, mounts: Sequence[Mount], *, proc: Path = _PROC, sys_block: Path = _SYS_BLOCK
) -> list[Holder]:
    """All that uses a file at or below *mountpoint*, as far as this user may see it.

    What other users' processes hold is visible to root only.
    """
    holders = list(_loop_devices(mountpoint, sys_block))
    holders += [Holder("a mount", mount.mountpoint) for mount in mounts_beneath(mounts, mountpoint)]
    for pid in _processes(proc):
        holders += _held_by_process(proc / str(pid), pid, mountpoint)
    return holders


def find_namespaces(gone: Mount, *, proc: Path = _PROC) -> list[Holder]:
    """The processes that still have the filesystem of *gone* mounted in their mount namespace.

    One process for each namespace.  Containers keep a mount alive like this after it is gone everywhere else.
    """
    seen: set[str] = set()
    holders = []
    for pid in _processes(proc):
        process = proc / str(pid)
        namespace = _link(process / "ns" / "mnt")
        if namespace is None or namespace in seen:
            continue
        seen.add(namespace)
        text = _text(process / "mountinfo") or ""
        for mount in parse_mountinfo(text):
            if mount.filesystem == gone.filesystem:
                holders.append(Holder(f"the mount namespace of {_name(process, pid)}", mount.mountpoint))
    return holders


def describe_holders(holders: Sequence[Holder], limit: int = 8) -> str:
    """*holders* as the end of a sentence: ``fio[812] (/mnt/arrays/r5), /dev/loop0 (…) and 3 more``."""
    text = ", ".join(str(holder) for holder in holders[:limit])
    more = len(holders) - limit
    return f"{text} and {more} more" if more > 0 else text


def _loop_devices(mountpoint: str, sys_block: Path) -> Iterator[Holder]:
    for device in sorted(sys_block.glob("loop*")):
        backing = _text(device / "loop" / "backing_file")  # only there while the device is set up
        if backing is not None:
            path = backing.strip("\n").removesuffix(_DELETED)
            if is_beneath(path, mountpoint):
                yield Holder(f"/dev/{device.name}", path)


def _held_by_process(process: Path, pid: int, mountpoint: str) -> Iterator[Holder]:
    """One holder for each file that the process uses: open files, its folders, its program, what it maps."""
    links = [process / "cwd", process / "root", process / "exe", *_descriptors(process)]
    paths = {path.removesuffix(_DELETED) for path in map(_link, links) if path is not None}
    paths.update(_mapped(process))
    for path in sorted(path for path in paths if is_beneath(path, mountpoint)):
        yield Holder(_name(process, pid), path)


def _descriptors(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []  # it ended, or is not ours to look into


def _mapped(process: Path) -> Iterator[str]:
    for line in (_text(process / "maps") or "").splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            yield fields[5].removesuffix(_DELETED)


def _processes(proc: Path) -> list[int]:
    return sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdecimal())


def _name(process: Path, pid: int) -> str:
    command = (_text(process / "comm") or "?").strip()
    return f"{command}[{pid}]"


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except OSError:
        return None  # it ended, or is not ours to look into


def _text(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return None  # it ended, or is not ours to look into
