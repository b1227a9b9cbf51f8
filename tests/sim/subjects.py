"""Subjects drawn from a seed: every level, with layouts, sizes and settings that vary."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from orionfs.array.levels import LEVELS
from orionfs.units import KIB

from .arrays import REDUNDANT, ArraySubject
from .nested import OUTER_DATA, NestedSubject


def draw(seed: int, level: str | None = None, *, spares: int = 0) -> Any:
    """A toy array, all of it drawn from *seed*, with disks for *spares* spares."""
    generator = random.Random(f"subject/{seed}")
    name = level or generator.choice(sorted(LEVELS))
    if name == "raid50":
        return _nested(generator)
    rules = LEVELS[name]
    layout = generator.choice(sorted(rules.layouts)) if len(rules.layouts) > 1 else ""
    chunk = generator.choice((4 * KIB, 4 * KIB, 8 * KIB)) if rules.chunked else 0
    block = generator.choice((512, 512, 512, 4096))
    sizes = _sizes(generator, name, chunk)
    if name in REDUNDANT:  # the surplus of larger members is not used
        sizes = [size + generator.choice((0, 0, 4 * KIB)) for size in sizes]
    return ArraySubject(name, layout, chunk, tuple(sizes), block, spares=spares)


def _sizes(generator: random.Random, level: str, chunk: int) -> list[int]:
    match level:
        case "raid1":
            return [generator.randrange(5, 36) * 4 * KIB] * generator.choice((2, 2, 3))
        case "raid4" | "raid5":
            count = generator.choice((2, 3, 3, 4, 5))
            return [generator.randrange(3, 9) * chunk] * max(count, LEVELS[level].minimum_members)
        case "raid6":
            return [generator.randrange(3, 8) * chunk] * generator.choice((4, 4, 5, 6))
        case "raid10":
            return [generator.randrange(4, 10) * chunk] * generator.choice((2, 3, 4, 4, 5))
        case "raid0":
            return [generator.randrange(3, 9) * chunk for _ in range(generator.choice((2, 3)))]
    return [generator.randrange(3, 9) * 4 * KIB for _ in range(generator.choice((1, 2, 3)))]


def _nested(generator: random.Random) -> NestedSubject:
    chunk = generator.choice((4, 8)) * KIB
    count = generator.choice((2, 3, 3))
    layout = generator.choice(sorted(LEVELS["raid5"].layouts))
    # Room for the superblock of the RAID 0, and as far as its data.
    rows = -(-(OUTER_DATA + generator.randrange(3, 9) * chunk) // (chunk * (count - 1)))
    half = ArraySubject("raid5", layout, chunk, (rows * chunk,) * count, disk_letter="a")
    return NestedSubject((half, replace(half, disk_letter="b")), generator.choice((4, 8)) * KIB)
