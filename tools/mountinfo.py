"""What the kernel says is mounted: /proc/self/mountinfo (format: proc(5)), parsed.

Nothing here touches a mounted filesystem, so it works also where a stat would hang or fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: What the kernel calls our mounts.
TYPE = "fuse.orionfs"

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.  ``device`` is ``MAJOR:MINOR``; ``root`` is the part of the filesystem that shows."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mountpoint: str
    options: tuple[str, ...]
    type: str
    source: str
    super_options: tuple[str, ...]

    @property
    def filesystem(self) -> tuple[object, ...]:
        """What all mounts of one filesystem share.

        The device number alone does not tell: the kernel gives it to the next mount once a filesystem is gone.
        """
        return self.device, self.type, self.source, self.super_options


def parse_mountinfo(text: str) -> list[Mount]:
    """The mounts in *text*, in its order: a later one at the same place covers an earlier one."""
    return [_parse_line(line) for line in text.splitlines()]


def read_mounts(process: int | None = None) -> list[Mount]:
    """The mounts that this process (or *process*) sees."""
    path = Path(f"/proc/{'self' if process is None else process}/mountinfo")
    return parse_mountinfo(path.read_text(encoding="utf-8", errors="surrogateescape"))


def mount_at(mounts: Sequence[Mount], mountpoint: str) -> Mount | None:
    """The topmost mount exactly at *mountpoint* (absolute, no symbolic links), None if there is none."""
    found = mount_of(mounts, mountpoint)
    return found if found is not None and found.mountpoint == mountpoint else None


def mount_of(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount on which the file *path* (absolute, no symbolic links) lies; None if that is outside of what we see.

    Walks the tree of mounts as the kernel walks a path, because a mount may hide others that were there before it.
    """
    on_the_way = [mount for mount in mounts if is_beneath(path, mount.mountpoint)]
    known = {mount.mount_id for mount in mounts}
    found: Mount | None = None
    below = [mount for mount in on_the_way if mount.parent_id not in known - {mount.mount_id}]
    while below:
        found = min(below, key=lambda mount: len(mount.mountpoint))
        below = [mount for mount in on_the_way if mount.parent_id == found.mount_id and mount is not found]
    return found


def mounts_beneath(mounts: Iterable[Mount], folder: str) -> list[Mount]:
    """The mounts below *folder*, not counting those at *folder* itself."""
    return [mount for mount in mounts if mount.mountpoint != folder and is_beneath(mount.mountpoint, folder)]


def same_filesystem(mounts: Sequence[Mount], mount: Mount) -> list[Mount]:
    """The other places (bind mounts) where the filesystem of *mount* is mounted."""
    return [other for other in mounts if other.filesystem == mount.filesystem and other.mount_id != mount.mount_id]


def is_beneath(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or lies below it; both absolute, only the text is looked at."""
    return path == folder or path.startswith(folder if folder.endswith("/") else folder + "/")


def _parse_line(line: str) -> Mount:
    fields = line.split(" ")
    separator = fields.index("-", 6)  # between stand optional fields, any number of them
    kind, source, super_options = fields[separator + 1 : separator + 4]
    return Mount(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        device=fields[2],
        root=_unescape(fields[3]),
        mountpoint=_unescape(fields[4]),
        options=tuple(fields[5].split(",")),
        type=_unescape(kind),
        source=_unescape(source),
        super_options=tuple(_unescape(super_options).split(",")),
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)
