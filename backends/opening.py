"""Opening: what is found out about a file or block device when it is opened, or why it was not."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from orionfs.backends import OpenOptions
from orionfs.backends.medium import Medium
from orionfs.device import Geometry
from orionfs.errors import (
    AccessRefused,
    ConfigError,
    InUse,
    MediaError,
    NotFound,
    OrionError,
    ReadOnly,
    from_oserror,
)


class CutShort(MediaError):
    """The file has a size that no device can have: what was a member once has lost its end, or everything.

    Apart from other failures of opening, for an array may start without such a member: it is not the same with a
    process that ran out of descriptors, which would make good members stale.
    """


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file or block device, and what was found out about it."""

    descriptor: int
    path: str
    geometry: Geometry
    medium: Medium
    read_only: bool = False
    direct: bool = False  # opened with O_DIRECT
    nowait: bool = False  # takes RWF_NOWAIT


def takes_nowait(descriptor: int) -> bool:
    """Whether reads of the open file may ask not to wait (RWF_NOWAIT).  Does not wait itself."""
    try:
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def explain_opening(error: OSError | ValueError, path: str, options: OpenOptions) -> OrionError:
    """Why *path* could not be opened, and what to do."""
    if isinstance(error, ValueError):  # a zero byte
        return ConfigError(f"{path!r} is not a path: {error}")
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return NotFound(
                f"there is no file {path}",
                hint="check the path; OrionFS never makes a missing member, because an empty one is not the same",
            )
        case errno.EACCES | errno.EPERM if not options.read_only and os.access(path, os.R_OK, effective_ids=True):
            return AccessRefused(
                f"{path} may be read but not written: {error.strerror}",
                hint="mount it read-only (-o ro), or give this user the right to write it",
            )
        case errno.EACCES | errno.EPERM:
            return AccessRefused(
                f"{path} may not be opened: {error.strerror}",
                hint="give this user the right to read it and to search the folders above it",
            )
        case errno.EROFS:
            return ReadOnly(f"{path} lies on a read-only filesystem", hint="mount it read-only (-o ro)")
        case errno.ETXTBSY:
            return InUse(f"{path} is in use by the kernel (a running program or a swap file)")
        case errno.ELOOP | errno.ENAMETOOLONG:
            return ConfigError(f"{path} is not a usable path: {error.strerror}", hint="check the path")
        case errno.EINVAL if options.direct:
            return ConfigError(f"the filesystem of {path} has no direct I/O", hint="leave out direct=yes")
        case _:
            return from_oserror(error, f"open {path}")
