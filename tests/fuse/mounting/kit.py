"""Helpers for tests of ``mount.orionfs`` and ``umount.orionfs`` as programs."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from orionfs.array.superblock import OFFSET, RESYNC_DONE, SIZE, Superblock
from orionfs.control.runtime import find
from orionfs.tools.mountinfo import Mount, mount_at, read_mounts

BIN = Path(sys.executable).parent
MOUNT, UMOUNT, ORIONCTL = (str(BIN / name) for name in ("mount.orionfs", "umount.orionfs", "orionctl"))

SPEC = """\
[[array]]
name = "vault"
level = "{level}"
members = [{members}]
member_size = "8MiB"
"""


def mounted(folder: Path) -> Mount | None:
    return mount_at(read_mounts(), str(folder))


def write(place: Path, text: bytes, offset: int = 0) -> None:
    descriptor = os.open(place / "arrays" / "vault", os.O_WRONLY)
    try:
        os.pwrite(descriptor, text, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(place: Path, length: int, offset: int = 0) -> bytes:
    with (place / "arrays" / "vault").open("rb") as file:
        file.seek(offset)
        return file.read(length)


def state(store: Path) -> list[str]:
    """What mdadm would see: the state of each member, read from the superblocks while nothing is mounted."""
    found = []
    for member in sorted((store / "members").iterdir()):
        raw = member.read_bytes()[OFFSET : OFFSET + SIZE]
        found.append("clean" if Superblock.parse(raw).resync_offset == RESYNC_DONE else "dirty")
    return found


def daemon_pid(place: Path) -> int:
    return find(place).pid


def await_end(pid: int) -> None:
    """Until process *pid* is gone; it is a child of this one (see conftest), so that it can be waited for."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(20_000)
    os.close(descriptor)
    assert ended, f"process {pid} does not end"


def one_line(done: subprocess.CompletedProcess[str], program: str = "mount.orionfs") -> str:
    """The single line that a program that failed has printed."""
    assert done.stdout == ""
    assert done.stderr.startswith(f"{program}: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix(f"{program}: ").rstrip("\n")
