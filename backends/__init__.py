"""Backends: the leaves, where bytes live.  Each is named by a URL; a bare path is a file or a block device.

    members/d0.img              a file (or /dev/sdb: a block device), relative to the folder of the configuration
    file:members/d0.img?direct=yes
    memory:?size=64MiB          gone when it is closed; also block=4096
    null:?size=1TiB             reads zeros, drops what is written

A backend of your own is one module with a :class:`~orionfs.device.StorageDevice` and one line in :data:`SCHEMES`.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from orionfs.errors import ConfigError
from orionfs.units import SECTOR, parse_size

if TYPE_CHECKING:  # a program that only parses URLs starts without the event loop
    from orionfs.device import StorageDevice
    from orionfs.environment import Environment


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open a backend.

    ``lock`` keeps other programs out (of files; block devices are always opened exclusively), ``direct`` goes past the
    page cache.
    """

    read_only: bool = False
    lock: bool = True
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Url:
    """A backend's URL, taken apart; ``text`` is as it was written."""

    text: str
    scheme: str
    rest: str
    parameters: Mapping[str, str] = field(default_factory=dict)


Opener = Callable[[Url, Path, OpenOptions, "Environment"], Awaitable["StorageDevice"]]

_SCHEME = re.compile(r"([a-z][a-z0-9+-]*):(.*)", re.DOTALL)


def parse_url(text: str) -> Url:
    """Take a URL apart; what has no scheme is a path, taken literally.

    Raises ConfigError for a malformed query, and for a zero byte, which no name of the host can have.
    """
    match = _SCHEME.fullmatch(text)
    if "\0" in (text if match is None else unquote(text)):
        raise ConfigError(f"{text!r} is not a path or URL: it has a zero byte in it", hint="write it without that byte")
    if match is None:
        return Url(text, "file", text)
    scheme, rest = match.groups()
    rest, _, query = rest.partition("?")
    parameters: dict[str, str] = {}
    for item in query.split("&") if query else ():
        key, equals, value = item.partition("=")
        if not equals or not key or key in parameters:
            raise ConfigError(
                f"{text}: {item!r} is not a parameter", hint="write key=value, each key once, with & between"
            )
        parameters[unquote(key)] = unquote(value)
    return Url(text, scheme, unquote(rest.removeprefix("//")), parameters)


def path_of(url: str, base: Path) -> Path | None:
    """The host path that *url* names, relative ones taken from *base*; None if it names none.  Touches nothing."""
    parsed = parse_url(url)
    return base / parsed.rest if parsed.scheme == "file" and parsed.rest else None


async def open_backend(url: str, *, base: Path, options: OpenOptions, environment: Environment) -> StorageDevice:
    """Open the backend that *url* names; the device is called *url*, and the caller owns it.

    Raises ConfigError for a URL that makes no sense, and what the backend's own opening raises: NotFound,
    AccessRefused, InUse, Refused, ReadOnly, each a sentence.
    """
    parsed = parse_url(url)
    opener = SCHEMES.get(parsed.scheme)
    if opener is None:
        raise ConfigError(
            f"{url}: there is no backend {parsed.scheme!r}",
            hint=f"the backends are {', '.join(SCHEMES)}; a file of that name is written ./{url}",
        )
    return await opener(parsed, base, options, environment)


def _take_parameters(url: Url, *known: str) -> Mapping[str, str]:
    for key in url.parameters:
        if key not in known:
            raise ConfigError(f"{url.text}: {url.scheme} has no parameter {key!r}", hint=f"it has {', '.join(known)}")
    return url.parameters


def _take_size(url: Url) -> tuple[int, int]:
    """Size and logical block of a device that is made of nothing but its URL."""
    parameters = _take_parameters(url, "size", "block")
    if url.rest:
        raise ConfigError(f"{url.text}: {url.scheme} takes no path", hint=f"write {url.scheme}:?size=64MiB")
    if "size" not in parameters:
        raise ConfigError(f"{url.text}: it has no size", hint=f"write {url.scheme}:?size=64MiB")
    try:
        size, block = parse_size(parameters["size"]), parse_size(parameters.get("block", str(SECTOR)))
    except ValueError as error:
        raise ConfigError(f"{url.text}: {error}") from error
    if block < SECTOR or block & (block - 1):
        raise ConfigError(f"{url.text}: a block of {block} bytes is not a power of two from {SECTOR} up")
    if not size or size % block:
        raise ConfigError(f"{url.text}: {size} bytes are not a multiple of its {block}-byte blocks")
    return size, block


async def _open_file(url: Url, base: Path, options: OpenOptions, environment: Environment) -> StorageDevice:
    from orionfs.backends.blockdev import BlockDevice
    from orionfs.backends.file import FileDevice

    parameters = _take_parameters(url, "direct")
    if not url.rest:
        raise ConfigError(f"{url.text!r} names no file", hint="write a path")
    direct = parameters.get("direct", "no")
    if direct not in ("yes", "no"):
        raise ConfigError(f"{url.text}: direct={direct} is neither yes nor no")
    if direct == "yes":
        options = replace(options, direct=True)
    path = base / url.rest
    worker = environment.threads.worker(f"{url.text} stat")
    try:
        is_block_device = await worker.run(_is_block_device, path)
    finally:
        worker.close()
    if is_block_device:
        return await BlockDevice.open(path, name=url.text, options=options, environment=environment)
    return await FileDevice.open(path, name=url.text, options=options, environment=environment)


def _is_block_device(path: Path) -> bool:
    try:
        return stat.S_ISBLK(path.stat().st_mode)
    except (OSError, ValueError):
        return False  # whoever opens it as a file reports what is wrong


async def _open_memory(url: Url, _base: Path, options: OpenOptions, _environment: Environment) -> StorageDevice:
    from orionfs.backends.memory import MemoryDevice

    size, block = _take_size(url)
    return MemoryDevice(url.text, size, block, read_only=options.read_only)


async def _open_null(url: Url, _base: Path, options: OpenOptions, _environment: Environment) -> StorageDevice:
    from orionfs.backends.null import NullDevice

    size, block = _take_size(url)
    return NullDevice(url.text, size, block, read_only=options.read_only)


#: What may stand before the colon of a member's URL.
SCHEMES: dict[str, Opener] = {"file": _open_file, "memory": _open_memory, "null": _open_null}
