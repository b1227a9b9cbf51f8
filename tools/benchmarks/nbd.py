"""Peer: nbdfuse over nbdkit's file plugin, by a Unix socket with as many connections as nbdfuse likes."""

from __future__ import annotations

import shlex
from contextlib import ExitStack

from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import Setting, Stack, Target


def _start(setting: Setting, exits: ExitStack) -> Target:
    image = setting.folder / "nbdfuse.img"
    with image.open("xb") as sparse:
        sparse.truncate(setting.size)
    place = setting.folder / "nbdfuse"
    place.mkdir()
    file = place / "disk"
    # nbdkit runs nbdfuse, ends with it, and makes the socket; "nbdfuse [ nbdkit ... ]" would have one connection only.
    run = f"exec nbdfuse {shlex.quote(str(file))} $uri"
    argv = ["nbdkit", "--foreground", "--unix", "-", "file", str(image), "--run", run]
    pid = server.start(argv, place, setting.folder / "nbdfuse.log", exits)
    return Target(file, server.family(pid))


NBDFUSE = Stack(
    "nbdfuse",
    "nbdfuse over nbdkit file",
    _start,
    {"nbdkit": "nbdkit", "nbdfuse": "libnbd-bin", "fusermount3": "fuse3"},
)
