"""Tuning: what the kernel lets root set once a FUSE mount is there.  Without permission nothing changes or fails.

Read-ahead is 128 KiB in the FUSE handshake and can only be raised afterwards; 1 MiB measured best for sequential
buffered reads (more did not help).  A connection carries 12 background requests at once by default, which throttles
asynchronous direct I/O and read-ahead over slow members.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger("orionfs.fuse")

READ_AHEAD_KIB = 1024
MAX_BACKGROUND = 64
#: At three quarters the kernel calls the mount congested; the same share as by default.
CONGESTION_THRESHOLD = MAX_BACKGROUND * 3 // 4

_MOUNTINFO = Path("/proc/self/mountinfo")
_BDI = Path("/sys/class/bdi")
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def device_number(mountinfo: str, mountpoint: Path) -> tuple[int, int] | None:
    """Major and minor number of the topmost FUSE mount at *mountpoint*, out of the text of /proc/self/mountinfo.

    Format: proc_pid_mountinfo(5).  This never looks at the mount itself: a daemon that stats its own mount hangs.
    """
    found = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        kind = after.split(" ", 1)[0]
        if len(fields) > 4 and _unescape(fields[4]) == str(mountpoint) and kind.split(".")[0] in ("fuse", "fuseblk"):
            major, _, minor = fields[2].partition(":")
            found = int(major), int(minor)
    return found


def _unescape(field: str) -> str:
    r"""A mountinfo field with its ``\040`` and the like undone."""
    raw = os.fsencode(field)
    head, *escaped = raw.split(b"\\")
    return os.fsdecode(head + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in escaped))


def tune(mountpoint: Path) -> dict[str, int]:
    """Set read-ahead and the limits of the connection of our mount at *mountpoint*; the settings that took effect.

    To be called once the handshake is over, which would otherwise reset them.  Reads and writes of sysfs do not wait
    for the mount, so this may run on the event loop.
    """
    number = device_number(_MOUNTINFO.read_text(errors="surrogateescape"), mountpoint)
    if number is None:
        return {}
    major, minor = number
    settings: dict[str, int] = {}
    _set(settings, _BDI / f"{major}:{minor}", "read_ahead_kb", READ_AHEAD_KIB)
    if os.geteuid() == 0:
        with _connections() as folder:
            if folder is not None:
                connection = folder / str(minor)
                _set(settings, connection, "max_background", MAX_BACKGROUND)
                _set(settings, connection, "congestion_threshold", CONGESTION_THRESHOLD)
    return settings


def _set(settings: dict[str, int], folder: Path, name: str, value: int) -> None:
    """Write one setting; only the log hears of it if that is not allowed."""
    try:
        (folder / name).write_text(f"{value}\n")
    except OSError as error:
        logger.debug("%s stays as it is: %s", folder / name, error)
    else:
        settings[name] = value


@contextmanager
def _connections() -> Iterator[Path | None]:
    """A path to the FUSE control filesystem: where it is mounted, else a mount of it that only this process can see.

    That one is detached: it has no place in any folder and goes with its descriptor, so that it cannot be left behind.
    """
    with suppress(OSError):
        if any(_CONNECTIONS.iterdir()):
            yield _CONNECTIONS
            return
    descriptor = _detached_mount(b"fusectl")
    if descriptor < 0:
        yield None
        return
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


# The same on every architecture (include/uapi/asm-generic/unistd.h); Python 3.11 has no names for them.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_CMD_CREATE = 6  # FSCONFIG_CMD_CREATE


def _detached_mount(kind: bytes) -> int:
    """A descriptor of the root of a new, detached mount of filesystem *kind*; -1 if the kernel does not let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(_FSOPEN, kind, _CLOEXEC)
    if context < 0:
        return -1
    try:
        if libc.syscall(_FSCONFIG, context, _CMD_CREATE, None, None, 0) < 0:
            return -1
        return int(libc.syscall(_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)
