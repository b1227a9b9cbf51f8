"""Pattern: what arrays are filled with in both worlds.  Each block of 4 KiB begins with its own number.

The same bytes are a disk of the virtual machine, for dd to copy from: a virtual PC makes them too slowly.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np

BLOCK = 4096
#: Arrays are filled in units of this, from a place of their own in the pattern.
STEP = 64 << 10
SIZE = 72 << 20


@cache
def pattern() -> bytes:
    """The whole pattern."""
    noise = bytearray(random.Random("pattern").randbytes(SIZE))
    np.frombuffer(noise, "<u8").reshape(-1, BLOCK // 8)[:, 0] = np.arange(SIZE // BLOCK)
    return bytes(noise)


class Writes:
    """What is written to one array, and what the array holds then.

    Each write takes the next part of the pattern, from *start* (a number of steps) on.  The methods that write return
    the command that does the same in the machine, where ``$md`` is the array, ``$size`` its bytes and ``$source`` the
    disk with the pattern.
    """

    def __init__(self, start: int) -> None:
        self._next = start
        self._done: list[tuple[int, int, int]] = []  # bytes: where, from where, how many (0: all)

    def whole(self) -> str:
        """Fill the array from end to end."""
        first = self._take(1)
        self._done.append((0, first * STEP, 0))
        return f"dd if=$source of=$md bs={STEP} skip={first} count=$((size / {STEP})) conv=fsync"

    def blocks(self, at: int, count: int = 1) -> str:
        """Write *count* blocks of 4 KiB from block *at* of the array on."""
        first = self._take(-(-count * BLOCK // STEP)) * STEP // BLOCK
        self._done.append((at * BLOCK, first * BLOCK, count * BLOCK))
        return f"dd if=$source of=$md bs={BLOCK} skip={first} seek={at} count={count} oflag=direct conv=notrunc"

    def _take(self, steps: int) -> int:
        first = self._next
        self._next += steps
        return first

    def expected(self, size: int) -> bytes:
        """What an array of *size* bytes holds after all of that."""
        content = bytearray(size)
        self.over(content)
        return bytes(content)

    def over(self, content: bytearray) -> None:
        """The same over what the array held before."""
        for at, first, count in self._done:
            count = count or len(content)
            content[at : at + count] = pattern()[first : first + count]


def difference(found: bytes, expected: bytes) -> str:
    """Where two contents part, by the numbers of their blocks; empty if they do not."""
    if found == expected:
        return ""
    if len(found) != len(expected):
        return f"{len(found)} bytes instead of {len(expected)}"
    places = [at for at in range(0, len(found), BLOCK) if found[at : at + BLOCK] != expected[at : at + BLOCK]]
    first = places[0]
    got, wanted = (int.from_bytes(content[first : first + 8], "little") for content in (found, expected))
    text = f"number {got}" if got < SIZE // BLOCK else "none of the pattern"
    return f"{len(places)} blocks differ, the first at byte {first}: {text} instead of number {wanted}"
