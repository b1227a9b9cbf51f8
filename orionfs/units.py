"""Sizes, durations and rates: how people write them, how we print them."""

from __future__ import annotations

import re

SECTOR = 512
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_BINARY = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_DECIMAL = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_SIZE = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*(?:([KMGTPE])?(iB|B)?)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str | int) -> int:
    """Bytes in *text*: ``64K``, ``64KiB`` and ``64k`` are binary, ``64kB`` and ``1MB`` decimal, as in truncate(1).

    An integer is bytes already.  Raises ValueError for anything else, for a negative number, and for a fraction that
    is not a whole number of bytes.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is negative")
        return text
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a size (write it like 64KiB or 1.5G)")
    whole, fraction, prefix, suffix = match.groups()
    prefix = (prefix or "").upper()
    unit = 1000 ** _DECIMAL[prefix] if prefix and (suffix or "").upper() == "B" else 1 << _BINARY[prefix]
    size = int(whole) * unit
    if fraction:
        part, rest = divmod(int(fraction) * unit, 10 ** len(fraction))
        if rest:
            raise ValueError(f"{text!r} is not a whole number of bytes")
        size += part
    return size


def format_size(size: int) -> str:
    """*size* bytes with a binary unit and at most one decimal: ``64 KiB``, ``1.5 GiB``, ``512 B``."""
    for prefix in ("E", "P", "T", "G", "M", "K"):
        unit = 1 << _BINARY[prefix]
        if size >= unit:
            tenths = (size * 10 + unit // 2) // unit
            text = str(tenths // 10) if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}"
            return f"{text} {prefix}iB"
    return f"{size} B"


def format_duration(seconds: float) -> str:
    """*seconds* as ``5s``, ``3m12s``, ``2h05m`` or ``4d03h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def format_rate(bytes_per_second: float) -> str:
    """A throughput: ``182 MiB/s``."""
    return f"{format_size(int(bytes_per_second))}/s"


def round_down(value: int, unit: int) -> int:
    """The largest multiple of *unit* that is not above *value*."""
    return value - value % unit


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of *unit* that is not below *value*."""
    return value + -value % unit
