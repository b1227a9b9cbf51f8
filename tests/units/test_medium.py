"""Medium: what a filesystem promises about waiting."""

import os
from pathlib import Path

import pytest

from orionfs.backends import medium
from orionfs.backends.libc import filesystem_type, punch_hole
from orionfs.backends.medium import Medium, medium_of

TMPFS, EXT4, FUSE, NFS, BTRFS, XFS = 0x01021994, 0xEF53, 0x65735546, 0x6969, 0x9123683E, 0x58465342


@pytest.mark.parametrize(
    ("magic", "expected"),
    [
        (TMPFS, Medium.MEMORY),
        (EXT4, Medium.LOCAL),
        (BTRFS, Medium.LOCAL),
        (XFS, Medium.LOCAL),
        (FUSE, Medium.REMOTE),
        (NFS, Medium.REMOTE),
        (0xFF534D42, Medium.REMOTE),
    ],
)
def test_the_type_of_the_filesystem_decides(monkeypatch, magic, expected):
    monkeypatch.setattr(medium, "filesystem_type", lambda descriptor: magic)
    assert medium_of(-1) is expected


def test_shared_memory_is_memory():
    mounts = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    if mounts.get("/dev/shm") != "tmpfs":
        pytest.skip("needs a tmpfs on /dev/shm")
    descriptor = os.open("/dev/shm", os.O_RDONLY)
    try:
        assert filesystem_type(descriptor) == TMPFS
        assert medium_of(descriptor) is Medium.MEMORY
    finally:
        os.close(descriptor)


def test_errors_of_the_system_calls_come_as_oserror():
    with pytest.raises(OSError, match="Bad file descriptor"):
        filesystem_type(-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        punch_hole(-1, 0, 512)
