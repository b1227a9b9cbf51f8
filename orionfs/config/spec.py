"""What a configuration says, checked and typed.  :mod:`orionfs.config.load` makes it from TOML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from orionfs.array.policies import Consistency
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
#: As many members as mdadm gives to one array; its spares count, too.
MAX_MEMBERS = 384
#: The length of an array's name in an MD superblock.
MAX_NAME = 32
#: In a list of members: nobody is in this slot.  The word is mdadm's.
MISSING = "missing"
#: The level whose members are not combined: each is a file of its own, without any superblock.
JBOD = "jbod"

Truncate = Literal["refuse", "ignore", "discard"]
TRUNCATE: tuple[Truncate, ...] = ("refuse", "ignore", "discard")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySpec:
    """One array.  Sizes are bytes; None means that the configuration leaves it open.

    ``level`` is a key of :data:`orionfs.array.levels.LEVELS`, or :data:`JBOD`.  A member that is the bare name of
    another declared array is that array, and :data:`MISSING` is an empty slot; any other is a backend URL or path,
    relative to :attr:`Spec.folder`.  ``member_size`` matters only when ``orionctl init`` makes the files, and
    ``write_mostly``, ``consistency`` and ``bitmap`` for what is written into new superblocks.  ``policies`` has those
    that are set, by the names of :class:`~orionfs.array.policies.Policies`.

    Some ``[[array]]`` tables stand for several arrays (see :mod:`orionfs.config.expand`).  ``declared_level`` is then
    what the table says, and ``part_of`` the name of the table that an array is only a part of.

    ``line`` is where the table begins in the file (0: not read from a file).
    """

    name: str
    level: str
    members: tuple[str, ...]
    chunk: int | None = None
    layout: str | None = None
    member_size: int | None = None
    spares: tuple[str, ...] = ()
    write_mostly: tuple[str, ...] = ()
    consistency: Consistency | None = None
    bitmap: bool | None = None
    policies: Mapping[str, str | int] = field(default_factory=dict)
    groups: int | None = None
    declared_level: str = ""
    part_of: str = ""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    truncate: Truncate = "refuse"
    read_only: bool = False
    direct: bool = False
    line: int = 0
    member_lines: tuple[int, ...] = ()
    spare_lines: tuple[int, ...] = ()

    @property
    def present(self) -> Iterator[tuple[int, str]]:
        """The members that are named, each with its index: all but the slots that are declared empty."""
        return ((index, member) for index, member in enumerate(self.members) if member != MISSING)

    def line_of_member(self, index: int) -> int:
        """The line on which member *index* is written."""
        return self.member_lines[index] if index < len(self.member_lines) else self.line

    def line_of_spare(self, index: int) -> int:
        """The line on which spare *index* is written."""
        return self.spare_lines[index] if index < len(self.spare_lines) else self.line


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """The ``[mount]`` table: what holds for the mount unless a ``-o`` option or an array says otherwise.

    ``spares`` serve whichever array needs one first.
    """

    allow_other: bool = False
    read_only: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    spares: tuple[str, ...] = ()
    spare_lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SpareSpec:
    """One spare: what it is called, the names of the arrays that it may serve, and where it is written."""

    label: str
    serves: tuple[str, ...]
    line: int = 0

    @property
    def dedicated(self) -> bool:
        """Whether it waits for one array alone."""
        return len(self.serves) == 1


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

    def parts(self, name: str) -> tuple[ArraySpec, ...]:
        """The arrays that the table *name* stands for besides the one of its own name: mostly none."""
        return tuple(array for array in self.arrays if array.part_of == name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ``[[array]]`` tables, in the order of the file: what people call their arrays."""
        return tuple(dict.fromkeys(array.part_of or array.name for array in self.arrays))
