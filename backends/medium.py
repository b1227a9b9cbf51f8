"""Medium: what a file is kept on, as far as that decides which thread may touch it."""

from __future__ import annotations

import enum

from orionfs.backends.libc import filesystem_type


class Medium(enum.Enum):
    """How long a call on a file may take."""

    MEMORY = "memory"  # never waits: the page cache is all there is
    LOCAL = "local"  # waits for a disk of this machine, unless the page cache serves it
    REMOTE = "remote"  # may wait for a server or another process, for as long as that pleases


#: Numbers from statfs(2) and include/uapi/linux/magic.h of Linux 6.
_MEMORY = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
_REMOTE = frozenset(
    {
        0x65735546,  # fuse, virtiofs
        0x00006969,  # nfs
        0xFF534D42,  # cifs
        0xFE534D42,  # smb2
        0x0000517B,  # smb
        0x01021997,  # 9p
        0x00C36400,  # ceph
        0x5346414F,  # afs (kernel)
        0x6B414653,  # afs (rxrpc)
        0x73757245,  # coda
        0x0000564C,  # ncp
        0x01161970,  # gfs2
        0x7461636F,  # ocfs2
        0x0BD00BD0,  # lustre
        0x47504653,  # gpfs
        0x20030528,  # orangefs
        0x19830326,  # beegfs
        0xAAD7AAEA,  # panfs
        0x786F4256,  # vboxsf
        0x00000187,  # autofs
    }
)


def medium_of(descriptor: int) -> Medium:
    """The medium of an open file.  Blocks."""
    magic = filesystem_type(descriptor)
    if magic in _MEMORY:
        return Medium.MEMORY
    return Medium.REMOTE if magic in _REMOTE else Medium.LOCAL
