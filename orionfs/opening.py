"""Opening the devices that a configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orionfs.array.assembly import Source
from orionfs.backends import OpenOptions, open_backend
from orionfs.backends.opening import CutShort
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, NotFound


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens members and spares.  ``path`` is the configuration, ``folder`` what relative paths are relative to."""

    path: Path
    folder: Path
    environment: Environment
    lock: bool = True

    async def open(self, label: str, *, read_only: bool = False, direct: bool = False, line: int = 0) -> StorageDevice:
        """The device *label*; it is the caller's.  Raises as :func:`~orionfs.backends.open_backend` does.

        What is a mistake of the configuration names its *line*.
        """
        options = OpenOptions(read_only=read_only, lock=self.lock, direct=direct)
        try:
            return await open_backend(label, base=self.folder, options=options, environment=self.environment)
        except ConfigError as error:
            path = str(self.path) if line else ""
            raise ConfigError(error.message, hint=error.hint, path=path, line=line) from error

    async def source(self, label: str, *, read_only: bool, direct: bool, line: int) -> Source:
        """*label* as assembly takes it: a device that an array may have to do without is no error."""
        try:
            return Source(label, await self.open(label, read_only=read_only, direct=direct, line=line))
        except NotFound as error:
            return Source(label, None, error.message)
        except CutShort as error:
            return Source(label, None, error.message, "damaged")
