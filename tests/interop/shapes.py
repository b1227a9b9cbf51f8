"""Shapes: the levels and layouts that the kernel and OrionFS must agree on, by the numbers of the format.

The numbers are written down here once more, beside orionfs/array/levels.py: what is compared with the kernel must not
be taken from what is compared.
"""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20

MD_LEVELS = {"linear": -1, "raid0": 0, "raid1": 1, "raid4": 4, "raid5": 5, "raid6": 6, "raid10": 10}
ROTATIONS = {
    "left-asymmetric": 0,
    "right-asymmetric": 1,
    "left-symmetric": 2,
    "right-symmetric": 3,
    "parity-first": 4,
    "parity-last": 5,
}
RAID6_ONLY = {
    "ddf-zero-restart": 8,
    "ddf-N-restart": 9,
    "ddf-N-continue": 10,
    "left-asymmetric-6": 16,
    "right-asymmetric-6": 17,
    "left-symmetric-6": 18,
    "right-symmetric-6": 19,
    "parity-first-6": 20,
}
COPIES = {"n2": 0x102, "n3": 0x103, "f2": 0x201, "f3": 0x301, "o2": 0x10201, "o3": 0x10301}
LAYOUTS = {
    "raid0": {"original": 1, "alternate": 2},
    "raid5": ROTATIONS,
    "raid6": ROTATIONS | RAID6_ONLY,
    "raid10": COPIES,
}


class Shape(NamedTuple):
    """An array; *sizes* of its members in MiB, *chunk* in KiB.

    With *legs*, that many arrays of this shape are the members of a RAID 0: 50 and 60.
    """

    level: str
    layout: str
    sizes: tuple[int, ...]
    chunk: int = 64
    legs: int = 0

    def __str__(self) -> str:
        layout = f"-{self.layout}" if self.layout else ""
        unequal = "-unequal" if len(set(self.sizes)) > 1 and self.level == "raid0" else ""
        chunk = f"-{self.chunk}k" if self.chunk != 64 else ""
        legs = f"{self.legs}x" if self.legs else ""
        return f"{self.title}{layout}-{legs}{len(self.sizes)}{unequal}{chunk}"

    @property
    def title(self) -> str:
        """The level as people say it: 50 and 60 included."""
        return f"{self.level}0" if self.legs else self.level

    @property
    def members(self) -> int:
        return len(self.sizes) * max(self.legs, 1)

    @property
    def md_level(self) -> int:
        return MD_LEVELS[self.level]

    @property
    def md_layout(self) -> int:
        return LAYOUTS.get(self.level, {}).get(self.layout, 0)

    @property
    def chunked(self) -> bool:
        return self.level not in ("linear", "raid1")

    @property
    def tolerates(self) -> int:
        """How many members may be lost, whichever they are."""
        if self.level == "raid1":
            return len(self.sizes) - 1
        if self.level == "raid10":
            return int(self.layout[1:]) - 1
        return {"raid4": 1, "raid5": 1, "raid6": 2}.get(self.level, 0)

    def mdadm(self) -> str:
        """The options of ``mdadm --create`` that make it, without the members."""
        words = [f"--level {self.level} --raid-devices {len(self.sizes)}"]
        words += [f"--layout {self.layout}"] if self.layout else []
        words += [f"--chunk {self.chunk}"] if self.chunked else []
        return " ".join(words)


def shape(level: str, layout: str, members: int, size: int = 3, **more: int) -> Shape:
    """An array with *members* of *size* MiB each."""
    return Shape(level, layout, (size,) * members, **more)


#: Every level and layout that mdadm can make.
TABLE = [
    Shape("linear", "", (2, 3)),
    shape("raid0", "original", 2),
    Shape("raid0", "original", (2, 3, 4)),
    Shape("raid0", "alternate", (2, 3, 4)),
    shape("raid1", "", 2),
    shape("raid1", "", 3),
    shape("raid4", "", 3),
    *[shape("raid5", layout, 3) for layout in ROTATIONS],
    shape("raid5", "left-symmetric", 4, chunk=4),
    shape("raid6", "left-symmetric", 4, chunk=128),
    *[shape("raid6", layout, 5) for layout in LAYOUTS["raid6"]],
    *[shape("raid10", layout, members) for layout in COPIES for members in (4, 5 if layout[1] == "3" else 3)],
    shape("raid5", "left-symmetric", 3, legs=2),
    shape("raid6", "left-symmetric", 4, legs=2),
]
