"""BlockDevice: a block device of the kernel (a disk, a partition, a loop device) as a member."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from orionfs.backends import OpenOptions
from orionfs.backends.descriptor import DescriptorDevice
from orionfs.backends.medium import Medium
from orionfs.backends.opening import Opened, explain_opening, takes_nowait
from orionfs.device import Description, Geometry
from orionfs.environment import Environment
from orionfs.errors import ConfigError, InUse, OrionError, ReadOnly
from orionfs.units import MIB, round_down

# include/uapi/linux/fs.h
_BLKROGET = 0x125E
_BLKSSZGET = 0x1268
_BLKIOOPT = 0x1279
_BLKZEROOUT = 0x127F


class BlockDevice(DescriptorDevice):
    """A block device, opened exclusively: not while it is mounted, in an array, or open in the same way elsewhere.

    A size that is not a multiple of ``logical_block`` does not exist here, and there are no locks: the kernel itself
    keeps others out.  ``discard`` releases with a promise of zeros (PUNCH_HOLE) or not at all; BLKDISCARD would leave
    undefined contents on some disks.

    :attr:`identity` is ("block", ``st_rdev``): the same for every name of the device.
    """

    def __init__(self, opened: Opened, number: int, *, name: str, environment: Environment) -> None:
        super().__init__(opened, name=name, environment=environment)
        self.identity = ("block", number)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        options: OpenOptions | None = None,
        environment: Environment,
    ) -> BlockDevice:
        """Open the block device *path*, called *name* (by default the path).

        Raises NotFound, AccessRefused, ReadOnly (it takes no writes), InUse (by the kernel or another program), and
        ConfigError if it is no block device or has no size.
        """
        path = os.fspath(path)
        worker = environment.threads.worker(f"{name or path} open")
        try:
            opened, number = await worker.run(_open, path, options or OpenOptions())
        finally:
            worker.close()
        return cls(opened, number, name=name or path, environment=environment)

    async def _fill_zeroes(self, offset: int, length: int) -> None:
        await self._reshape(_zero_out, offset, length)

    def describe(self) -> Description:
        return Description(
            kind="block",
            name=self.name,
            state=self._state(),
            geometry=self.geometry,
            where=self.path,
            counters=self._counts(),
            details={"inline_writes": self.inline_writes, "lock": True, "direct": self.direct},
        )


def _open(path: str, options: OpenOptions) -> tuple[Opened, int]:
    flags = os.O_RDONLY if options.read_only else os.O_RDWR
    flags |= os.O_EXCL | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_DIRECT if options.direct else flags)
    except (OSError, ValueError) as error:
        raise _explain(error, path, options) from error
    try:
        return _examine(descriptor, path, options), os.fstat(descriptor).st_rdev
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise _explain(error, path, options) from error
        raise


def _examine(descriptor: int, path: str, options: OpenOptions) -> Opened:
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        raise ConfigError(f"{path} is not a block device")
    if _ask(descriptor, _BLKROGET) and not options.read_only:
        raise ReadOnly(f"{path} takes no writes", hint="mount it read-only (-o ro), or see blockdev --setrw")
    block = _ask(descriptor, _BLKSSZGET)
    size = round_down(os.lseek(descriptor, 0, os.SEEK_END), block)
    if not size:
        raise ConfigError(f"{path} has no size", hint="there may be no medium in it, or nothing attached to it")
    best = _ask(descriptor, _BLKIOOPT)
    return Opened(
        descriptor=descriptor,
        path=path,
        geometry=Geometry(
            size=size, logical_block=block, preferred_io=min(max(best, block, 4096), MIB), atomic_write=block
        ),
        medium=Medium.LOCAL,
        read_only=options.read_only,
        direct=options.direct,
        nowait=not options.direct and takes_nowait(descriptor),
    )


def _ask(descriptor: int, request: int) -> int:
    """The answer of an ioctl that returns an int."""
    answer: int = struct.unpack("i", fcntl.ioctl(descriptor, request, bytes(4)))[0]
    return answer


def _zero_out(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel write zeros, with the help of the disk if it has any.  Blocks."""
    fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", offset, length))


def _explain(error: OSError | ValueError, path: str, options: OpenOptions) -> OrionError:
    if isinstance(error, OSError):
        if error.errno == errno.EBUSY:
            return InUse(
                f"{path} is in use by the kernel: it is mounted, part of an array, or opened by another program",
                hint=f"`lsblk {path}` and `fuser -v {path}` say by what; end that first",
            )
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOMEDIUM):
            return ConfigError(f"{path} has no device or medium behind it: {error.strerror}")
    return explain_opening(error, path, options)
