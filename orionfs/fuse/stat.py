"""What stat(2) and statfs(2) get to see, without any transport's types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Stat:
    """One object's answer to stat(2).

    ``mode`` includes the file type, ``blocks`` are 512 bytes, times nanoseconds since 1970.  ``entry_timeout_s`` and
    ``attribute_timeout_s`` say how long the kernel may believe the name and these values without asking again.
    """

    inode: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    blocks: int
    preferred_io: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    entry_timeout_s: float
    attribute_timeout_s: float


@dataclass(frozen=True, slots=True)
class FsStat:
    """The mount's answer to statfs(2).  ``block`` is in bytes and never 0: loop takes its discard granularity from it.

    ``free`` are the blocks of the capacity that take no space yet where they are stored; writing them is possible, and
    how much the host still has for them is the host's to say.
    """

    block: int
    blocks: int
    free: int
    files: int
    name_max: int
