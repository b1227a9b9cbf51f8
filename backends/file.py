"""FileDevice: a sparse file of the host as a device."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import AsyncGenerator

from orionfs.backends import OpenOptions
from orionfs.backends.descriptor import DescriptorDevice
from orionfs.backends.medium import Medium, medium_of
from orionfs.backends.opening import CutShort, Opened, explain_opening, takes_nowait
from orionfs.device import Description, Geometry
from orionfs.environment import Environment
from orionfs.errors import ConfigError, InUse, Refused
from orionfs.extents import Extent, Kind
from orionfs.units import MIB, SECTOR, round_down, round_up

_BLOCKS_OF_DISKS = (SECTOR, 4096)
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_EXTENTS_AT_ONCE = 256
_BRING_BACK = "put a whole copy of it back, or name another file"


class FileDevice(DescriptorDevice):
    """A regular file.  Its size is the device's, and is not changed.

    Holes read as zeros; ``write_zeroes`` and ``discard`` punch them.  The whole file is locked for as long as it is
    open (exclusively, or shared if it is opened read-only), with a lock of the open file description: it goes along
    into a forked daemon, and it also keeps the same process from opening the file under another name.

    :attr:`identity` is (``st_dev``, ``st_ino``): the same for every name of the file.
    """

    def __init__(
        self, opened: Opened, facts: os.stat_result, *, locked: bool, name: str, environment: Environment
    ) -> None:
        super().__init__(opened, name=name, environment=environment)
        self.identity = (facts.st_dev, facts.st_ino)
        self.locked = locked
        self._allocated = facts.st_blocks * 512

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str = "",
        options: OpenOptions | None = None,
        environment: Environment,
    ) -> FileDevice:
        """Open the file *path*, called *name* (by default the path).

        Raises NotFound; AccessRefused or ReadOnly if it may not be read (or written); CutShort if it is empty or not a
        multiple of the sector; ConfigError if it is not a regular file, or not a multiple of what direct I/O takes;
        InUse if somebody holds its lock; Refused if it should be locked and its filesystem has no locks.
        """
        path, chosen = os.fspath(path), options or OpenOptions()
        worker = environment.threads.worker(f"{name or path} open")
        try:
            opened, facts = await worker.run(_open, path, chosen)
        finally:
            worker.close()
        return cls(opened, facts, locked=chosen.lock, name=name or path, environment=environment)

    # --- extents -----------------------------------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        self.check(offset, length)
        end = offset + length
        while offset < end:
            self._check_open("list the extents of")
            try:
                found = await self._reading.run(
                    _find_extents, self._descriptor, offset, end, self._size, self.geometry.logical_block
                )
            except OSError as error:
                raise self._translated(error, f"list the extents of {self.path}") from error
            for extent in found:
                yield extent
            offset = found[-1].end

    def allocated(self) -> int:
        if self.medium is not Medium.REMOTE and self._descriptor >= 0:
            self._allocated = os.fstat(self._descriptor).st_blocks * 512
        return min(self._allocated, self._size)

    def _sync(self, descriptor: int) -> None:
        super()._sync(descriptor)
        if self.medium is Medium.REMOTE:  # fstat may wait there, so it is asked where waiting is done anyway
            self._allocated = os.fstat(descriptor).st_blocks * 512

    def describe(self) -> Description:
        return Description(
            kind="file",
            name=self.name,
            state=self._state(),
            geometry=self.geometry,
            where=self.path,
            counters=self._counts(),
            details={"inline_writes": self.inline_writes, "lock": self.locked, "direct": self.direct},
        )


def _open(path: str, options: OpenOptions) -> tuple[Opened, os.stat_result]:
    """Everything that opening takes and that may block."""
    flags = os.O_RDONLY if options.read_only else os.O_RDWR
    flags |= os.O_CLOEXEC | os.O_NOCTTY
    try:
        _check_kind(path, os.stat(path))  # before it is opened: opening a pipe would wait for its other end
        descriptor = os.open(path, flags | os.O_DIRECT if options.direct else flags)
    except (OSError, ValueError) as error:
        raise explain_opening(error, path, options) from error
    try:
        facts = os.fstat(descriptor)
        _check_kind(path, facts)
        if options.lock:
            _lock(descriptor, path, read_only=options.read_only)
        facts = os.fstat(descriptor)  # the size that nobody who respects the lock will change any more
        return _examine(descriptor, path, facts, options), facts
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise explain_opening(error, path, options) from error
        raise


def _check_kind(path: str, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = _KINDS.get(stat.S_IFMT(facts.st_mode), "something else")
        raise ConfigError(f"{path} is {kind}, not a regular file", hint="name a file or a block device")


_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _lock(descriptor: int, path: str, *, read_only: bool) -> None:
    kind = fcntl.F_RDLCK if read_only else fcntl.F_WRLCK
    whole_file = struct.pack("hhqqi0q", kind, os.SEEK_SET, 0, 0, 0)  # struct flock of fcntl(2); the last is l_pid
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, whole_file)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InUse(
                f"{path} is locked by another program or mount",
                hint=f"`fuser -v {path}` says by which; end that first",
            ) from error
        if error.errno in _NO_LOCKS:
            raise Refused(
                f"{path} cannot be locked, because its filesystem has no locks: {error.strerror}",
                hint="pass no_lock (--no-lock) if you are certain that nobody else uses it",
            ) from error
        raise


def _examine(descriptor: int, path: str, facts: os.stat_result, options: OpenOptions) -> Opened:
    if not facts.st_size:
        raise CutShort(f"{path} is empty", hint=_BRING_BACK)
    if facts.st_size % SECTOR:
        raise CutShort(f"{path} holds {facts.st_size} bytes, which is not a multiple of {SECTOR}", hint=_BRING_BACK)
    block = _direct_block(descriptor, path) if options.direct else SECTOR
    if facts.st_size % block:
        raise ConfigError(
            f"{path} holds {facts.st_size} bytes, which is not a multiple of the {block} that direct I/O takes",
            hint="leave out direct=yes",
        )
    medium = medium_of(descriptor)
    return Opened(
        descriptor=descriptor,
        path=path,
        geometry=Geometry(
            size=facts.st_size,
            logical_block=block,
            preferred_io=min(max(block, facts.st_blksize), MIB),
        ),
        medium=medium,
        read_only=options.read_only,
        direct=options.direct,
        nowait=medium is Medium.LOCAL and not options.direct and takes_nowait(descriptor),
    )


def _direct_block(descriptor: int, path: str) -> int:
    """The alignment that O_DIRECT wants of the file, found by trying."""
    with mmap.mmap(-1, max(_BLOCKS_OF_DISKS)) as page:
        for block in _BLOCKS_OF_DISKS:
            with memoryview(page)[:block] as buffer:
                try:
                    os.preadv(descriptor, [buffer], 0)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                else:
                    return block
    raise ConfigError(f"{path} takes no direct I/O in blocks of up to 4096 bytes", hint="leave out direct=yes")


def _find_extents(descriptor: int, offset: int, end: int, size: int, block: int) -> list[Extent]:
    """The first extents of [offset, end), by SEEK_DATA and SEEK_HOLE, widened to whole blocks of data.  Blocks."""
    found: list[Extent] = []
    position = offset
    while position < end and len(found) < _EXTENTS_AT_ONCE:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a filesystem that does not know its holes
                return [Extent(offset, end - offset, Kind.DATA)]
            if error.errno != errno.ENXIO:
                raise
            data = end  # no data from here to the end of the file
        start = min(round_down(data, block), end)
        if start > position:
            found.append(Extent(position, start - position, Kind.HOLE))
        position = start
        if start < end:
            position = min(round_up(os.lseek(descriptor, data, os.SEEK_HOLE), block), end)
            found.append(Extent(start, position - start, Kind.DATA))
    if os.fstat(descriptor).st_size < size:  # what was cut off looks like a hole, but its data are lost
        raise OSError(errno.EIO, "the file is shorter than when it was opened")
    return found
