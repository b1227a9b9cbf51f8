"""Parity arithmetic: XOR at memory speed.

All buffers of one call have the same length, a multiple of 8.  Nothing here allocates more than a view; results go to
buffers of the caller.  Safe to call from any thread: numpy lets go of the interpreter lock for large buffers.

Where a function takes :data:`Cells` it takes a buffer, or what :func:`rows` makes of one; those of one call then have
the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from orionfs.buffers import Buffer

#: Rows of a buffer, as 64-bit words.
Words: TypeAlias = NDArray[np.uint64]
Cells: TypeAlias = Buffer | Words


def words(cells: Cells) -> Words:
    """*cells* as words; copies nothing."""
    return cells if isinstance(cells, np.ndarray) else np.frombuffer(cells, np.uint64)


def rows(buffer: Buffer, width: int, first: int = 0, step: int = 1) -> Words:
    """Every *step*-th row of *width* bytes of *buffer*, from row *first* on; copies nothing."""
    return np.frombuffer(buffer, np.uint64).reshape(-1, width // 8)[first::step]


def xor_into(target: Cells, sources: Sequence[Cells]) -> None:
    """``target ^= source`` for each of *sources*; *target* is writable."""
    result = words(target)
    for source in sources:
        np.bitwise_xor(result, words(source), out=result)


def xor(target: Cells, sources: Sequence[Cells]) -> None:
    """*target* becomes the XOR of *sources* (at least one); it may be the first or the second of them."""
    result = words(target)
    if len(sources) == 1:
        result[:] = words(sources[0])
        return
    np.bitwise_xor(words(sources[0]), words(sources[1]), out=result)
    for source in sources[2:]:
        np.bitwise_xor(result, words(source), out=result)


def xor_rows(target: Buffer, data: Buffer, columns: int, chunk: int) -> None:
    """The parity of whole stripes: *data* is rows of *columns* chunks, *target* gets one chunk for each row."""
    stripes = words(data).reshape(-1, columns, chunk // 8)
    parity = words(target).reshape(-1, chunk // 8)
    if columns == 1:
        parity[:] = stripes[:, 0]
        return
    np.bitwise_xor(stripes[:, 0], stripes[:, 1], out=parity)
    for column in range(2, columns):
        np.bitwise_xor(parity, stripes[:, column], out=parity)


def equal(left: Buffer, right: Buffer) -> bool:
    """Whether the buffers hold the same bytes."""
    return bool(np.array_equal(words(left), words(right)))


def nonzero_rows(buffer: Buffer, chunk: int) -> list[int]:
    """Indexes of the *chunk*-sized rows of *buffer* that are not all zero."""
    return [int(index) for index in np.flatnonzero(rows(buffer, chunk).any(axis=1))]
