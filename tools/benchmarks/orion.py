"""The stack under test: an OrionFS array of sparse files, mounted by the programs that users run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import NotMeasured, Setting, Stack, Target
from orionfs.units import KIB, MIB

CHUNK = 64 * KIB


def program(name: str) -> str:
    """The path of our program *name* in this interpreter's environment.  Raises NotMeasured if it is not installed."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise NotMeasured(f"{name} is not installed beside {sys.executable}: run tools/quickstart")
    return str(path)


def make_store(folder: Path, level: str, members: int, size: int) -> Path:
    """Make a store of one array, called ``array``, of at least *size* bytes in *folder*; returns the folder.

    Raises NotMeasured, with what orionctl said, if that fails.
    """
    data_members = members - 1 if level == "raid5" else members
    # What the superblock and its reserve take from each member is mdadm's rule and less than this.
    member_size = size // data_members + 64 * MIB
    member_size -= member_size % MIB
    names = ", ".join(f'"members/d{index}.img"' for index in range(members))
    folder.mkdir()
    (folder / "orionfs.toml").write_text(
        f'[[array]]\nname = "array"\nlevel = "{level}"\nchunk = {CHUNK}\n'
        f"member_size = {member_size}\nmembers = [{names}]\n"
    )
    call(program("orionctl"), "init", str(folder))
    return folder


def call(*argv: str) -> str:
    """Run *argv* and return what it prints.  Raises NotMeasured, with its last words, if it fails."""
    # A session of its own, as for servers: Ctrl-C must not end a mount half-way.
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, start_new_session=True
    )
    if done.returncode:
        words = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise NotMeasured(f"{Path(argv[0]).name} failed: {words}")
    return done.stdout


def orion(level: str, members: int) -> Stack:
    """The stack for *level*, ``raid0`` or ``raid5``, over *members* sparse files."""
    name = f"orionfs-{level}"

    def start(setting: Setting, exits: ExitStack) -> Target:
        store = make_store(setting.folder / f"{name}-store", level, members, setting.size)
        place = setting.folder / name
        place.mkdir()
        # In the foreground the daemon is our child: its id is known from the start, and it cannot outlive us unseen.
        argv = [program("mount.orionfs"), str(store), str(place), "-o", "foreground"]
        pid = server.start(argv, place, setting.folder / f"{name}.log", exits)
        file = place / "arrays" / "array"
        if file.stat().st_size < setting.size:
            raise NotMeasured(f"the array has {file.stat().st_size} bytes and {setting.size} are to be measured")
        return Target(file, (pid,), place)

    return Stack(name, f"OrionFS {level} x{members}", start, {"fusermount3": "fuse3"})
