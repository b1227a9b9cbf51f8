"""The exception tree: errors are named by what the caller can do about them.

Every error that a user may meet is an :class:`OrionError` whose text is one sentence: what failed, why, and (in
``hint``) what to do next.  :data:`TABLE` is the only place that maps an error to an errno and to an exit code.
"""

from __future__ import annotations

import errno as _errno
from typing import NamedTuple


class OrionError(Exception):
    """Root of every error that OrionFS raises on purpose.

    ``message`` says what failed and why; ``hint``, if not empty, is the next step for the person who reads it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @property
    def errno(self) -> int:
        """The errno that a file operation returns for this error."""
        return outcome_of(type(self)).errno

    @property
    def exit_code(self) -> int:
        """The exit status of a program that ends with this error."""
        return outcome_of(type(self)).exit_code


class DeviceError(OrionError):
    """A device could not carry out a request."""


class MediaError(DeviceError):
    """The medium failed for this range: ask the redundancy."""


class IntegrityError(DeviceError):
    """This copy is provably wrong: use another, and repair it."""


class TransportError(DeviceError):
    """The way to the device failed, not the device: try another path."""


class TimedOut(DeviceError):
    """No answer within the deadline; the request may still take effect."""


class NoSpace(DeviceError):
    """The backing store is full; nothing acknowledged is lost and the request may be repeated once there is space."""


class OutOfRange(DeviceError):
    """The request is not aligned to the logical block, or lies outside the device: a bug of the caller."""


class ReadOnly(DeviceError):
    """The device takes no writes, by configuration or because it latched read-only after an error."""


class ZoneError(DeviceError):
    """The request breaks the rules of the zone."""


class Fenced(DeviceError):
    """Somebody else owns the device now: stop writing."""


class Removed(DeviceError):
    """The device was taken away while it was open: open it again once it is back."""


class Unsupported(DeviceError):
    """The device does not have this operation; ask for another or do without."""


class ConfigError(OrionError):
    """The configuration is wrong.  ``path`` and ``line`` (1-based, 0 if unknown) say where, ``hint`` how to mend it."""

    def __init__(self, message: str, *, hint: str = "", path: str = "", line: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: " if self.path and self.line else f"{self.path}: " if self.path else ""
        return place + super().__str__()


class UsageError(OrionError):
    """The command line does not make sense."""


class NotFound(OrionError):
    """There is no object of that name."""


class Refused(OrionError):
    """Possible, but it would endanger data: the caller has to insist (``--force``), or mend the cause."""


class InUse(Refused):
    """Somebody else holds it (a lock, an open file, a mount): wait, or end that first."""


class NoDaemon(OrionError):
    """No mount answers at that place."""


class AccessRefused(OrionError):
    """The operating system or the owner does not allow it: ask for the permission that the hint names."""


class KeyRefused(OrionError):
    """The key does not open the device."""


class Outcome(NamedTuple):
    """What the outside sees of an error."""

    errno: int
    exit_code: int


#: Exit codes of every program: 0 healthy, 1 degraded or rebuilding, 2 usage, 3 not found, 4 data errors,
#: 5 refused without --force, 6 no daemon, 7 permission or key, 8 I/O or network.
TABLE: dict[type[OrionError], Outcome] = {
    OrionError: Outcome(_errno.EIO, 8),
    DeviceError: Outcome(_errno.EIO, 8),
    MediaError: Outcome(_errno.EIO, 8),
    IntegrityError: Outcome(_errno.EIO, 4),
    TransportError: Outcome(_errno.EIO, 8),
    TimedOut: Outcome(_errno.EIO, 8),
    NoSpace: Outcome(_errno.ENOSPC, 8),
    OutOfRange: Outcome(_errno.EINVAL, 2),
    ReadOnly: Outcome(_errno.EROFS, 5),
    ZoneError: Outcome(_errno.EINVAL, 2),
    Fenced: Outcome(_errno.EIO, 5),
    Removed: Outcome(_errno.ENODEV, 3),
    Unsupported: Outcome(_errno.EOPNOTSUPP, 2),
    ConfigError: Outcome(_errno.EINVAL, 2),
    UsageError: Outcome(_errno.EINVAL, 2),
    NotFound: Outcome(_errno.ENOENT, 3),
    Refused: Outcome(_errno.EPERM, 5),
    InUse: Outcome(_errno.EBUSY, 5),
    NoDaemon: Outcome(_errno.ENOTCONN, 6),
    AccessRefused: Outcome(_errno.EACCES, 7),
    KeyRefused: Outcome(_errno.EACCES, 7),
}


def outcome_of(kind: type[BaseException]) -> Outcome:
    """The row of :data:`TABLE` for *kind* or for its nearest listed ancestor; EIO and 8 for a foreign exception."""
    for ancestor in kind.__mro__:
        row = TABLE.get(ancestor)
        if row is not None:
            return row
    return TABLE[OrionError]


def from_oserror(error: OSError, what: str) -> OrionError:
    """Translate a host error met while doing *what* (``"write to members/d0.img"``) into the tree.

    ENOSPC and EDQUOT become :class:`NoSpace`, EROFS :class:`ReadOnly`, EACCES and EPERM :class:`AccessRefused`,
    ENOENT :class:`NotFound`, EBUSY :class:`InUse`, ETIMEDOUT :class:`TimedOut`; all else is :class:`MediaError`.
    """
    text = f"cannot {what}: {error.strerror or error}"
    kind = _BY_ERRNO.get(error.errno or 0, MediaError)
    return kind(text)


_BY_ERRNO: dict[int, type[OrionError]] = {
    _errno.ENOSPC: NoSpace,
    _errno.EDQUOT: NoSpace,
    _errno.EFBIG: NoSpace,
    _errno.EROFS: ReadOnly,
    _errno.EACCES: AccessRefused,
    _errno.EPERM: AccessRefused,
    _errno.ENOENT: NotFound,
    _errno.EBUSY: InUse,
    _errno.ETIMEDOUT: TimedOut,
}
