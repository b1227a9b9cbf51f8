"""Creation of sparse files to be members."""

from __future__ import annotations

import os
from pathlib import Path

from orionfs.environment import Environment
from orionfs.errors import ConfigError, NotFound, OrionError, Refused, from_oserror
from orionfs.hostfs import sync_folder
from orionfs.units import SECTOR


async def create_file(path: Path, size: int, environment: Environment) -> None:
    """Make the sparse file *path* of *size* bytes, mode 0600; file and name are durable when this returns.

    Raises Refused if something of that name exists already, NotFound if its folder does not, ConfigError if *size* is
    not a positive multiple of 512, NoSpace if the filesystem does not take files of that size, AccessRefused, ReadOnly.
    What fails leaves no file behind.
    """
    if size <= 0 or size % SECTOR:
        raise ConfigError(f"{path}: a member cannot have {size} bytes", hint=f"choose a multiple of {SECTOR}")
    worker = environment.threads.worker(f"{path} create")
    try:
        await worker.run(_create, path, size)
    finally:
        worker.close()


def _create(path: Path, size: int) -> None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        raise _explain(error, path) from error
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        path.unlink()
        raise from_oserror(error, f"create {path} with {size} bytes") from error
    finally:
        os.close(descriptor)


def _explain(error: OSError | ValueError, path: Path) -> OrionError:
    if isinstance(error, ValueError):  # a zero byte
        return ConfigError(f"{str(path)!r} is not a path: {error}")
    if isinstance(error, FileExistsError):
        return Refused(f"{path} exists already", hint="remove it first, or choose another name")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"there is no folder {path.parent}", hint=f"make it: mkdir -p {path.parent}")
    return from_oserror(error, f"create {path}")
