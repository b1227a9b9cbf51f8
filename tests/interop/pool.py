"""Pool: the members of many arrays on one disk of the virtual machine, which takes only so many disks.

There, device mapper makes a device of each part.
"""

from __future__ import annotations

import os
from pathlib import Path

SECTOR = 512


class Pool:
    """Files that are parts of *image* while the machine runs."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self._parts: list[tuple[str, Path, int, int]] = []  # name, file, offset, size
        self._size = 0

    def add(self, name: str, path: Path) -> str:
        """Give *path* a part of its own; the device that it is in the machine."""
        size = path.stat().st_size
        self._parts.append((name, path, self._size, size))
        self._size += size
        return f"/dev/mapper/{name}"

    def table(self, disk: str) -> str:
        """What ``dmsetup create --concise`` wants for all parts of *disk*."""
        rows = [
            f"{name},,,rw,0 {size // SECTOR} linear {disk} {offset // SECTOR}"
            for name, _path, offset, size in self._parts
        ]
        return ";".join(rows)

    def pack(self) -> None:
        """Make the image of the files as they are now."""
        with self.image.open("wb") as image:
            image.truncate(self._size)
            for _name, path, offset, size in self._parts:
                with path.open("rb") as file:
                    _copy(file.fileno(), 0, image.fileno(), offset, size)

    def unpack(self) -> None:
        """Make the files of the image as it is now, and delete it."""
        with self.image.open("rb") as image:
            for _name, path, offset, size in self._parts:
                with path.open("wb") as file:
                    file.truncate(size)
                    _copy(image.fileno(), offset, file.fileno(), 0, size)
        self.image.unlink()


def _copy(source: int, offset: int, target: int, to: int, size: int) -> None:
    """Copy what is not a hole."""
    at, end = offset, offset + size
    while at < end:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError:
            return  # nothing but a hole up to the end of the file
        stop = min(os.lseek(source, at, os.SEEK_HOLE), end)
        os.lseek(target, to + at - offset, os.SEEK_SET)
        while at < stop:
            at += os.sendfile(target, source, at, stop - at)
