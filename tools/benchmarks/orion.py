"""The stack under test: an OrionFS array of sparse files, mounted by the programs that users run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from orionfs.control.client import ControlClient
from orionfs.control.runtime import find
from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import Company, NotMeasured, Setting, Stack, Target
from orionfs.units import KIB, MIB

CHUNK = 64 * KIB

#: Options of an array with nothing but the dirty mark: no journal, no bitmap.
BARE: dict[str, str | int | bool] = {"consistency": "resync", "bitmap": False}

#: How many of so many members hold data that no other holds.
DATA_MEMBERS: dict[str, Callable[[int], int]] = {
    "raid0": lambda members: members,
    "raid1": lambda members: 1,
    "raid4": lambda members: members - 1,
    "raid5": lambda members: members - 1,
    "raid6": lambda members: members - 2,
    "raid10": lambda members: members // 2,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """An array to measure.  ``options`` are further keys of its ``[[array]]`` table.

    ``spares`` are listed, and as large as members; ``missing`` members are taken away before it is mounted.  Members
    have at least ``member_bytes``, all of them sparse.
    """

    level: str
    members: int
    options: dict[str, str | int | bool] = field(default_factory=dict)
    spares: int = 0
    missing: int = 0
    member_bytes: int = 0

    @property
    def protection(self) -> tuple[str, bool]:
        """What the daemon has to say of its consistency, and whether it has a bitmap."""
        redundant, parity = self.level != "raid0", self.level in ("raid4", "raid5", "raid6")
        consistency = str(self.options.get("consistency", "journal" if parity else "resync" if redundant else ""))
        return consistency, bool(self.options.get("bitmap", redundant and consistency != "ppl"))

    def member_size(self, size: int) -> int:
        """What each member needs so that the array has at least *size* bytes."""
        # What superblock, reserve, bitmap and journal take from each member is less than this.
        needed = size // DATA_MEMBERS[self.level](self.members) + 64 * MIB
        return max(needed - needed % MIB, self.member_bytes)

    def table(self, size: int) -> str:
        """Its ``[[array]]`` table, with the name ``array``."""
        keys: dict[str, object] = {"name": "array", "level": self.level}
        if self.level != "raid1":
            keys["chunk"] = CHUNK
        keys |= {"member_size": self.member_size(size), "members": [member(slot) for slot in range(self.members)]}
        if self.spares:
            keys["spares"] = [member(self.members + number) for number in range(self.spares)]
        # What JSON and TOML write alike is all that is needed here.
        return "[[array]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in (keys | self.options).items())


def member(number: int) -> str:
    """What member or spare *number* is called in a configuration; spares follow the members."""
    return f"members/d{number}.img"


def program(name: str) -> str:
    """The path of our program *name* in this interpreter's environment.  Raises NotMeasured if it is not installed."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise NotMeasured(f"{name} is not installed beside {sys.executable}: run tools/quickstart")
    return str(path)


def make_store(folder: Path, shape: Shape, size: int) -> Path:
    """Make a store of one array, called ``array``, of at least *size* bytes in *folder*; returns the folder.

    Raises NotMeasured, with what orionctl said, if that fails.
    """
    folder.mkdir()
    (folder / "orionfs.toml").write_text(shape.table(size))
    call(program("orionctl"), "init", str(folder))
    for slot in range(shape.missing):
        (folder / member(slot)).unlink()
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


def orion(
    name: str,
    shape: Shape,
    title: str = "",
    *,
    on_disk: bool = False,
    company: Callable[[Target], AbstractContextManager[Company]] | None = None,
) -> Stack:
    """The stack *name*: the array *shape*, mounted; *title* is what is special about it."""

    def start(setting: Setting, exits: ExitStack) -> Target:
        folder = setting.disk if on_disk else setting.folder
        assert folder is not None, "stacks on disk are not started without one"
        store = make_store(folder / f"{name}-store", shape, setting.size)
        place = setting.folder / name
        place.mkdir()
        # In the foreground the daemon is our child: its id is known from the start, and it cannot outlive us unseen.
        argv = [program("mount.orionfs"), str(store), str(place), "-o", "foreground"]
        pid = server.start(argv, place, setting.folder / f"{name}.log", exits)
        file = place / "arrays" / "array"
        if file.stat().st_size < setting.size:
            raise NotMeasured(f"the array has {file.stat().st_size} bytes and {setting.size} are to be measured")
        _check_protection(shape, place)
        return Target(file, (pid,), place)

    words = f"OrionFS {shape.level} x{shape.members}{', ' if title else ''}{title}"
    return Stack(name, words, start, {"fusermount3": "fuse3"}, on_disk=on_disk, company=company)


def _check_protection(shape: Shape, mountpoint: Path) -> None:
    """Raise NotMeasured if what was asked for is not what is there: its figure would be that of something else."""
    with ControlClient.to(find(mountpoint)) as client:
        array = client.call("status")["mounts"][0]["arrays"][0]
    found = array["consistency"], array["bitmap"] is not None
    if found != shape.protection:
        raise NotMeasured(f"consistency and bitmap should be {shape.protection} and are {found}")
