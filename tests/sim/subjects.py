"""Subjects drawn from a seed: every level, with layouts, sizes and settings that vary."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from orionfs.array.levels import LEVELS
from orionfs.units import KIB

from .arrays import PARITY, REDUNDANT, ArraySubject
from .nested import OUTER_DATA, NestedSubject


def draw(seed: int, level: str | None = None, *, spares: int = 0, consistency: str = "") -> Any:
    """A toy array, all of it drawn from *seed* but what is given, with disks for *spares* spares."""
    generator = random.Random(f"subject/{seed}")
    name = level or generator.choice(sorted(LEVELS))
    if name == "raid50":
        return _nested(generator, consistency)
    rules = LEVELS[name]
    count = _count(generator, name)
    layout = generator.choice(_layouts(name, count))
    chunk = generator.choice((4 * KIB, 4 * KIB, 8 * KIB)) if rules.chunked else 0
    block = generator.choice((512, 512, 512, 4096))
    sizes = _sizes(generator, name, chunk, count)
    if name in REDUNDANT:  # the surplus of larger members is not used
        sizes = [size + generator.choice((0, 0, 4 * KIB)) for size in sizes]
    subject = ArraySubject(name, layout, chunk, tuple(sizes), block, spares=spares)
    return replace(subject, **_settings(generator, name, consistency))


def _settings(generator: random.Random, level: str, consistency: str) -> dict[str, Any]:
    """What may be chosen about an array beside its shape."""
    if level not in REDUNDANT:
        return {}
    chosen: dict[str, Any] = {
        "bitmap_chunk": generator.choice((0, 4 * KIB, 8 * KIB)),
        "rebuild_batch": generator.choice((1, 1, 2, 64)),
        "data_offset": generator.choice((128, 128, 160, 256)) * KIB,
    }
    if level in PARITY:
        kinds = ["journal", "journal", "resync"] + ["ppl"] * 2 * (level == "raid5")
        chosen["consistency"] = consistency or generator.choice(kinds)
        chosen["whole_stripes"] = generator.choice(("in-place", "in-place", "journal"))
        chosen["write_policy"] = generator.choice(("back", "back", "through"))
        if chosen["consistency"] == "ppl":
            chosen["bitmap_chunk"] = 0
    return chosen


def _count(generator: random.Random, level: str) -> int:
    counts = {
        "raid1": (2, 2, 3),
        "raid4": (3, 3, 4, 5),
        "raid5": (2, 3, 3, 4, 5),
        "raid6": (4, 4, 5, 6),
        "raid10": (2, 3, 4, 4, 5),
        "raid0": (2, 3),
        "jbod": (1,),
    }
    return generator.choice(counts.get(level, (1, 2, 3)))


def _layouts(level: str, count: int) -> list[str]:
    """The names of the layouts that *count* members can have; one empty name if there is nothing to choose."""
    layouts = LEVELS[level].layouts
    if len(layouts) < 2:
        return [""]
    if level == "raid10":
        return sorted(name for name, number in layouts.items() if (number & 0xFF) * (number >> 8 & 0xFF) <= count)
    return sorted(layouts)


def _sizes(generator: random.Random, level: str, chunk: int, count: int) -> list[int]:
    match level:
        case "raid1":
            return [generator.randrange(5, 36) * 4 * KIB] * count
        case "raid10":
            return [generator.randrange(4, 10) * chunk] * count
        case "raid4" | "raid5" | "raid6":
            return [generator.randrange(3, 9) * chunk] * count
        case "raid0":
            return [generator.randrange(3, 9) * chunk for _ in range(count)]
    return [generator.randrange(3, 9) * 4 * KIB for _ in range(count)]


def _nested(generator: random.Random, consistency: str) -> NestedSubject:
    chunk = generator.choice((4, 8)) * KIB
    count = generator.choice((2, 3, 3))
    layout = generator.choice(sorted(LEVELS["raid5"].layouts))
    # Room for the superblock of the RAID 0 before its data.
    rows = -(-(OUTER_DATA + generator.randrange(3, 9) * chunk) // (chunk * (count - 1)))
    half = ArraySubject("raid5", layout, chunk, (rows * chunk,) * count, disk_letter="a")
    half = replace(half, **_settings(generator, "raid5", consistency))
    return NestedSubject((half, replace(half, disk_letter="b")), generator.choice((4, 8)) * KIB)
