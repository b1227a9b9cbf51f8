"""Operations over RAM devices, with no mount: what the tests of the FUSE handlers share."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orionfs.attributes import Attributes, AttributeStore
from orionfs.environment import Environment
from orionfs.errors import OrionError
from orionfs.exposed import Exposed
from orionfs.fuse.operations import Operations
from orionfs.fuse.tree import ROOT_INODE, Tree
from orionfs.layers.bytewise import Bytewise
from orionfs.monitor.events import EventLog
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

UID, GID = 1000, 100
ENVIRONMENT = Environment()


class Rig:
    """One device, ``arrays/vault``, in a tree with the documents ``status`` and ``config.toml``."""

    def __init__(self, *, size: int = 1 << 20, block: int = 512, inline: bool = True, **terms: Any) -> None:
        self.ram = RamDevice("vault", size, block)
        self.faulty = FaultyDevice(self.ram, inline=inline)
        attributes = Attributes(0o640, UID, GID, 1, 2, 3)
        self.exposed = Exposed("vault", "arrays", Bytewise(self.faulty), attributes, **terms)
        self.text = b"all is well\n"
        self.events = EventLog(ENVIRONMENT.clock)
        documents = {"status": lambda: self.text, "config.toml": lambda: b"# mine\n"}
        self.tree = Tree([self.exposed], documents, self.events, uid=UID, gid=GID, clock=ENVIRONMENT.clock)
        self.operations = Operations(self.tree)

    def use(self, store: AttributeStore) -> None:
        """Have *store* keep the attributes."""
        self.exposed.attributes = store.get(self.exposed.key, mode=0o640, uid=UID, gid=GID)
        self.operations = Operations(self.tree, store)

    async def inode(self, path: str) -> int:
        """The inode number of *path*, looked up name by name."""
        inode = ROOT_INODE
        for name in Path(path).parts:
            inode = (await self.operations.lookup(inode, os.fsencode(name))).inode
        return inode

    async def open(self, path: str = "arrays/vault", flags: int = os.O_RDWR) -> int:
        """A handle of *path*."""
        return (await self.operations.open(await self.inode(path), flags)).handle

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """A copy of what is read."""
        return bytes(await self.operations.read(handle, offset, length))


@contextmanager
def fails_with(code: int) -> Iterator[None]:
    """The body raises an error of ours or an OSError that a program would see as errno *code*."""
    with pytest.raises((OrionError, OSError)) as caught:
        yield
    actual = caught.value.errno
    assert actual == code, f"{errno.errorcode.get(actual or 0)}, not {errno.errorcode[code]}: {caught.value}"
