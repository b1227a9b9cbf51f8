"""Checksums over buffers, at memory speed."""

from __future__ import annotations

import google_crc32c

from orionfs.buffers import Buffer


def crc32c(buffer: Buffer, value: int = 0) -> int:
    """The CRC-32C (Castagnoli; reflected, start and end inverted) of what *value* is that of, followed by *buffer*."""
    # The library takes bytes alone; the copy costs a fraction of the sum.
    data = buffer if isinstance(buffer, bytes) else bytes(buffer)
    checksum: int = google_crc32c.extend(value, data)
    return checksum
