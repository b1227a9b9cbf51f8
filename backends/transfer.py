"""Whole transfers: preadv(2) and pwritev(2) repeated until every byte is done.  All of it blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from orionfs.buffers import Buffer, total_length, window

#: How many buffers one call takes (UIO_MAXIOV).
IOV_MAX = 1024


def read_all(descriptor: int, offset: int, buffers: Sequence[Buffer]) -> int:
    """Fill *buffers* from *offset* on; the bytes done, which are fewer only where the file ends.  Raises OSError."""
    total = total_length(buffers)
    done = 0
    while done < total:
        moved = os.preadv(descriptor, _rest(buffers, done, total), offset + done)
        if not moved:
            break
        done += moved
    return done


def write_all(descriptor: int, offset: int, buffers: Sequence[Buffer], done: int = 0) -> None:
    """Write *buffers* to *offset* and on; their first *done* bytes are written already.  Raises OSError."""
    total = total_length(buffers)
    while done < total:
        moved = os.pwritev(descriptor, _rest(buffers, done, total), offset + done)
        if not moved:
            raise OSError(errno.EIO, "the kernel wrote nothing and gave no reason")
        done += moved


def _rest(buffers: Sequence[Buffer], done: int, total: int) -> Sequence[Buffer]:
    rest = window(buffers, done, total - done) if done else buffers
    return rest if len(rest) <= IOV_MAX else rest[:IOV_MAX]
