"""Seam: the host filesystem, for the small files that OrionFS itself keeps (state, configuration edits).

Members are not small files: they are backends.  All calls block and belong on a worker or in a client program.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class HostFs(Protocol):
    """Whole-file operations whose effect is all or nothing, also across a power cut."""

    def read(self, path: Path) -> bytes:
        """The contents of *path*.  Raises FileNotFoundError and other OSErrors as they come."""

    def replace(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """Make *path* hold *data*: a reader, also one after a power cut, sees the old contents or the new, whole."""

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        """Create the folder *path* (and its parents) unless it is there, durably."""


class SystemHostFs:
    """The real one: write aside, fsync, rename, fsync the folder."""

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def replace(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        aside = path.with_name(f".{path.name}.new")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside.replace(path)
        sync_folder(path.parent)

    def make_folder(self, path: Path, mode: int = 0o700) -> None:
        if path.is_dir():
            return
        self.make_folder(path.parent, mode)
        path.mkdir(mode=mode, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in the folder *path* durable: without this a new file may be gone after a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
