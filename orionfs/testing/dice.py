"""Dice: everything that looks like chance in a test, from one integer."""

from __future__ import annotations

import hashlib


class Dice:
    """The same *seed* gives the same sequence, on every machine and every release of Python."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rolls = 0

    def bytes(self, count: int) -> bytes:
        """*count* bytes."""
        self._rolls += 1
        return hashlib.shake_128(f"{self._seed}/{self._rolls}".encode()).digest(count)

    def below(self, limit: int) -> int:
        """One of the integers from 0 up to, not including, *limit*."""
        return int.from_bytes(self.bytes(8), "little") % limit
