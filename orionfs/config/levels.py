"""The levels that a configuration can ask for: those of one array, and those that stand for several."""

from __future__ import annotations

from orionfs.array.levels import LEVELS, Level
from orionfs.config.spec import JBOD

#: Levels that are a RAID 0 over arrays of another level, with that level.
NESTED: dict[str, str] = {"raid50": "raid5", "raid60": "raid6"}

#: RAID 1E is MD's RAID 10 with two near copies, on an odd number of members.
RAID1E = "raid1e"
_RAID10 = "raid10"
_NEAR_2 = 0x102

#: Other ways to write a level.
LEVEL_ALIASES: dict[str, str] = {
    "0": "raid0",
    "stripe": "raid0",
    "striped": "raid0",
    "1": "raid1",
    "mirror": "raid1",
    "1e": RAID1E,
    "4": "raid4",
    "5": "raid5",
    "6": "raid6",
    "10": _RAID10,
    "50": "raid50",
    "60": "raid60",
}

#: Levels that the design has, whether this release does or not.
_DESIGNED = frozenset(
    {_RAID10, RAID1E, *NESTED}
    | {f"raid{level}" for level in ("4", "5e", "6", "z1", "z2", "z3")}
    | {"5e", "z1", "z2", "z3"}
)


def level_names() -> list[str]:
    """Every level that this release has."""
    names = list(LEVELS)
    if RAID1E not in names and _RAID10 in LEVELS:
        names.append(RAID1E)
    return [*names, *(name for name, inner in NESTED.items() if inner in LEVELS), JBOD]


def comes_later(name: str) -> bool:
    """Whether *name* is a level that is designed and that this release does not have."""
    text = LEVEL_ALIASES.get(name.lower(), name.lower())
    return text in _DESIGNED and text not in level_names()


def normal_level(value: object) -> str | None:
    """The level that *value* (``"raid5"``, ``"5"``, ``5``, ``"mirror"``) means; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).lower()
    text = LEVEL_ALIASES.get(text, text)
    return text if text in level_names() else None


def base_of(name: str) -> Level | None:
    """The level of the arrays that have superblocks with redundancy or chunks: of the inner ones where it is nested.

    None for jbod, which has none.
    """
    if name == JBOD:
        return None
    return LEVELS[NESTED.get(name, _RAID10 if name == RAID1E and RAID1E not in LEVELS else name)]


def redundant(name: str) -> bool:
    """Whether an array of level *name* can lose a member at all."""
    base = base_of(name)
    return base is not None and base.tolerates(max(base.minimum_members, 2)) > 0


def minimum_members(name: str) -> int:
    """The fewest members of one array; of each group where it is nested."""
    base = base_of(name)
    if base is None:
        return 1
    return 3 if name == RAID1E else base.minimum_members


def layouts_of(name: str) -> list[str]:
    """The layouts that one can choose; empty if there is no choice."""
    base = base_of(name)
    if base is None or name == RAID1E:
        return []
    return [layout for layout in base.layouts if layout]


def fixed_layout(name: str) -> str | None:
    """The layout that the level itself decides; None if it decides none."""
    if name == RAID1E and RAID1E not in LEVELS:
        return LEVELS[_RAID10].layout_name(_NEAR_2)
    return None


def has_parity(name: str) -> bool:
    """Whether its stripes have parity, so that a cut between two writes of one stripe is to be guarded against."""
    base = base_of(name)
    return base is not None and base.name in ("raid4", "raid5", "raid6")
