"""What a configuration says, checked and typed.  :mod:`orionfs.config.load` makes it from TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orionfs.units import KIB, MIB

#: The file that a folder must hold to be a spec.
SPEC_NAME = "orionfs.toml"
#: What the daemon itself must remember lives in this folder beside the file.
STATE_FOLDER = "state"

DEFAULT_CHUNK = 64 * KIB
MIN_CHUNK = 4 * KIB
MAX_CHUNK = 1024 * MIB
#: An MD superblock puts data no nearer to the start of a member than 1 MiB; below this nothing useful is left.
MIN_MEMBER_SIZE = 2 * MIB
MEMBER_SIZE_UNIT = 4 * KIB
#: More arrays than anyone mounts at one place; it also bounds how deep they can be nested.
MAX_ARRAYS = 256
#: As many members as mdadm gives to one array.
MAX_MEMBERS = 384
#: The length of an array's name in an MD superblock.
MAX_NAME = 32

Truncate = Literal["refuse", "ignore", "discard"]
TRUNCATE: tuple[Truncate, ...] = ("refuse", "ignore", "discard")


#: Other ways to write a level.
LEVEL_ALIASES: dict[str, str] = {
    "0": "raid0",
    "stripe": "raid0",
    "striped": "raid0",
    "1": "raid1",
    "mirror": "raid1",
    "5": "raid5",
}

#: Levels that the design has and this release does not.
LATER_LEVELS = frozenset(
    {"jbod"}
    | {f"raid{level}" for level in ("1e", "4", "5e", "6", "10", "50", "60", "z1", "z2", "z3")}
    | {"1e", "4", "5e", "6", "10", "50", "60", "z1", "z2", "z3"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One ``[[array]]``.  Sizes are bytes; None means that the configuration leaves it open.

    ``level`` is a key of :data:`orionfs.array.levels.LEVELS`.  A member that is the bare name of another declared array
    is that array; any other is a backend URL or path, relative to :attr:`Spec.folder`.  ``member_size`` matters only
    when ``orionctl init`` makes the files.  ``line`` is where the table begins in the file (0: not read from a file).
    """

    name: str
    level: str
    members: tuple[str, ...]
    chunk: int | None = None
    layout: str | None = None
    member_size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    truncate: Truncate = "refuse"
    read_only: bool = False
    direct: bool = False
    line: int = 0
    member_lines: tuple[int, ...] = ()

    def line_of_member(self, index: int) -> int:
        """The line on which member *index* is written."""
        return self.member_lines[index] if index < len(self.member_lines) else self.line


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """The ``[mount]`` table: what holds for the mount unless a ``-o`` option or an array says otherwise."""

    allow_other: bool = False
    read_only: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """One configuration: ``path`` is the file, ``folder`` what relative paths are relative to; both absolute."""

    path: Path
    folder: Path
    arrays: tuple[ArraySpec, ...]
    mount: MountSpec = field(default_factory=MountSpec)

    @property
    def state_folder(self) -> Path:
        """Where the daemon keeps what it must remember about this configuration."""
        return self.folder / STATE_FOLDER

    def array(self, name: str) -> ArraySpec | None:
        """The array called *name*."""
        return next((array for array in self.arrays if array.name == name), None)
