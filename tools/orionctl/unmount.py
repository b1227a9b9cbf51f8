"""Unmounts, and returns when the members are clean and unlocked: the same as umount.orionfs."""

from __future__ import annotations

import argparse
from pathlib import Path

from orionfs.control.runtime import find, resolve_mountpoint
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
    from orionfs.tools.unmounting import unmount

    mountpoint = _mountpoint(arguments)
    if arguments.dry_run:
        output.result("unmount", {"mountpoint": mountpoint, "unmounted": False}, f"would unmount {mountpoint}")
        return 0
    note = unmount(mountpoint, lazy=arguments.lazy, force=arguments.force)
    if note:
        output.note(note)
    output.result("unmount", {"mountpoint": mountpoint, "unmounted": True, "note": note or ""}, "")
    return 0


def _mountpoint(arguments: argparse.Namespace) -> str:
    """Also that of a mount whose daemon is gone: taking those away is half of what this command is for."""
    target = arguments.mount if arguments.mount is not None else arguments.target
    try:
        return str(find(target).mountpoint)
    except (NoDaemon, NotFound):
        if target is None or not Path(target).parent.is_dir():
            raise
    return str(resolve_mountpoint(target))
