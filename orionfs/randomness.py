"""Seam: randomness.  UUIDs come from here, so that a simulation is reproducible from one integer."""

from __future__ import annotations

import os
from typing import Protocol


class Randomness(Protocol):
    """A source of random bytes."""

    def bytes(self, count: int) -> bytes:
        """*count* random bytes."""


class SystemRandomness:
    """The kernel's."""

    bytes = staticmethod(os.urandom)


def random_uuid(source: Randomness) -> bytes:
    """Sixteen bytes of a version 4 UUID (RFC 9562, section 5.4)."""
    raw = bytearray(source.bytes(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
