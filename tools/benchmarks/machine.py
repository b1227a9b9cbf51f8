"""What the figures were taken on and with: a speed without its machine and versions says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import orionfs

#: Program and arguments that print a version; the first number with a dot in the output is taken.
_PROGRAMS = {
    "fio": ("fio", "--version"),
    "libfuse": ("fusermount3", "--version"),
    "qemu": ("qemu-storage-daemon", "--version"),
    "btrfs-progs": ("mkfs.btrfs", "--version"),
    "nbdkit": ("nbdkit", "--version"),
    "nbdfuse": ("nbdfuse", "--version"),
}


def versions() -> dict[str, str]:
    """Versions by name; ``missing`` for what is not installed."""
    found = {"orionfs": _own_version(), "kernel": platform.release(), "python": platform.python_version()}
    for package in ("pyfuse3", "trio", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found | {name: _ask(argv) for name, argv in _PROGRAMS.items()}


def machine() -> dict[str, str | int]:
    """Processor, cores that this process may use, memory in bytes, and the distribution."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": _distribution(),
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _own_version() -> str:
    folder = Path(orionfs.__file__).parent
    described = _output("git", "-C", str(folder), "describe", "--always", "--dirty").strip()
    return f"{orionfs.__version__} ({described})" if described else orionfs.__version__


def _ask(argv: tuple[str, ...]) -> str:
    number = re.search(r"\d+(\.\d+)+", _output(*argv))
    return number[0] if number else "missing"


def _output(*argv: str) -> str:
    """What *argv* prints; empty if it is not installed or fails."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
