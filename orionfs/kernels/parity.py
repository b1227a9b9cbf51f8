"""Parity arithmetic: XOR at memory speed.

All buffers of one call have the same length, a multiple of 8.  Nothing here allocates more than a view; results go to
buffers of the caller.  Safe to call from any thread: numpy lets go of the interpreter lock for large buffers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orionfs.buffers import Buffer

_Words = NDArray[np.uint64]


def _words(buffer: Buffer) -> _Words:
    return np.frombuffer(buffer, np.uint64)


def xor_into(target: Buffer, sources: Sequence[Buffer]) -> None:
    """``target ^= source`` for each of *sources*; *target* is writable."""
    words = _words(target)
    for source in sources:
        np.bitwise_xor(words, _words(source), out=words)


def xor(target: Buffer, sources: Sequence[Buffer]) -> None:
    """*target* becomes the XOR of *sources* (at least one); it may be one of them."""
    words = _words(target)
    if len(sources) == 1:
        words[:] = _words(sources[0])
        return
    np.bitwise_xor(_words(sources[0]), _words(sources[1]), out=words)
    for source in sources[2:]:
        np.bitwise_xor(words, _words(source), out=words)


def xor_rows(target: Buffer, data: Buffer, columns: int, chunk: int) -> None:
    """The parity of whole stripes: *data* is rows of *columns* chunks, *target* gets one chunk for each row."""
    rows = _words(data).reshape(-1, columns, chunk // 8)
    parity = _words(target).reshape(-1, chunk // 8)
    if columns == 1:
        parity[:] = rows[:, 0]
        return
    np.bitwise_xor(rows[:, 0], rows[:, 1], out=parity)
    for column in range(2, columns):
        np.bitwise_xor(parity, rows[:, column], out=parity)


def equal(left: Buffer, right: Buffer) -> bool:
    """Whether the buffers hold the same bytes."""
    return bool(np.array_equal(_words(left), _words(right)))


def nonzero_rows(buffer: Buffer, chunk: int) -> list[int]:
    """Indexes of the *chunk*-sized rows of *buffer* that are not all zero."""
    rows = _words(buffer).reshape(-1, chunk // 8)
    return [int(index) for index in np.flatnonzero(rows.any(axis=1))]
