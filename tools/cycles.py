"""A member must not live on what the mount itself provides: the first write-back would wait for itself for ever.

Such a cycle can be hidden: a member on an ext4, on a partition, on a loop device, on a file of the mounted tree.  This
follows a path downwards through filesystems and block devices, by the mount table and sysfs alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from orionfs.backends import path_of
from orionfs.config.graph import uses
from orionfs.config.spec import Spec
from orionfs.errors import Refused
from orionfs.tools.mountinfo import Mount, is_beneath, mount_of, read_mounts

#: The options of an overlay that name the folders on which it stands.
_OVERLAY_FOLDERS = ("lowerdir", "upperdir", "workdir")


class BlockDevices(Protocol):
    """What a block device stands on.  Devices are ``MAJOR:MINOR``."""

    def number(self, source: str) -> str | None:
        """The device that the mount source *source* (``/dev/loop0``) names, None if it names no block device."""

    def backing_file(self, device: str) -> str | None:
        """The file behind a loop device, None for any other."""

    def below(self, device: str) -> list[str]:
        """The devices that this one is made of: the disk of a partition, the slaves of a dm or md device."""


class SysfsBlockDevices:
    """Answers from /sys/dev/block; nothing is opened but sysfs."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._sysfs = sysfs

    def number(self, source: str) -> str | None:
        name = os.path.realpath(source).removeprefix("/dev/").replace("/", "!")
        return _text(self._sysfs / "class" / "block" / name / "dev") if source.startswith("/dev/") else None

    def backing_file(self, device: str) -> str | None:
        text = _text(self._folder(device) / "loop" / "backing_file")
        return text.removesuffix(" (deleted)") if text is not None else None

    def below(self, device: str) -> list[str]:
        folder = self._folder(device)
        slaves = folder / "slaves"
        numbers = [_text(slave / "dev") for slave in sorted(slaves.iterdir())] if slaves.is_dir() else []
        if (folder / "partition").exists():
            numbers.append(_text(folder.resolve().parent / "dev"))
        return [number for number in numbers if number is not None]

    def _folder(self, device: str) -> Path:
        return self._sysfs / "dev" / "block" / device


def refuse_cycles(spec: Spec, mountpoint: str) -> None:
    """Raise Refused if a device of *spec*, or what the daemon keeps beside it, needs a file beneath *mountpoint*.

    To be asked before a dead mount is detached there: afterwards the kernel no longer tells where its files were.
    """
    mounts, devices = read_mounts(), SysfsBlockDevices()
    labels = [use.label for use in uses(spec) if spec.array(use.label) is None]
    paths = [path for label in labels if (path := path_of(label, spec.folder)) is not None]
    for path in [spec.folder, *paths]:
        if is_beneath(str(path), mountpoint):  # not to be looked at: what is mounted there may be dead
            refuse_cycle(str(path), mountpoint, mounts, devices)
        refuse_cycle(os.path.realpath(path), mountpoint, mounts, devices, _block_number(path))


def _block_number(path: Path) -> str | None:
    """``MAJOR:MINOR`` of a block device; None for anything else, also for what cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None  # opening the member says what is wrong with it
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" if stat.S_ISBLK(status.st_mode) else None


def refuse_cycle(
    path: str, mountpoint: str, mounts: Sequence[Mount], devices: BlockDevices, device: str | None = None
) -> None:
    """Raise Refused if the file *path* needs a file beneath *mountpoint*; the message tells the way between them.

    Both are absolute and without symbolic links.  *device* is the number of the block device if *path* is one.
    """
    way = find_way(path, mountpoint, mounts, devices, device)
    if way is not None:
        middle = ", which is on ".join(way[1:])
        raise Refused(
            f"{way[0]} is {f'on {middle}, ' if middle else ''}beneath the mount point {mountpoint}, so the mount "
            "would wait for itself",
            hint="keep members outside of the mount that they serve",
        )


def find_way(
    path: str, mountpoint: str, mounts: Sequence[Mount], devices: BlockDevices, device: str | None = None
) -> list[str] | None:
    """What leads from *path* down to a file beneath *mountpoint*, beginning with *path*; None if nothing does."""
    return _Search(mountpoint, mounts, devices).from_path(path, device)


class _Search:
    """Depth first, each path and device once: a mount table may hold loops of its own."""

    def __init__(self, mountpoint: str, mounts: Sequence[Mount], devices: BlockDevices) -> None:
        self._mountpoint = mountpoint
        self._mounts = mounts
        self._devices = devices
        self._seen: set[str] = set()

    def from_path(self, path: str, device: str | None = None) -> list[str] | None:
        if is_beneath(path, self._mountpoint):
            return [path]
        if path in self._seen:
            return None
        self._seen.add(path)
        if device is not None:
            return _prefixed(path, self._from_device(device))
        mount = mount_of(self._mounts, path)
        return _prefixed(path, self._from_mount(mount)) if mount is not None else None

    def _from_mount(self, mount: Mount) -> list[str] | None:
        for option in mount.super_options:
            name, _, folders = option.partition("=")
            if mount.type == "overlay" and name in _OVERLAY_FOLDERS:
                for folder in folders.split(":"):
                    way = self.from_path(folder) if folder.startswith("/") else None
                    if way is not None:
                        return way
        # btrfs and some others mount under an anonymous number; their source tells the device.
        for number in (mount.device, self._devices.number(mount.source)):
            way = self._from_device(number) if number is not None else None
            if way is not None:
                return way
        return None

    def _from_device(self, device: str) -> list[str] | None:
        if device in self._seen:
            return None
        self._seen.add(device)
        backing = self._devices.backing_file(device)
        if backing is not None:
            return self.from_path(backing)
        for lower in self._devices.below(device):
            way = self._from_device(lower)
            if way is not None:
                return way
        return None


def _prefixed(path: str, way: list[str] | None) -> list[str] | None:
    return None if way is None else [path, *way]


def _text(path: Path) -> str | None:
    try:
        return os.fsdecode(path.read_bytes()).strip("\n")
    except OSError:
        return None  # no such device, or not of this kind
