"""Policies: what an administrator may choose about a running array, and change while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orionfs.errors import UsageError
from orionfs.units import MIB, parse_size

ReadPolicy = Literal["adaptive", "round-robin", "nearest"]
WritePolicy = Literal["back", "through"]
SparePolicy = Literal["auto", "manual"]
Consistency = Literal["journal", "ppl", "resync"]
WholeStripes = Literal["in-place", "journal"]

#: The values of those that are one of several words; the first is the default.
CHOICES: dict[str, tuple[str, ...]] = {
    "read_policy": ("adaptive", "round-robin", "nearest"),
    "write_policy": ("back", "through"),
    "spare_policy": ("auto", "manual"),
    "whole_stripes": ("in-place", "journal"),
}
#: Those that are sizes, with the least that each may be; rates are per second.
SIZES: dict[str, int] = {"stripe_cache": MIB, "rebuild_floor": 0, "rebuild_ceiling": 0}
#: Those that are plain counts, with the least.
COUNTS: dict[str, int] = {"max_read_errors": 1}


@dataclass(slots=True)
class Policies:
    """Sizes are bytes, rates bytes of member data per second.

    ``read_policy``: which copy of a mirror serves a read.  ``write_policy``: ``back`` returns from a write as soon as
    the journal has it, ``through`` when the members have it too; without a journal every write goes through.
    ``whole_stripes``: whether writes of whole stripes go to the journal too, or straight to the members.
    ``stripe_cache``: how much the journal may keep in memory.  ``rebuild_floor`` and ``rebuild_ceiling`` bound what a
    background job moves beside foreground requests; a ceiling of 0 is none.  ``spare_policy``: whether spares take
    over by themselves.  A member with more than ``max_read_errors`` corrected read errors within an hour is failed.
    """

    read_policy: ReadPolicy = "adaptive"
    write_policy: WritePolicy = "back"
    whole_stripes: WholeStripes = "in-place"
    spare_policy: SparePolicy = "auto"
    stripe_cache: int = 16 * MIB
    rebuild_floor: int = 10 * MIB
    rebuild_ceiling: int = 0
    max_read_errors: int = 20

    def change(self, name: str, value: str) -> None:
        """Set *name* to what *value* says.  Raises :class:`UsageError` and changes nothing if it may not be."""
        setattr(self, name, parse_policy(name, value))


def parse_policy(name: str, value: str) -> Any:
    """The value of policy *name* that the text *value* stands for.  Raises :class:`UsageError`."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise UsageError(f"{name} cannot be {value!r}", hint=f"it is one of {', '.join(CHOICES[name])}")
        return value
    if name in SIZES:
        try:
            size = parse_size(value)
        except ValueError as error:
            raise UsageError(f"{name}: {error}", hint='write a size such as "64MiB"') from None
        least = SIZES[name]
        if size < least:
            raise UsageError(f"{name} cannot be less than {least} bytes", hint='write a size such as "64MiB"')
        return size
    if name in COUNTS:
        if not value.isdecimal() or int(value) < COUNTS[name]:
            raise UsageError(f"{name} is a whole number of at least {COUNTS[name]}", hint="write it in digits")
        return int(value)
    known = ", ".join([*CHOICES, *SIZES, *COUNTS])
    raise UsageError(f"there is no policy {name!r}", hint=f"there is: {known}")
