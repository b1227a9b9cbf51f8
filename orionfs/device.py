"""StorageDevice: the contract that every backend, layer and array implements.  Read this first.

A *backend* is a leaf, where bytes live.  A *layer* has one child.  An *array* has members.  All three are
:class:`StorageDevice`, and any of them may be a child or a member of any other that its geometry allows.

What holds for all of them:

- **Addresses** are bytes from the start of the device.  Offsets and lengths are multiples of
  ``geometry.logical_block`` and lie inside the device; anything else raises :class:`~orionfs.errors.OutOfRange` and
  changes nothing.
- **Never short, never wrong.**  A request does all of its bytes or raises.  Zeros never stand in for data that could
  not be read, decrypted, decompressed or verified.
- **Visible, then durable.**  A completed write is seen by every later read and survives a kill of the process.  It is
  *durable* once a ``flush`` that began after it has completed.  There is no other barrier.
- **Failure of a flush is sticky.**  The kernel may have dropped the pages, so a second flush that returns success is
  not believed: the device keeps failing its flushes until it is opened again.
- **Concurrency.**  Any number of requests may run at once.  Overlapping requests in flight together have no order.
- **Power cut.**  Within ``geometry.atomic_write`` aligned bytes, a block in flight is old or new.  Beyond that it may
  be a mix.  A block that was not being written never changes.
- **Cancellation.**  A cancelled read has no effect.  A cancelled write may have happened wholly, partly or not at
  all, as after an error, and leaves the device consistent.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orionfs.buffers import Buffer, total_length
from orionfs.errors import OutOfRange
from orionfs.extents import Extent, Kind
from orionfs.units import SECTOR


@dataclass(frozen=True, slots=True)
class Geometry:
    """The shape of a device.  All sizes are bytes.

    ``size`` is a multiple of ``logical_block``, the unit of addressing (a power of two, at least 512).
    ``preferred_io`` is what a caller that can choose should send; ``stripe_width`` is the write that needs no reads
    (0 if there is no such thing).  ``atomic_write`` is the unit that a power cut leaves old or new.
    """

    size: int
    logical_block: int = SECTOR
    preferred_io: int = 4096
    stripe_width: int = 0
    atomic_write: int = SECTOR


@dataclass(slots=True)
class Counters:
    """What happened to a device since it was opened.  The first three are errors, as in zpool status."""

    read_errors: int = 0
    write_errors: int = 0
    checksum_errors: int = 0
    reads: int = 0
    writes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Description:
    """What a device says of itself: the record that status, JSON and metrics are made of.

    ``kind`` is the noun (``file``, ``array`` …), ``name`` what the configuration calls it, ``state`` one word
    (``active``, ``degraded`` …), ``where`` the path or URL if it is a leaf.  ``details`` holds what only this kind
    has: JSON values.
    """

    kind: str
    name: str
    state: str
    geometry: Geometry
    where: str = ""
    children: tuple[Description, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; sizes are integers of bytes."""
        return {
            "kind": self.kind,
            "name": self.name,
            "state": self.state,
            "where": self.where,
            "size": self.geometry.size,
            "logical_block": self.geometry.logical_block,
            "preferred_io": self.geometry.preferred_io,
            "stripe_width": self.geometry.stripe_width,
            "atomic_write": self.geometry.atomic_write,
            "counters": dict(self.counters),
            "details": dict(self.details),
            "children": [child.to_json() for child in self.children],
        }


class StorageDevice(abc.ABC):
    """One addressable device.  See the module docstring for what its users may rely on.

    A subclass sets :attr:`name` and :attr:`geometry` before it is used and implements the abstract methods.  The others
    have working defaults that it may replace by something faster.
    """

    name: str
    geometry: Geometry

    # --- data ------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fill the (writable) *buffers*, in order, with the bytes from *offset* on.

        Raises a :class:`~orionfs.errors.DeviceError`; the buffers then hold nothing of use.
        """

    @abc.abstractmethod
    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Store the concatenation of *buffers* from *offset* on.

        The caller must not change the buffers before the call ends.  Raises a :class:`~orionfs.errors.DeviceError`;
        each block of the range is then old or new.
        """

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """Serve the read now if that takes no waiting; False if it would, and the caller has to ``await read``.

        An optimization that any device may decline: it keeps page-cache hits clear of coroutines and threads.  Same
        effects and errors as :meth:`read`; after False the contents of the buffers are undefined.
        """
        return False

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """Do the write now if that takes no waiting; False if it would, and nothing is written."""
        return False

    @abc.abstractmethod
    async def flush(self) -> None:
        """Make every write that completed before this call durable.  Failure is sticky."""

    def try_flush(self) -> bool:
        """Flush now if that takes no waiting, as where nothing was written since the last one; False if it would."""
        return False

    async def write_zeroes(self, offset: int, length: int) -> None:
        """Make the range read as zeros, by releasing its space where that is possible."""
        await write_zero_buffers(self, offset, length)

    async def discard(self, offset: int, length: int) -> None:
        """The contents of the range are not needed any more.

        Advice: what is released reads as zeros afterwards, what is not keeps its contents.
        """
        self.check(offset, length)

    # --- facts -----------------------------------------------------------------------------------------------------

    async def extents(self, offset: int, length: int) -> AsyncGenerator[Extent, None]:
        """The range as extents, in order and without gaps.  ``DATA`` is always a correct answer."""
        self.check(offset, length)
        if length:
            yield Extent(offset, length, Kind.DATA)

    def allocated(self) -> int:
        """Bytes of ``geometry.size`` that take space where they are stored.  Cheap; does not wait."""
        return self.geometry.size

    @abc.abstractmethod
    def describe(self) -> Description:
        """The device and all that is below it, as of now.  Cheap; does not wait."""

    # --- life ------------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    async def aclose(self) -> None:
        """Flush, mark clean what has such a mark, and let go of everything below.  Idempotent.

        Everything is let go of even if this raises.
        """

    # --- for implementers ------------------------------------------------------------------------------------------

    def check(self, offset: int, length: int) -> None:
        """Raise :class:`~orionfs.errors.OutOfRange` unless the range is aligned and inside the device."""
        geometry = self.geometry
        if offset < 0 or length < 0 or offset + length > geometry.size:
            raise OutOfRange(f"{self.name}: {length} bytes at {offset} do not lie inside its {geometry.size} bytes")
        if (offset | length) & (geometry.logical_block - 1):
            raise OutOfRange(
                f"{self.name}: {length} bytes at {offset} are not multiples of its {geometry.logical_block}-byte blocks"
            )

    def check_buffers(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """:meth:`check` for the range that *buffers* cover; their total length."""
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        self.check(offset, length)
        return length


_ZEROES = memoryview(bytes(1 << 20))


async def write_zero_buffers(device: StorageDevice, offset: int, length: int) -> None:
    """Zero a range of *device* by writing zeros, 1 MiB at a time: what every device can do."""
    device.check(offset, length)
    while length:
        step = min(length, len(_ZEROES))
        await device.write(offset, [_ZEROES[:step]])
        offset += step
        length -= step
