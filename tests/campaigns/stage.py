"""What the campaigns share: stores made and mounted for them, commands with their output, times, and a clean end."""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
ORIONCTL = str(PROGRAMS / "orionctl")
MOUNT = str(PROGRAMS / "mount.orionfs")
UMOUNT = str(PROGRAMS / "umount.orionfs")


def run(*command: str | Path, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it says; with *check*, failing ends the campaign with its words."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if check and done.returncode:
        words = " ".join(map(str, command))
        raise RuntimeError(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@contextmanager
def workshop(folder: Path | None) -> Iterator[Path]:
    """A folder for stores, on tmpfs unless another place is asked for; gone afterwards if it was made here."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    made = Path(tempfile.mkdtemp(prefix="orionfs-campaign.", dir="/dev/shm"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


def make_store(
    place: Path, level: str, *, members: int = 4, size: str = "1GiB", chunk: str = "64KiB", **more: str
) -> Path:
    """A new store with one array, ``vault``."""
    command = [ORIONCTL, "init", place, "--name", "vault", "--level", level, "--members", str(members), "--size", size]
    if level not in ("raid1", "linear"):
        command += ["--chunk", chunk]
    for option, value in more.items():
        command += [f"--{option}", value]
    run(*command)
    return place


@contextmanager
def mounted(store: Path, mountpoint: Path, *options: str) -> Iterator[Path]:
    """The store, mounted: the path of its array's file."""
    mountpoint.mkdir(exist_ok=True)
    run(MOUNT, store, mountpoint, *(["-o", ",".join(options)] if options else []))
    try:
        yield mountpoint / "arrays" / "vault"
    finally:
        run(UMOUNT, mountpoint)


@contextmanager
def attached(file: Path, *options: str) -> Iterator[str]:
    """The array's file as a loop device, through orionctl."""
    device = run(ORIONCTL, "attach", file, *options).stdout.split()[-1]
    try:
        yield device
    finally:
        run(ORIONCTL, "detach", device)


@contextmanager
def filesystem(device: str, folder: Path, *options: str) -> Iterator[Path]:
    """The filesystem on *device*, mounted at *folder*."""
    folder.mkdir(exist_ok=True)
    run("mount", *options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def status(mountpoint: Path) -> dict:
    """The mount, as its daemon reports it."""
    answer = run(ORIONCTL, "-m", mountpoint, "status", "--json", check=False)
    return json.loads(answer.stdout)["mounts"][0]


def kill_daemon(mountpoint: Path) -> None:
    """kill -9, and its end awaited."""
    pid = status(mountpoint)["pid"]
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([handle], [], [])
    os.close(handle)


def wait_until(holds: Callable[[], bool], what: str, limit_s: float = 20.0) -> None:
    """Ask until it *holds*; what other processes reach tells nobody when."""
    end = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {limit_s:g} s: {what}")
        time.sleep(0.05)


def read_direct(file: Path) -> bytes:
    """All bytes of *file*, with direct I/O: what its filesystem has, not what the page cache kept."""
    descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        size = os.fstat(descriptor).st_size
        with mmap.mmap(-1, size) as buffer:
            at = 0
            while at < size:
                with memoryview(buffer)[at:] as view:
                    at += os.preadv(descriptor, [view], at)
            return buffer[:]
    finally:
        os.close(descriptor)


class Stopwatch:
    """Seconds since it was made or last read."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return seconds


def sums(tree: Path) -> dict[str, str]:
    """sha256 of every regular file below *tree*, by relative path."""
    found: dict[str, str] = {}
    for folder, _folders, files in os.walk(tree):
        for name in files:
            path = Path(folder, name)
            if path.is_symlink() or not path.is_file():
                continue
            with path.open("rb") as file:
                found[str(path.relative_to(tree))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--keep", type=Path, metavar="FOLDER", help="work there and leave the stores behind")
    return made


def table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join(line.rstrip() for line in lines)


@contextmanager
def without_leftovers(folder: Path) -> Iterator[None]:
    """Whatever happened, nothing of *folder* stays mounted or attached."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                place = line.split()[1]
                if place.startswith(str(folder)):
                    subprocess.run(["umount", "-l", place], check=False)
