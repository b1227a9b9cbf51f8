"""The few Linux system calls that Python 3.11 does not offer: umount2, prctl and setns."""

from __future__ import annotations

import ctypes
import os

#: Detach now, clean up when the last user is gone (umount2(2)).
MNT_DETACH = 2
#: Abort what is under way (umount2(2)); for FUSE the requests in flight fail.
MNT_FORCE = 1
#: Do not follow a symbolic link (umount2(2)).
UMOUNT_NOFOLLOW = 8

_PR_SET_IO_FLUSHER = 57
_CLONE_NEWNS = 0x00020000

_libc = ctypes.CDLL(None, use_errno=True)


def umount2(mountpoint: str, flags: int = 0) -> None:
    """Unmount the topmost mount at *mountpoint*.  Raises OSError (EBUSY, EINVAL if nothing is mounted, EPERM)."""
    _check(_libc.umount2(os.fsencode(mountpoint), flags), mountpoint)


def set_io_flusher() -> None:
    """Let this thread and those that it starts allocate memory without waiting for write-back that needs them.

    A process that serves a filesystem can otherwise wait for itself when memory is short (PR_SET_IO_FLUSHER in
    prctl(2)).  Raises PermissionError without CAP_SYS_RESOURCE, OSError EINVAL before Linux 5.6.
    """
    _check(_libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0))


def enter_mount_namespace(namespace: str) -> None:
    """Move this single-threaded process to the mount namespace *namespace*: a PID, or the path of a namespace file."""
    path = f"/proc/{namespace}/ns/mnt" if namespace.isdecimal() else namespace
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNS), path)
    finally:
        os.close(descriptor)


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
