"""Real mounts by the real program, over small arrays on files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .kit import MOUNT, ORIONCTL, SPEC, UMOUNT, mounted

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run() -> Run:
    """``run("mount", …)`` runs a program to its end, in the environment as the test has set it."""

    def call(*command: str | os.PathLike[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
        return done

    return call


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """``make_store()`` makes a small RAID 5 in the folder ``store`` and returns that folder."""

    def make(name: str = "store", level: str = "raid5", members: int = 3) -> Path:
        store = tmp_path / name
        store.mkdir()
        listed = ", ".join(f'"members/d{index}.img"' for index in range(members))
        (store / "orionfs.toml").write_text(SPEC.format(level=level, members=listed))
        subprocess.run([ORIONCTL, "init", str(store)], check=True, capture_output=True)
        return store

    return make


@pytest.fixture
def store(make_store: Callable[..., Path]) -> Path:
    return make_store()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder to mount on; what is still mounted there at the end is taken away."""
    folder = tmp_path / "mnt"
    folder.mkdir()
    yield folder
    while mounted(folder) is not None:
        subprocess.run([UMOUNT, str(folder)], check=True)


@pytest.fixture
def helpers() -> Iterator[None]:
    """The links in /sbin by which mount(8) and umount(8) find the helpers; what was there before comes back."""
    links = {
        Path("/sbin/mount.orionfs"): MOUNT,
        Path("/sbin/mount.fuse.orionfs"): MOUNT,
        Path("/sbin/umount.orionfs"): UMOUNT,
        Path("/sbin/umount.fuse.orionfs"): UMOUNT,
    }
    before = {link: link.readlink() for link in links if link.is_symlink()}
    for link, program in links.items():
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    yield
    for link in links:
        link.unlink()
        if link in before:
            link.symlink_to(before[link])
