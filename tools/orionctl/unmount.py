"""Unmounts, and returns when the members are clean and unlocked: the same as umount.orionfs."""

from __future__ import annotations

import argparse
from pathlib import Path

from orionfs.control.runtime import Registration, all_mounts, find, resolve_mountpoint, unregister
from orionfs.errors import NoDaemon, NotFound
from orionfs.tools.orionctl.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="DIR", nargs="?", help="the mount point, its configuration or one of its arrays"
    )
    parser.add_argument("--wait", action="store_true", help="accepted: it always waits, unless --lazy")
    parser.add_argument("--lazy", action="store_true", help="detach now; the daemon ends when nobody uses it any more")
    parser.add_argument("--force", action="store_true", help="fail the requests that are under way")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be unmounted")


def run(arguments: argparse.Namespace, output: Output) -> int:
    target = arguments.mount if arguments.mount is not None else arguments.target
    registration = _registration(target)
    mountpoint = str(registration.mountpoint if registration else resolve_mountpoint(target))
    if arguments.dry_run:
        output.result("unmount", {"mountpoint": mountpoint, "unmounted": False}, f"would unmount {mountpoint}")
        return 0
    note = _unmount(mountpoint, registration, lazy=arguments.lazy, force=arguments.force)
    if note:
        output.note(note)
    output.result("unmount", {"mountpoint": mountpoint, "unmounted": True, "note": note}, "")
    return 0


def _registration(target: str | None) -> Registration | None:
    """The mount that *target* names, also one whose daemon is gone: to take those away is half of this command's use.

    None if it is not registered but a place that could be mounted.
    """
    try:
        return find(target)
    except (NoDaemon, NotFound):
        stale = [mount for mount in all_mounts() if target is None or mount.mountpoint == resolve_mountpoint(target)]
        if len(stale) == 1:
            return stale[0]
        if target is None or not Path(target).parent.is_dir():
            raise
    return None


def _unmount(mountpoint: str, registration: Registration | None, *, lazy: bool, force: bool) -> str:
    """What there is to say about the unmount; a dead daemon's record goes with its mount."""
    from orionfs.tools.unmounting import unmount

    dead = registration is not None and not registration.alive
    try:
        note = unmount(mountpoint, lazy=lazy, force=force)
    except NotFound:
        if not dead:
            raise
        note = "it was not mounted any more; the record of its daemon is removed"
    if dead and registration is not None:
        unregister(registration)
    return note or ""
