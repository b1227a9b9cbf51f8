"""Levels: what each RAID level needs and tolerates, as data.  A new level is one entry here and an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orionfs.array.layout import (
    DDF_N_CONTINUE,
    DDF_N_RESTART,
    DDF_ZERO_RESTART,
    LEFT_ASYMMETRIC,
    LEFT_SYMMETRIC,
    PARITY_FIRST,
    PARITY_LAST,
    Q_LAST,
    RAID0_ALTERNATE,
    RAID0_ORIGINAL,
    RIGHT_ASYMMETRIC,
    RIGHT_SYMMETRIC,
)
from orionfs.array.raid10_layout import CopyCounts, margin_without, split_layout


def _none(members: int) -> int:
    return 0


def _one(members: int) -> int:
    return 1


def _two(members: int) -> int:
    return 2


def _all_but_one(members: int) -> int:
    return members - 1


#: Where the parity of RAID 5 can be, and P of RAID 6; the default first.
_ROTATIONS = {
    "left-symmetric": LEFT_SYMMETRIC,
    "left-asymmetric": LEFT_ASYMMETRIC,
    "right-symmetric": RIGHT_SYMMETRIC,
    "right-asymmetric": RIGHT_ASYMMETRIC,
    "parity-first": PARITY_FIRST,
    "parity-last": PARITY_LAST,
}


#: Copies side by side, in zones far from each other, or in rows offset by one member.  MD knows more of each kind, but
#: hardly anybody else does.
_COPIES = {
    f"{kind}{copies}": counts.number
    for kind in "nfo"
    for copies in (2, 3, 4)
    for counts in [CopyCounts(copies, 1, False) if kind == "n" else CopyCounts(1, copies, kind == "o")]
}


def _copies(layout: int) -> int:
    return split_layout(layout).copies


@dataclass(frozen=True, slots=True)
class Level:
    """One RAID level.

    ``md_level`` is its number in an MD superblock; ``layouts`` maps names to MD's numbers, the first is the default.
    ``tolerates`` says how many of so many members may be lost, whichever they are and whatever the layout; 0 also means
    that the level has no redundancy to sync.  ``survives`` and ``margin`` know more where that matters: they are asked
    with MD's number of the layout, the number of members, and the slots that are gone.  ``maximum_members`` is None
    where the superblock sets the only limit.
    """

    name: str
    md_level: int
    minimum_members: int
    chunked: bool
    tolerates: Callable[[int], int]
    layouts: Mapping[str, int] = field(default_factory=lambda: {"": 0})
    margin_rule: Callable[[int, int, frozenset[int]], int] | None = None
    fewest_rule: Callable[[int], int] | None = None
    maximum_members: int | None = None

    def survives(self, layout: int, members: int, gone: Iterable[int]) -> bool:
        """Whether all data are still there when the members in the slots *gone* are not."""
        return self.margin(layout, members, gone) >= 0

    def margin(self, layout: int, members: int, gone: Iterable[int]) -> int:
        """How many more members may be lost, whichever they are, when those in *gone* are; negative: too many are."""
        lost = frozenset(gone)
        if self.margin_rule is not None:
            return self.margin_rule(layout, members, lost)
        return self.tolerates(members) - len(lost)

    def fewest(self, layout: int) -> int:
        """The fewest members that an array in MD's *layout* may have."""
        return max(self.minimum_members, self.fewest_rule(layout) if self.fewest_rule is not None else 0)

    @property
    def has_parity(self) -> bool:
        """Whether its stripes have parity, which a half-done write leaves wrong for data that it did not touch."""
        return self.md_level in (4, 5, 6)

    @property
    def default_layout(self) -> str:
        """The layout of an array that does not ask for one."""
        return next(iter(self.layouts))

    def layout_name(self, number: int) -> str:
        """The name of MD's layout *number*; empty where the level has only one."""
        return next((name for name, value in self.layouts.items() if value == number), "")


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("linear", -1, 1, False, _none),
        Level("raid0", 0, 2, True, _none, {"original": RAID0_ORIGINAL, "alternate": RAID0_ALTERNATE}),
        Level("raid1", 1, 2, False, _all_but_one),
        Level("raid4", 4, 2, True, _one),
        Level("raid5", 5, 2, True, _one, _ROTATIONS),
        Level(
            "raid6",
            6,
            4,
            True,
            _two,
            _ROTATIONS
            | {
                "ddf-zero-restart": DDF_ZERO_RESTART,
                "ddf-N-restart": DDF_N_RESTART,
                "ddf-N-continue": DDF_N_CONTINUE,
                **{f"{name}-6": Q_LAST + number for name, number in _ROTATIONS.items() if number != PARITY_LAST},
            },
            # The exponents of its data chunks have to differ.
            maximum_members=255,
        ),
        Level("raid10", 10, 2, True, _one, _COPIES, margin_without, _copies),
    )
}

BY_MD_LEVEL: dict[int, Level] = {level.md_level: level for level in LEVELS.values()}
