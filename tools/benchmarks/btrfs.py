"""Peer: the kernel's btrfs with the data profile of the same RAID level, over loop devices on tmpfs files.

It is made as ``mkfs.btrfs`` makes it and as people run it: copy-on-write and checksums on.  ``nodatacow`` would come
nearer to the work of an MD array, but a btrfs RAID 5 without checksums cannot tell which of two copies is right, and
nobody who wants a RAID asks for that.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack

from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import NotMeasured, Setting, Stack, Target
from orionfs.units import MIB


def btrfs(level: str, members: int) -> Stack:
    """The stack for *level*, ``raid0`` or ``raid5``, over *members* loop devices; metadata is RAID 1."""
    name = f"btrfs-{level}"

    def start(setting: Setting, exits: ExitStack) -> Target:
        # Copy-on-write keeps old blocks until the next commit: twice the data, and room for metadata chunks.
        member_size = 2 * setting.size // (members - 1) + 512 * MIB
        loops = []
        for index in range(members):
            image = setting.folder / f"{name}-{index}.img"
            with image.open("xb") as sparse:
                sparse.truncate(member_size)
            loop = _run("losetup", "--find", "--show", str(image)).strip()
            exits.callback(subprocess.run, ["losetup", "--detach", loop], capture_output=True, check=False)
            loops.append(loop)
        _run("mkfs.btrfs", "--quiet", "--data", level, "--metadata", "raid1", *loops)
        # The kernel remembers the members of a filesystem after it is unmounted, and would find them on reused loops.
        forget = ["btrfs", "device", "scan", "--forget", *loops]
        exits.callback(subprocess.run, forget, capture_output=True, check=False)
        place = setting.folder / name
        place.mkdir()
        exits.callback(server.unmount, place)
        _run("mount", "-t", "btrfs", "-o", ",".join(f"device={loop}" for loop in loops), loops[0], str(place))
        file = place / "disk"
        with file.open("xb") as disk:
            disk.truncate(setting.size)
        return Target(file)

    return Stack(
        name,
        f"kernel btrfs {level} x{members}",
        start,
        {"mkfs.btrfs": "btrfs-progs", "losetup": "mount", "mount": "mount"},
        root="loop devices and mount",
    )


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise NotMeasured(f"{argv[0]} failed: {words}")
    return done.stdout
