"""Peer: qemu-storage-daemon's FUSE export of one raw file, with threads or io_uring beneath."""

from __future__ import annotations

from contextlib import ExitStack

from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import Setting, Stack, Target


def qemu(aio: str) -> Stack:
    """The stack with ``aio=threads`` or ``aio=io_uring``.  The image is one file, so nothing is striped."""
    name = f"qemu-{aio}"

    def start(setting: Setting, exits: ExitStack) -> Target:
        image = setting.folder / f"{name}.img"
        with image.open("xb") as sparse:
            sparse.truncate(setting.size)
        place = setting.folder / name
        place.touch(exist_ok=False)
        argv = [
            "qemu-storage-daemon",
            # The page cache of a tmpfs file is the file: cache.direct=on would only add alignment rules.
            f"--blockdev=driver=file,filename={image},node-name=disk,aio={aio},cache.direct=off",
            f"--export=type=fuse,id=export,node-name=disk,mountpoint={place},writable=on,growable=off",
        ]
        pid = server.start(argv, place, setting.folder / f"{name}.log", exits, ends_with_mount=False)
        return Target(place, (pid,))

    return Stack(
        name, f"qemu raw, aio={aio}", start, {"qemu-storage-daemon": "qemu-system-common", "fusermount3": "fuse3"}
    )
