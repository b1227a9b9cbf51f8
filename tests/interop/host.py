"""Host: arrays on plain files, run by OrionFS in this process."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from orionfs.array.array import Array
from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.policies import Consistency
from orionfs.array.superblock import Superblock
from orionfs.array.superblock_io import read_superblock
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from tests.interop.shapes import MIB, Shape

ENVIRONMENT = Environment()
#: For anything that an array of some MiB does in the background.
PATIENCE_S = 60


@dataclass
class Events:
    """Collects what an array reports, and lets others wait for it."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)
    _more: trio.Event = field(default_factory=trio.Event)

    def emit(self, kind: str, subject: str, message: str, *, severity: Any = "info", **facts: Any) -> None:
        self.seen.append((kind, message, severity))
        self._more.set()
        self._more = trio.Event()

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _message, _severity in self.seen]

    def alarming(self) -> list[str]:
        """What is more than information."""
        return [f"{kind}: {message}" for kind, message, severity in self.seen if severity != "info"]

    async def wait(self, *kinds: str) -> None:
        """Until something of one of *kinds* has happened."""
        with trio.fail_after(PATIENCE_S):
            while not set(kinds) & set(self.kinds):
                await self._more.wait()


async def opened(paths: Sequence[Path], without: Collection[int] = ()) -> list[Source]:
    """The members *paths*, but for those whose places are in *without*."""
    return [
        Source(path.name, None, "left out")
        if index in without
        else Source(path.name, await FileDevice.open(path, environment=ENVIRONMENT))
        for index, path in enumerate(paths)
    ]


@asynccontextmanager
async def assembled(
    paths: Sequence[Path],
    *,
    legs: int = 0,
    events: Events | None = None,
    without: Collection[int] = (),
    background: bool = True,
    **options: Any,
) -> AsyncIterator[Array]:
    """The array on the files *paths*, closed at the end; with *legs*, the RAID 0 over that many arrays on them."""
    events = events or Events()
    sources = await opened(paths, without)
    async with trio.open_nursery() as nursery:
        arrays = []
        for each in split(sources, legs):
            arrays.append(await assemble("test", each, environment=ENVIRONMENT, events=events, **options))
        if legs:
            over = [Source(f"leg{index}", array) for index, array in enumerate(arrays)]
            arrays.append(await assemble("test", over, environment=ENVIRONMENT, events=events, **options))
        if background:
            for array in arrays:
                nursery.start_soon(array.run)
        try:
            yield arrays[-1]
        finally:
            with trio.CancelScope(shield=True):
                await arrays[-1].aclose()  # and with it those it is made of


@asynccontextmanager
async def killed(paths: Sequence[Path], **options: Any) -> AsyncIterator[Array]:
    """The array on *paths*, and the members left as a kill of its process at the end of the block leaves them.

    Nothing is done in the background, not even what a timer would do.
    """
    images: list[bytes] = []
    async with assembled(paths, background=False, **options) as array:
        yield array
        images = [path.read_bytes() for path in paths]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(image)


async def half_done(array: Array, how_far: Callable[[], int], enough: int) -> None:
    """Until a background job has got as far as *enough*; it waits there."""
    with trio.fail_after(PATIENCE_S):
        while how_far() < enough:
            await trio.lowlevel.checkpoint()
    array.gate.pause()


def split(items: Sequence[Any], legs: int) -> list[Sequence[Any]]:
    """*items* in as many equal parts as there are *legs*; all of them if there are none."""
    each = len(items) // max(legs, 1)
    return [items[start : start + each] for start in range(0, len(items), each)]


async def create(
    shape: Shape, paths: Sequence[Path], *, bitmap: bool = False, consistency: Consistency = "resync"
) -> None:
    """Make the files *paths* the members of a new array."""
    async with AsyncExitStack() as stack:
        devices: list[StorageDevice] = []
        for path, size in zip(paths, shape.sizes * max(shape.legs, 1), strict=True):
            await create_file(path, size * MIB, ENVIRONMENT)
            device = await FileDevice.open(path, environment=ENVIRONMENT)
            stack.push_async_callback(device.aclose)
            devices.append(device)
        spec = MdSpec(
            shape.md_level,
            f"host:{shape}"[:32],
            shape.md_layout,
            shape.chunk * 2 if shape.chunked else 0,
            bitmap=bitmap,
            bitmap_chunk=64 << 10 if bitmap else 0,
            consistency=consistency,
        )
        for each in split(devices, shape.legs):
            await create_array(each, spec=spec, environment=ENVIRONMENT, freshly_made=True)
    if shape.legs:
        await _create_over(shape, paths)


async def _create_over(shape: Shape, paths: Sequence[Path]) -> None:
    """Make the arrays on *paths* the members of a RAID 0."""
    async with AsyncExitStack() as stack:
        legs: list[StorageDevice] = []
        for each in split(await opened(paths), shape.legs):
            leg = await assemble("leg", each, environment=ENVIRONMENT, events=Events())
            stack.push_async_callback(leg.aclose)
            legs.append(leg)
        spec = MdSpec(0, f"host:{shape}"[:32], 1, shape.chunk * 2)
        await create_array(legs, spec=spec, environment=ENVIRONMENT, freshly_made=True)


async def contents(array: StorageDevice) -> bytes:
    """All bytes of the array, in reads that do not respect chunks."""
    whole = bytearray(array.geometry.size)
    view = memoryview(whole)
    for offset in range(0, len(whole), 1000 << 10):
        await array.read(offset, [view[offset : offset + (1000 << 10)]])
    return bytes(whole)


async def scribble(array: StorageDevice, content: bytearray, seed: str, count: int, *, limit: int = 1000) -> None:
    """Random writes, of one to *limit* sectors, to the array and to the bytearray *content*; then a flush."""
    source = random.Random(seed)
    for _ in range(count):
        length = min(512 * min(source.choice([1, 7, 8, 128, source.randint(1, limit)]), limit), len(content))
        offset = 512 * source.randint(0, (len(content) - length) // 512)
        data = source.randbytes(length)
        await array.write(offset, [data])
        content[offset : offset + length] = data
    await array.flush()


async def filled(array: StorageDevice, seed: str, *, writes: int = 100) -> bytearray:
    """Fill the array with noise and scribble over it; what it holds then."""
    content = bytearray(random.Random(seed).randbytes(array.geometry.size))
    for offset in range(0, len(content), MIB):
        await array.write(offset, [memoryview(content)[offset : offset + MIB]])
    await scribble(array, content, seed, writes)
    return content


async def superblocks(paths: Sequence[Path]) -> list[Superblock]:
    """What each member says."""
    found = []
    for path in paths:
        device = await FileDevice.open(path, environment=ENVIRONMENT)
        try:
            found.append(await read_superblock(device))
        finally:
            await device.aclose()
    return found


async def new_member(path: Path, shape: Shape) -> FileDevice:
    """An empty file that may become a member of an array of *shape*."""
    await create_file(path, shape.sizes[0] * MIB, ENVIRONMENT)
    return await FileDevice.open(path, environment=ENVIRONMENT)
