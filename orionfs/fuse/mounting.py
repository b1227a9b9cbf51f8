"""Mounting: the options of a mount, and what can be said in one sentence when it is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orionfs.errors import AccessRefused, OrionError, TransportError

_FUSE_DEVICE = Path("/dev/fuse")
#: Its number, MISC_MAJOR and FUSE_MINOR of the kernel.
_FUSE_NUMBER = os.makedev(10, 229)
_FUSE_CONF = Path("/etc/fuse.conf")


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount.  ``source`` is what ``mount`` and ``df`` show as the device: the spec.

    Without *xattrs* there are no extended attributes, and small buffered writes cost half: before each one the kernel
    looks for ``security.capability``.  ``kernel`` are further options for the kernel (``noatime``, ``noexec`` …),
    passed on as they are.
    """

    source: str
    allow_other: bool = False
    read_only: bool = False
    xattrs: bool = True
    kernel: tuple[str, ...] = ()

    def for_libfuse(self) -> set[str]:
        """The options as libfuse takes them.  Permission bits are always checked, by the kernel."""
        options = {f"fsname={_escape(self.source)}", "subtype=orionfs", "default_permissions", *self.kernel}
        if self.allow_other:
            options.add("allow_other")
        if self.read_only:
            options.add("ro")
        return options


def _escape(text: str) -> str:
    """*text* so that libfuse reads it back: a backslash before commas and itself, octal for all that is not ASCII."""
    return "".join(
        f"\\{byte:03o}" if not 0x20 < byte < 0x7F or byte in b",\\" else chr(byte) for byte in os.fsencode(text)
    )


def check_permitted(options: MountOptions) -> None:
    """Raise AccessRefused if this user cannot mount like that here."""
    try:
        descriptor = os.open(_FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _no_device(error) from error
    number = os.fstat(descriptor).st_rdev
    os.close(descriptor)
    if number != _FUSE_NUMBER:
        raise AccessRefused(
            f"{_FUSE_DEVICE} is something else than the FUSE device, so nothing can be mounted",
            hint=f"as root: rm {_FUSE_DEVICE} && mknod -m 666 {_FUSE_DEVICE} c 10 229",
        )
    if options.allow_other and os.geteuid() != 0 and not _users_may_allow_other():
        raise AccessRefused(
            f"allow_other is not permitted, since {_FUSE_CONF} does not have user_allow_other",
            hint=f"add the line user_allow_other to {_FUSE_CONF}, mount as root, or leave allow_other out",
        )


def _no_device(error: OSError) -> OrionError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return AccessRefused(
            f"{_FUSE_DEVICE} is not there, so nothing can be mounted",
            hint="load the module with modprobe fuse, or give the container the device (--device /dev/fuse)",
        )
    return AccessRefused(
        f"{_FUSE_DEVICE} cannot be opened ({error.strerror})",
        hint=f"give this user read and write permission for {_FUSE_DEVICE}",
    )


def _users_may_allow_other() -> bool:
    try:
        lines = _FUSE_CONF.read_text().splitlines()
    except FileNotFoundError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


@contextmanager
def stderr_of() -> Iterator[Callable[[], str]]:
    """Catch what C code prints to stderr meanwhile; the callable gives it, as one line.

    libfuse prints why a mount failed and returns only that it did.  What is not an error goes on to stderr afterwards.
    """
    caught = os.memfd_create("stderr")
    before = os.dup(2)
    os.dup2(caught, 2)
    failed = True
    try:
        yield lambda: " ".join(_contents(caught).decode(errors="replace").split())
        failed = False
    finally:
        os.dup2(before, 2)
        os.close(before)
        if not failed:
            os.write(2, _contents(caught))
        os.close(caught)


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, 1 << 16, 0)


def mount_failure(place: Path, error: str, complaint: str) -> OrionError:
    """One sentence for a mount that libfuse could not make; *complaint* is what it printed."""
    reason = complaint or error
    if "failed to exec fusermount3" in reason or "fusermount3: not found" in reason:
        return AccessRefused(
            f"cannot mount at {place}: fusermount3 is not installed, and only root mounts without it",
            hint="install the package fuse3, or mount as root",
        )
    if any(words in reason for words in ("Operation not permitted", "Permission denied", "no write access")):
        return AccessRefused(
            f"cannot mount at {place}: {reason}",
            hint="mount at a folder that this user owns, or as root; in a container, CAP_SYS_ADMIN is needed",
        )
    return TransportError(
        f"cannot mount at {place}: {reason}", hint="orionctl doctor looks for what this machine lacks"
    )
