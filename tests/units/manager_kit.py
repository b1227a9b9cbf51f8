"""A StorageManager over small real files, whose seconds pass fast: for tests of what changes while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from orionfs.array.superblock import OFFSET, SIZE, Superblock
from orionfs.clock import SystemClock
from orionfs.config.load import load_spec
from orionfs.config.spec import Spec
from orionfs.device import Description
from orionfs.environment import Environment
from orionfs.initialize import initialize
from orionfs.manager import ManagerOptions, StorageManager
from orionfs.units import MIB

DATA = bytes(range(256)) * 256


class HurriedClock(SystemClock):
    """Seconds that pass fifty times as fast, for whoever sleeps."""

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds / 50)


ENVIRONMENT = Environment(clock=HurriedClock())


def array(name: str = "vault", level: str = "raid5", members: str = "abc", **keys: str) -> str:
    listed = ", ".join(f'"{member}"' for member in members)
    text = f'[[array]]\nname = "{name}"\nlevel = "{level}"\nmembers = [{listed}]\nmember_size = "4MiB"\n'
    return text + "".join(f"{key} = {value}\n" for key, value in keys.items())


async def made(folder: Path, text: str) -> Spec:
    (folder / "orionfs.toml").write_text(text)
    spec = load_spec(folder)
    await initialize(spec, ENVIRONMENT)
    return spec


async def opened(spec: Spec, **options: bool) -> StorageManager:
    return await StorageManager.open(spec, environment=ENVIRONMENT, options=ManagerOptions(**options))


def blank(folder: Path, *names: str, size: int = 4 * MIB) -> None:
    for name in names:
        with (folder / name).open("wb") as file:
            file.truncate(size)


def named(manager: StorageManager, name: str) -> Description:
    return next(one for one in manager.descriptions() if one.name == name)


def states(manager: StorageManager, name: str = "vault") -> dict[str, str]:
    return {child.name: child.state for child in named(manager, name).children}


async def until(manager: StorageManager, true: Callable[[], bool]) -> None:
    """Wait for something that an event or the passage of time brings about."""
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110 - what is waited for is not always an event
            await trio.sleep(0.01)


def superblock(path: Path) -> Superblock:
    return Superblock.parse(path.read_bytes()[OFFSET : OFFSET + SIZE])


async def read(manager: StorageManager, name: str = "vault") -> bytes:
    exposed = next(one for one in manager.exposed if one.name == name)
    found = bytearray(len(DATA))
    await exposed.device.read(0, [found])
    return bytes(found)


async def write(manager: StorageManager, data: bytes = DATA, name: str = "vault") -> None:
    exposed = next(one for one in manager.exposed if one.name == name)
    await exposed.device.write(0, [data])
