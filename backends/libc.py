"""System calls that the standard library lacks: fallocate(2) with a mode, fstatfs(2) for the filesystem's type."""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE = 0x01  # include/uapi/linux/falloc.h
_PUNCH_HOLE = 0x02

_LIBC = ctypes.CDLL(None, use_errno=True)
# The 64-bit names take a 64-bit off_t on every architecture.
_FALLOCATE = _LIBC.fallocate64
_FALLOCATE.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_FSTATFS = _LIBC.fstatfs64
_FSTATFS.argtypes = [ctypes.c_int, ctypes.c_void_p]


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Deallocate *length* (not 0) bytes at *offset*, which read as zeros from then on; the size stays.

    Takes files and block devices.  Blocks.  Raises OSError: EOPNOTSUPP where there are no holes.
    """
    while _FALLOCATE(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
        _raise_unless_interrupted()


def filesystem_type(descriptor: int) -> int:
    """The ``f_type`` of statfs(2): the magic number of the filesystem on which the open file lies.  Blocks."""
    record = (ctypes.c_long * 64)()  # struct statfs begins with f_type, a long; it is far shorter than this
    while _FSTATFS(descriptor, ctypes.byref(record)) != 0:
        _raise_unless_interrupted()
    return record[0] & 0xFFFFFFFF


def _raise_unless_interrupted() -> None:
    error = ctypes.get_errno()
    if error != errno.EINTR:  # ctypes does not repeat a call by itself, as Python's own calls do
        raise OSError(error, os.strerror(error))
