"""Open files: what a handle of the mounted tree reads and writes.

The two methods whose names end in ``_now`` are the fast path: plain functions that do the whole request or answer None,
and then the coroutine of the same name must be awaited.
"""

from __future__ import annotations

import abc
import errno

from orionfs.buffers import POOL
from orionfs.clock import Clock
from orionfs.errors import OrionError, ReadOnly
from orionfs.fuse.event_stream import EventStream
from orionfs.fuse.tree import DeviceNode, DocumentNode, EventsNode, Node
from orionfs.units import MIB

# Where inline reads go, all of them: only the event loop fills it, and whoever gets it copies or sends the bytes before
# the loop runs anything else.  So it needs no pool, which would cost more than the copy of 4 KiB.  Requests are not
# larger than 1 MiB: libfuse takes 256 pages at most.
_INLINE = POOL.take(MIB)


class OpenFile(abc.ABC):
    """One open file.

    Reads return all bytes that were asked for, fewer only at the end of the file.  What they return may be memory that
    the next read uses again: it is good until the caller's next checkpoint and must be copied or sent before that.
    """

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    @abc.abstractmethod
    def read_now(self, offset: int, length: int) -> memoryview | bytes | None:
        """The bytes, if that takes no waiting."""

    async def read(self, offset: int, length: int) -> memoryview | bytes:
        """The bytes.  Only called after :meth:`read_now` has declined."""
        raise AssertionError(f"{type(self).__name__} never waits")

    def write_now(self, offset: int, data: bytes) -> int | None:
        """How many bytes were stored, if that takes no waiting."""
        raise ReadOnly(f"{self.node.path} cannot be written")

    async def write(self, offset: int, data: bytes) -> int:
        """How many bytes were stored.  Only called after :meth:`write_now` has declined."""
        raise AssertionError(f"{type(self).__name__} never waits")

    async def sync(self) -> None:  # noqa: B027 - what cannot be written needs no sync
        """Make what was written durable."""

    def close_error(self) -> OrionError | None:
        """What close(2) has to report."""
        return None

    def unread(self) -> bool:
        """Whether a read would find something new, for poll(2)."""
        return True

    def release(self) -> None:  # noqa: B027 - most have nothing to let go of
        """The last descriptor is gone."""


class DeviceFile(OpenFile):
    """A device, opened: fixed size, and past the end just what a block device does.

    A read there finds the end of the file.  A write that begins there gets ENOSPC, one that crosses the end stores what
    fits and says how much that was.  So O_APPEND, which begins at the end, gets ENOSPC.
    """

    __slots__ = ("_clock", "_dirty", "device", "exposed")

    def __init__(self, node: DeviceNode, clock: Clock) -> None:
        super().__init__(node)
        self.exposed = node.exposed
        self.device = node.exposed.device
        self._clock = clock
        #: Whether it was written through this handle since its last successful sync.
        self._dirty = False
        self.exposed.open_count += 1

    def read_now(self, offset: int, length: int) -> memoryview | bytes | None:
        device = self.device
        room = device.geometry.size - offset
        if length > room:
            if room <= 0:
                return b""
            length = room
        if length > MIB:
            return None
        buffer = _INLINE[:length]
        return buffer if device.try_read(offset, (buffer,)) else None

    async def read(self, offset: int, length: int) -> memoryview | bytes:
        length = min(length, self.device.geometry.size - offset)
        buffer = POOL.take(length)
        # Not given back if this raises: somebody may still be filling it.
        await self.device.read(offset, (buffer,))
        # Given back before it is sent: only the event loop takes from the pool, see above.
        POOL.give(buffer)
        return buffer

    def write_now(self, offset: int, data: bytes) -> int | None:
        exposed = self.exposed
        if not exposed.writable:
            exposed.check_writable()
        device = self.device
        length = len(data)
        room = device.geometry.size - offset
        if length > room:
            data, length = self._clip(data, room), room
        if not device.try_write(offset, (data,)):
            return None
        self._dirty = True
        attributes = exposed.attributes
        attributes.mtime_ns = attributes.ctime_ns = self._clock.wall_ns()
        return length

    async def write(self, offset: int, data: bytes) -> int:
        room = self.device.geometry.size - offset
        if len(data) > room:
            data = self._clip(data, room)
        # Before the write: also one that fails may have changed something.
        self._dirty = True
        attributes = self.exposed.attributes
        attributes.mtime_ns = attributes.ctime_ns = self._clock.wall_ns()
        await self.device.write(offset, (data,))
        return len(data)

    def _clip(self, data: bytes, room: int) -> bytes:
        if room <= 0:
            # Not NoSpace: the backing store is not full, and nobody has to hear of it but the writer.
            raise OSError(errno.ENOSPC, f"{self.exposed.key} ends at byte {self.device.geometry.size}")
        return data[:room]

    async def sync(self) -> None:
        dirty, self._dirty = self._dirty, False
        try:
            await self.device.flush()
        except OrionError as error:
            self._dirty = dirty
            if self.exposed.flush_failure is None:
                self.exposed.flush_failure = error
            raise

    def close_error(self) -> OrionError | None:
        """The flush that failed, for everyone whose writes it may have lost.  close(2) itself flushes nothing."""
        return self.exposed.flush_failure if self._dirty else None

    def release(self) -> None:
        self.exposed.release()


class DocumentFile(OpenFile):
    """One rendering of a document."""

    __slots__ = ("_document", "_text")

    def __init__(self, node: DocumentNode) -> None:
        super().__init__(node)
        self._document = node
        self._text = node.rendering()
        node.open_count += 1

    def read_now(self, offset: int, length: int) -> bytes:
        return self._text[offset : offset + length]

    def release(self) -> None:
        self._document.open_count -= 1


class EventsFile(OpenFile):
    """The event stream: first what is still kept, then what happens.

    At the end a read finds the end of the file, so that ``cat`` ends; ``poll`` and ``tail -f`` wait for more.  A
    reader that asks for what is not kept any more gets the oldest that is, and goes on from there.
    """

    __slots__ = ("_position", "_shift", "_stream")

    def __init__(self, node: EventsNode) -> None:
        super().__init__(node)
        self._stream: EventStream = node.stream
        #: Where this reader's offset 0 is in the stream.
        self._shift = 0
        #: Up to where it has read.
        self._position = 0

    def read_now(self, offset: int, length: int) -> bytes:
        stream = self._stream
        stream.sync()
        position = offset + self._shift
        if position < stream.start:
            self._shift = stream.start - offset
            position = stream.start
        text = stream.read(position, length)
        self._position = position + len(text)
        return text

    def unread(self) -> bool:
        self._stream.sync()
        return self._stream.end > max(self._position, self._stream.start)
