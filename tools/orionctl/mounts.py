"""Which mounts a command speaks of, and talking to their daemons."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from orionfs.control.client import ControlClient
from orionfs.control.runtime import Registration, find, living_mounts
from orionfs.errors import NoDaemon, NotFound, UsageError

#: A whole device may have to be read before it is made a member.
_PATIENCE_S = 24 * 3600.0


def chosen_mount(arguments: argparse.Namespace, target: str | None = None) -> Registration:
    """The mount that ``--mount`` names, else the one of *target* (a mount point, a configuration, an array).

    With neither, the only one there is.  Raises as :func:`orionfs.control.runtime.find` does.
    """
    return find(arguments.mount if arguments.mount is not None else target)


def mount_of_object(arguments: argparse.Namespace, name: str) -> tuple[Registration, str]:
    """The mount that has the object *name*, and what the daemon calls it.

    *name* is an array (``vault``), its place in the tree (``arrays/vault``) or the path of its file.
    """
    if arguments.mount is not None:
        mount = find(arguments.mount)
        return mount, _strip(mount, name)
    living = living_mounts()
    if not living:
        raise NoDaemon("nothing is mounted", hint="orionctl mount SPEC DIR")
    having = [mount for mount in living if _strip(mount, name) in mount.arrays]
    if not having:
        listed = ", ".join(sorted({array for mount in living for array in mount.arrays}))
        raise NotFound(f"no mount has an object {name}", hint=f"there is: {listed}")
    if len(having) > 1:
        listed = ", ".join(str(mount.mountpoint) for mount in having)
        raise UsageError(f"several mounts have an object {name} ({listed})", hint="choose one with --mount DIR")
    return having[0], _strip(having[0], name)


def ask(mount: Registration, verb: str, **arguments: Any) -> Any:
    """One question to the daemon of *mount*."""
    with ControlClient.to(mount) as client:
        return client.call(verb, **arguments)


def ask_patiently(mount: Registration, verb: str, **arguments: Any) -> Any:
    """One request to the daemon of *mount* that may take as long as its members take to read."""
    with ControlClient.to(mount, timeout_s=_PATIENCE_S) as client:
        return client.call(verb, **arguments)


def _strip(mount: Registration, name: str) -> str:
    """*name* without the mount point and the folder of the tree."""
    path = Path(name).absolute()
    if "/" in name and path.is_relative_to(mount.mountpoint):
        name = str(path.relative_to(mount.mountpoint))
    return name.removeprefix("arrays/")
