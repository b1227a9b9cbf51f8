"""A test filesystem that passes a folder through and sleeps in each write: what a bad disk looks like from above.

python -m tests.campaigns.slow_folder SOURCE MOUNTPOINT SECONDS
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pyfuse3
import trio


class SlowFolder(pyfuse3.Operations):
    """One flat folder of regular files; only what a member needs."""

    def __init__(self, source: Path, delay_s: float) -> None:
        super().__init__()
        self._source = source
        self._delay_s = delay_s
        self._names: dict[int, str] = {}

    def _path(self, inode: int) -> Path:
        return self._source if inode == pyfuse3.ROOT_INODE else self._source / self._names[inode]

    def _entry(self, path: Path) -> pyfuse3.EntryAttributes:
        try:
            found = path.lstat()
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
        entry = pyfuse3.EntryAttributes()
        for name in ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize"):
            setattr(entry, name, getattr(found, name))
        for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns"):
            setattr(entry, name, getattr(found, name))
        entry.st_ino = pyfuse3.ROOT_INODE if path == self._source else found.st_ino + 1
        if entry.st_ino != pyfuse3.ROOT_INODE:
            self._names[entry.st_ino] = path.name
        return entry

    async def getattr(self, inode, ctx=None):
        return self._entry(self._path(inode))

    async def lookup(self, parent_inode, name, ctx=None):
        return self._entry(self._source / os.fsdecode(name))

    async def setattr(self, inode, attr, fields, fh, ctx):
        return self._entry(self._path(inode))

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=os.open(self._path(inode), flags & os.O_ACCMODE))

    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    async def write(self, fh, off, buf):
        await trio.sleep(self._delay_s)
        return os.pwrite(fh, buf, off)

    async def fsync(self, fh, datasync):
        os.fsync(fh)

    async def release(self, fh):
        os.close(fh)

    async def statfs(self, ctx):
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        return data


def main() -> None:
    source, mountpoint, delay_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    pyfuse3.init(SlowFolder(source, delay_s), mountpoint, {*pyfuse3.default_options, "fsname=slow"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
