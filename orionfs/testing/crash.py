"""What a power cut may leave of the writes that were not flushed.

The model is a device with a volatile cache and no manners: each un-flushed write, on each disk on its own, reached the
medium wholly, not at all, or only in a run of its sectors, and overlapping ones in any order.  A flush covers the
writes that had completed when it was submitted, and nothing else; so it is in Linux's dm-log-writes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orionfs.units import SECTOR

PAGE = 4096
#: A sparse medium: page number to its 4096 bytes; what is not there reads as zeros.
Pages = dict[int, bytes]

_ZERO_PAGE = bytes(PAGE)


class Pending(NamedTuple):
    """A change that was submitted and not flushed.  *data* is None for zeros; ticks are the machine's."""

    disk: str
    offset: int
    length: int
    data: bytes | None
    submitted: int
    completed: int | None = None


class DiskState(NamedTuple):
    """Everything that a disk is, at one moment."""

    name: str
    size: int
    logical_block: int
    stable: Mapping[int, bytes]
    visible: Mapping[int, bytes]
    pending: tuple[Pending, ...]
    damaged: frozenset[int] = frozenset()


class Part(NamedTuple):
    """The bytes [start, end) of a pending write are what reached the medium."""

    pending: Pending
    start: int
    end: int


class Choice(NamedTuple):
    """How the un-flushed writes fared: a word and, for most, which write it speaks of.

    ``none`` and ``all``; ``lost`` and ``kept`` (write *which* is the only one that was); ``prefix`` (those before
    *which*, in order of submission); ``head`` and ``tail`` (all kept but write *which*, of which only that half was);
    ``random`` (each write's fate and order is drawn from seed *which*).
    """

    kind: str
    which: int = 0


def choices(pending: Sequence[Pending], subsets: int = 8) -> list[Choice]:
    """Every choice that is tried for these writes, *subsets* of them random; ``none`` and ``all`` come first."""
    count = len(pending)
    if count == 0:
        return [Choice("all")]
    found = [Choice("none"), Choice("all")]
    if count > 1:
        found += [Choice(kind, index) for kind in ("lost", "kept") for index in range(count)]
        found += [Choice("prefix", index) for index in range(2, count - 1)]
        found += [Choice("random", index) for index in range(subsets)]
    found += [
        Choice(kind, index) for index, write in enumerate(pending) if write.length > SECTOR for kind in ("head", "tail")
    ]
    return found


def outcome(pending: Sequence[Pending], choice: Choice, seed: int = 0) -> list[Part]:
    """The parts that reached the media by *choice*, in the order in which they did."""
    kind, index = choice
    whole = [Part(write, 0, write.length) for write in pending]
    match kind:
        case "none":
            return []
        case "all":
            return whole
        case "lost":
            return whole[:index] + whole[index + 1 :]
        case "kept":
            return [whole[index]]
        case "prefix":
            return whole[:index]
        case "head" | "tail":
            write = pending[index]
            middle = max(SECTOR, write.length // 2 // SECTOR * SECTOR)
            whole[index] = Part(write, 0, middle) if kind == "head" else Part(write, middle, write.length)
            return whole
        case "random":
            generator = random.Random(f"{seed}/{index}")
            parts = [_drawn(write, generator) for write in pending]
            generator.shuffle(parts)
            return [part for part in parts if part.end > part.start]
    raise ValueError(f"there is no choice {kind!r}")


def _drawn(write: Pending, generator: random.Random) -> Part:
    lot = generator.random()
    if lot < 0.4:
        return Part(write, 0, write.length)
    if lot < 0.7:
        return Part(write, 0, 0)
    sectors = write.length // SECTOR
    start, end = sorted((generator.randint(0, sectors), generator.randint(0, sectors)))
    return Part(write, start * SECTOR, end * SECTOR)


def killed(pending: Sequence[Pending], seed: int = 0) -> list[Part]:
    """What a kill of the process leaves *visible*: completed writes whole; those in flight cut at 4 KiB boundaries."""
    generator = random.Random(f"{seed}/kill")
    done = [write for write in pending if write.completed is not None]
    parts = [Part(write, 0, write.length) for write in sorted(done, key=lambda write: write.completed or 0)]
    for write in pending:
        if write.completed is None:
            first = -write.offset % PAGE
            edges = [0, *range(first or PAGE, write.length, PAGE), write.length]
            parts.append(Part(write, 0, generator.choice(edges)))
    return parts


def apply(pages: Pages, parts: Iterable[Part]) -> None:
    """Put *parts* on the medium, one after the other."""
    for write, start, end in parts:
        data = None if write.data is None else write.data[start:end]
        store(pages, write.offset + start, end - start, data)


def store(pages: Pages, offset: int, length: int, data: bytes | None) -> None:
    """Write *data* (zeros if None) to *pages*."""
    position = 0
    while position < length:
        page, inside = divmod(offset + position, PAGE)
        take = min(PAGE - inside, length - position)
        if data is None:
            if take == PAGE:
                pages.pop(page, None)
            elif page in pages:
                old = pages[page]
                pages[page] = old[:inside] + _ZERO_PAGE[:take] + old[inside + take :]
        elif take == PAGE:
            pages[page] = data[position : position + PAGE]
        else:
            old = pages.get(page, _ZERO_PAGE)
            pages[page] = old[:inside] + data[position : position + take] + old[inside + take :]
        position += take


def load(pages: Mapping[int, bytes], offset: int, length: int) -> Iterator[bytes]:
    """The bytes [offset, offset + length) of *pages*, in pieces."""
    end = offset + length
    while offset < end:
        page, inside = divmod(offset, PAGE)
        take = min(PAGE - inside, end - offset)
        whole = pages.get(page, _ZERO_PAGE)
        yield whole if take == PAGE else whole[inside : inside + take]
        offset += take
