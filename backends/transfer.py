"""Whole transfers: preadv(2) and pwritev(2) repeated until every byte is done.  All of it blocks."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence

from orionfs.backends.libc import punch_hole
from orionfs.buffers import PAGE, Buffer, total_length, window
from orionfs.units import round_down, round_up

#: How many buffers one call takes (UIO_MAXIOV).
IOV_MAX = 1024
_CHECK_STEP = 1 << 20


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


def punch_pages(descriptor: int, offset: int, length: int) -> None:
    """Punch a hole that leaves out pages which the range covers in part.  Raises OSError.

    Of such a page the kernel zeroes its own cached copy, even if a server behind it kept the contents: they would come
    back when the page is read again.
    """
    first, last = round_up(offset, PAGE), round_down(offset + length, PAGE)
    if first < last:
        punch_hole(descriptor, first, last - first)


def zero_and_check(descriptor: int, offset: int, length: int) -> None:
    """Make the range read as zeros, by a hole as far as that holds and by writing where not.  Raises OSError.

    For filesystems whose server may take a hole for mere advice, as the FUSE export of QEMU 7 does.
    """
    punch_pages(descriptor, offset, length)
    end = offset + length
    with mmap.mmap(-1, _CHECK_STEP) as memory, mmap.mmap(-1, _CHECK_STEP) as nothing:  # aligned, as O_DIRECT wants
        while offset < end:
            stop = min(round_up(offset + 1, PAGE) if offset % PAGE else offset + _CHECK_STEP, end)
            if offset % PAGE == 0 and stop % PAGE and stop - offset > PAGE:
                stop = round_down(stop, PAGE)  # the last page is written, and the hole before it stays
            with memoryview(memory)[: stop - offset] as found, memoryview(nothing)[: stop - offset] as zeros:
                if read_all(descriptor, offset, [found]) != stop - offset or found != zeros:
                    write_all(descriptor, offset, [zeros])
            offset = stop


def _rest(buffers: Sequence[Buffer], done: int, total: int) -> Sequence[Buffer]:
    rest = window(buffers, done, total - done) if done else buffers
    return rest if len(rest) <= IOV_MAX else rest[:IOV_MAX]
