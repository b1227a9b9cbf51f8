"""The folder to mount on: what it must be, and how a dead mount is taken away from it first."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
from pathlib import Path

from orionfs.control.runtime import mount_id, read_registration, runtime_folder
from orionfs.errors import AccessRefused, InUse, NotFound, Refused, UsageError, from_oserror
from orionfs.tools.mountinfo import TYPE, Mount, mount_at, read_mounts

#: How long a mount that nobody registered may take to answer before it counts as alive but stuck.
_ANSWER_LIMIT_S = 2.0


def check_mountpoint(mountpoint: str) -> None:
    """Raise unless *mountpoint* is an empty folder of ours with nothing mounted on it; changes nothing.

    NotFound, UsageError (not a folder), InUse (something is mounted), Refused (not empty), AccessRefused.
    """
    mount = mount_at(read_mounts(), mountpoint)
    if mount is not None:
        if mount.type == TYPE and is_dead(mount):
            return
        what = f"{mount.source} ({mount.type})"
        raise InUse(
            f"{mountpoint} is already mounted: {what}", hint=f"umount {mountpoint} first, or use another folder"
        )
    try:
        with os.scandir(mountpoint) as entries:
            empty = next(entries, None) is None
    except FileNotFoundError:
        raise NotFound(f"the mount point {mountpoint} is not there", hint=f"mkdir -p {mountpoint}") from None
    except NotADirectoryError:
        raise UsageError(f"the mount point {mountpoint} is not a folder", hint="name an empty folder") from None
    except OSError as error:
        raise from_oserror(error, f"look into the mount point {mountpoint}") from error
    if not empty:
        raise Refused(f"the mount point {mountpoint} is not empty", hint="mount on an empty folder")
    if not os.access(mountpoint, os.W_OK):
        raise AccessRefused(f"this user may not write in the mount point {mountpoint}", hint="use a folder of yours")


def take_away_dead_mounts(mountpoint: str) -> int:
    """Detach the OrionFS mounts at *mountpoint* whose daemon is gone; how many there were."""
    count = 0
    while (mount := mount_at(read_mounts(), mountpoint)) is not None and mount.type == TYPE and is_dead(mount):
        failure = run_unmount(mountpoint, lazy=True)
        if failure:
            raise AccessRefused(
                f"cannot detach the dead mount at {mountpoint}: {failure}", hint="umount it as its user"
            )
        count += 1
    return count


def is_dead(mount: Mount) -> bool:
    """Whether the daemon of an OrionFS *mount* is gone, so that everything on it fails with ENOTCONN.

    The registry is asked first: only if nobody is registered there is the mount itself asked, with a time limit,
    because a daemon that hangs would not answer.
    """
    record = runtime_folder() / f"{mount_id(Path(mount.mountpoint))}.json"
    try:
        if read_registration(record).alive:
            return False
    except ValueError:
        pass  # nobody is registered, or what is there is not a record: ask the mount
    return _not_connected(mount.mountpoint)


def enlist_helper(source: str, mountpoint: str) -> str:
    """Have a plain ``umount DIR`` call our helper; an empty text, or what mount(8) said if it failed.

    For an absolute DIR umount(8) asks statfs for the type, which says no more than ``fuse``, and so it would never look
    for ``umount.fuse.orionfs``.  An entry in its own table (/run/mount/utab) makes it look there: ``mount -f`` writes
    one and mounts nothing.  Users need none: for them umount(8) always takes the type from the mount table.
    """
    command = ["mount", "-f", "-i", "-c", "-t", TYPE, "-o", "helper=orionfs", "--", source, mountpoint]
    return _complaint(command) if os.geteuid() == 0 else ""


def delist_helper(mountpoint: str) -> str:
    """Take that entry away if it is still there: umount(8) has done it, umount(2) and fusermount3 have not."""
    if os.geteuid() != 0 or f" TARGET={mountpoint} " not in _utab():
        return ""
    return _complaint(["umount", "--fake", "-i", "-c", mountpoint])


def _utab() -> str:
    try:
        return Path("/run/mount/utab").read_text(errors="replace")
    except OSError:
        return ""  # no table, no entry


def run_unmount(mountpoint: str, *, lazy: bool = False, force: bool = False) -> str:
    """Unmount with the system's own program; an empty text, or what it said if it failed.

    ``umount -i`` calls no helper, so this may run inside one; ``-c`` keeps it from looking at the mount.
    """
    if os.geteuid() == 0:
        command = ["umount", "-i", "-c", *(["-l"] if lazy else []), *(["-f"] if force else []), mountpoint]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", mountpoint]
    return _complaint(command)


def _complaint(command: list[str]) -> str:
    """Run *command*; what it printed on one line if it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return f"cannot run {command[0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = " ".join(done.stderr.split())
    return said or f"{command[0]} ended with status {done.returncode}"


def _not_connected(path: str) -> bool:
    """Whether the filesystem at *path* says ENOTCONN.  A process of its own asks: it can be killed while it hangs."""
    pid = os.fork()
    if pid == 0:
        try:
            os.statvfs(path)  # never answered from the kernel's cache, as a stat may be
        except OSError as error:
            os._exit(error.errno == errno.ENOTCONN)
        os._exit(0)
    poll = select.poll()
    descriptor = os.pidfd_open(pid)
    try:
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(_ANSWER_LIMIT_S * 1000):
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(descriptor)
        status = os.waitpid(pid, 0)[1]
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1
