"""A pyfuse3 filesystem with one file of zeros, writes dropped: what FUSE and pyfuse3 alone cost, hence the ceiling.

It shares no code with OrionFS, so that nothing of ours is in the ceiling.  Run as a program with three arguments: the
mountpoint, the size of its file ``disk`` in bytes, and the mount options, comma-separated.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

_FILE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)
_NAME = b"disk"


class NullFilesystem(pyfuse3.Operations):
    """One folder, one file of *size* bytes.  Reads give zeros, writes succeed and go nowhere."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        # A slice of the largest request would be copied; the sizes that occur are few, so each is kept.
        self._zeros: dict[int, bytes] = {}

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext | None = None) -> pyfuse3.EntryAttributes:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = pyfuse3.InodeT(inode)
        if inode == pyfuse3.ROOT_INODE:
            attributes.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755)
        else:
            attributes.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600)
            attributes.st_size = self._size
        attributes.attr_timeout = attributes.entry_timeout = 3600
        return attributes

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        if name != _NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(_FILE)

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        return await self.getattr(inode)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        # As OrionFS opens: a file opened with O_DIRECT bypasses the page cache altogether.
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=bool(flags & os.O_DIRECT), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        size = min(size, self._size - off)
        zeros = self._zeros.get(size)
        if zeros is None:
            zeros = bytes(size)
            if len(self._zeros) < 16:
                self._zeros[size] = zeros
        return zeros

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return len(buf)

    async def flush(self, fh: int) -> None:
        return

    async def fsync(self, fh: int, datasync: bool) -> None:
        return


def run() -> None:
    """Mount, serve until unmounted, end."""
    mountpoint, size, options = sys.argv[1:]
    pyfuse3.init(NullFilesystem(int(size)), mountpoint, {*pyfuse3.default_options, *filter(None, options.split(","))})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    run()
