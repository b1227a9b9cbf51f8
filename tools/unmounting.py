"""Unmounting as people mean it: when it is done, the members are clean and unlocked.

umount(2) returns before the daemon has written its last superblock.  So the daemon is found first and its end awaited.
Standard library only; used by ``umount.orionfs`` and ``orionctl unmount``.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orionfs.control.runtime import (
    Registration,
    mount_id,
    read_registration,
    resolve_mountpoint,
    runtime_folder,
)
from orionfs.errors import AccessRefused, InUse, MediaError, NotFound, OrionError
from orionfs.tools.holders import describe_holders, find_holders, find_namespaces
from orionfs.tools.mountinfo import TYPE, Mount, mount_at, read_mounts, same_filesystem
from orionfs.tools.mountpoint import run_unmount

#: After this long without an end of the daemon it is looked for who still keeps the filesystem alive.
_PATIENCE_S = 5.0


def unmount(
    target: str | Path, *, lazy: bool = False, force: bool = False, progress: Callable[[str], None] | None = None
) -> str:
    """Unmount the OrionFS at *target* and wait until its daemon has closed the members.

    Returns a note for the user, mostly empty.  *lazy* detaches and does not wait; *force* fails the requests in flight.
    *progress* is told, once, if it takes long.
    Raises NotFound if there is no OrionFS, InUse that names who holds it, AccessRefused, and MediaError if the daemon
    could not write everything.
    """
    mountpoint = str(resolve_mountpoint(target))
    mount = mount_at(read_mounts(), mountpoint)
    if mount is None or mount.type != TYPE:
        what = f"a mount of type {mount.type}" if mount is not None else "not a mount point"
        raise NotFound(f"{mountpoint} is {what}, not a mounted OrionFS", hint="findmnt -t fuse.orionfs lists them")
    with _daemon_of(mount) as daemon:
        failure = run_unmount(mountpoint, lazy=lazy, force=force)
        if failure and mount_at(read_mounts(), mountpoint) == mount:
            raise _explain(mountpoint, failure)
        if lazy or daemon is None:
            return ""
        elsewhere = same_filesystem(read_mounts(), mount)
        if elsewhere:
            return f"{mountpoint} is unmounted, and the same filesystem is still mounted at {elsewhere[0].mountpoint}"
        _wait(daemon, mount, progress)
    return ""


def failure_note(mountpoint: str, folder: Path | None = None) -> Path:
    """Where a daemon that could not close its members says so, for the one who unmounts."""
    return (folder or runtime_folder()) / f"{mount_id(Path(mountpoint))}.failure"


def leave_failure(mountpoint: str, error: OrionError) -> None:
    """Write that note: the message, and on a second line the hint, if it has one."""
    failure_note(mountpoint).write_text("\n".join(filter(None, (error.message, error.hint))))


class _Daemon:
    """A living daemon, held by a descriptor so that its number cannot pass to another process."""

    def __init__(self, registration: Registration, descriptor: int) -> None:
        self.registration = registration
        self.descriptor = descriptor

    def ended(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


@contextmanager
def _daemon_of(mount: Mount) -> Iterator[_Daemon | None]:
    """The daemon of *mount*, None if it is gone or nowhere registered."""
    registration = next(_registrations(mount), None)
    descriptor = -1
    try:
        if registration is not None:
            try:
                descriptor = os.pidfd_open(registration.pid)
            except ProcessLookupError:
                registration = None
        if registration is None or not registration.alive:  # asked again now that the number is held
            yield None
        else:
            yield _Daemon(registration, descriptor)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _registrations(mount: Mount) -> Iterator[Registration]:
    """The living registrations for *mount*: in this user's folder, else in that of the user who mounted it."""
    folders = [runtime_folder()]
    owner = next((option[8:] for option in mount.super_options if option.startswith("user_id=")), "")
    if owner and owner != str(os.geteuid()):
        folders += [folder for folder in _folders_of(owner) if _belongs_to(folder, int(owner))]
    for folder in folders:
        try:
            registration = read_registration(folder / f"{mount_id(Path(mount.mountpoint))}.json")
        except ValueError:
            continue  # not registered there
        if registration.alive:
            yield registration


def _folders_of(owner: str) -> list[Path]:
    return (
        [Path("/run/orionfs")] if owner == "0" else [Path(f"/run/user/{owner}/orionfs"), Path(f"/tmp/orionfs-{owner}")]
    )


def _belongs_to(folder: Path, uid: int) -> bool:
    try:
        return folder.lstat().st_uid == uid
    except OSError:
        return False


def _explain(mountpoint: str, failure: str) -> OrionError:
    # Not this program itself, nor the umount(8) that called it: both have inherited what their caller has open.
    ourselves = (f"[{os.getpid()}]", f"umount[{os.getppid()}]")
    holders = [holder for holder in find_holders(mountpoint, read_mounts()) if not holder.who.endswith(ourselves)]
    if holders:
        hint = f"end that first; umount -l {mountpoint} detaches it at once"
        return InUse(f"{mountpoint} is in use by {describe_holders(holders)}", hint=hint)
    if "busy" in failure:
        return InUse(f"{mountpoint} is in use by a process that only root can see", hint="fuser -vm as root names it")
    hint = "as root: ln -s /proc/self/mounts /etc/mtab" if "/etc/mtab" in failure else ""
    return AccessRefused(f"cannot unmount {mountpoint}: {failure}", hint=hint)


def _wait(daemon: _Daemon, mount: Mount, progress: Callable[[str], None] | None) -> None:
    while not daemon.ended(_PATIENCE_S):
        namespaces = find_namespaces(mount)
        if namespaces:
            raise InUse(
                f"{mount.mountpoint} is unmounted here, and kept alive by {describe_holders(namespaces)}",
                hint="the members stay open until that ends",
            )
        if progress is not None:
            progress(f"waiting for process {daemon.registration.pid} to write what is left")
            progress = None
    record = daemon.registration.socket.with_suffix(".json")
    note = failure_note(mount.mountpoint, record.parent)
    if note.exists():
        message, _, hint = note.read_text().partition("\n")
        raise MediaError(message, hint=hint or "not everything may have been written; the next mount checks it")
    if record.exists() and read_registration(record).pid == daemon.registration.pid:
        message = (
            f"the daemon of {mount.mountpoint} (process {daemon.registration.pid}) died before it closed its members"
        )
        raise MediaError(message, hint="the next mount checks them")
