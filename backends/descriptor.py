"""DescriptorDevice: reads and writes on an open file descriptor, each on the thread where it delays nobody."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict

import trio

from orionfs.backends.inline import SLOW_NS, InlineRule
from orionfs.backends.lanes import Lanes
from orionfs.backends.libc import punch_hole
from orionfs.backends.medium import Medium
from orionfs.backends.opening import Opened
from orionfs.backends.transfer import punch_pages, read_all, write_all, zero_and_check
from orionfs.buffers import POOL, Buffer, gather, total_length, window
from orionfs.device import Counters, StorageDevice
from orionfs.environment import Environment
from orionfs.errors import DeviceError, MediaError, OrionError, ReadOnly, from_oserror

#: Writes leave the event loop while a member has more than this that no flush has covered: the kernel makes the
#: writer of too many dirty pages wait.
UNFLUSHED_LIMIT = 64 << 20

# Reads and writes have lanes of their own, so that a cold read does not wait behind a writer whom the kernel holds up;
# several of them, because a disk serves many cold reads in the time of one.  Flushes too: fdatasync takes as long as
# hundreds of reads, and needs no order with requests that have not completed.
_READ_LANES = 4
_WRITE_LANES = 2
_BOUNCE = 1 << 20

# While the kernel releases or zeroes a range, every writer of the file waits for it; in steps, they get their turn.
_RESHAPE_STEP = 1 << 30


class _TooShort(OSError):
    """Found on a worker, just before a write that would have hidden it."""


class DescriptorDevice(StorageDevice):
    """What files and block devices have in common.  Owns the descriptor.

    **Reads** of what is in the page cache run inline, with RWF_NOWAIT where the filesystem has it, without where it
    never waits; all others run on workers.  **Writes** into the page cache run inline while :class:`InlineRule` and
    :data:`UNFLUSHED_LIMIT` allow it.  What lies on FUSE or on a network, or is opened with O_DIRECT, is only ever
    touched by workers.

    A ``read`` or ``write`` that is served inline is not a checkpoint.

    A file that turns out to be shorter than when it was opened has **lost its medium for good**: everything fails
    from then on.  A write, or a repair by the redundancy above, would make it long enough again, with a hole where
    data were.
    """

    def __init__(self, opened: Opened, *, name: str, environment: Environment) -> None:
        self.name = name
        self.path = opened.path
        self.geometry = opened.geometry
        self.read_only = opened.read_only
        self.direct = opened.direct
        self.medium = opened.medium
        self.counters = Counters()

        self._descriptor = opened.descriptor
        self._size = opened.geometry.size
        self._misaligned = opened.geometry.logical_block - 1

        self._remote = opened.medium is Medium.REMOTE
        cached = not opened.direct and not self._remote
        self._never_waits = cached and opened.medium is Medium.MEMORY
        self._reads_inline = cached and (self._never_waits or opened.nowait)
        self._read_flags = 0 if self._never_waits else os.RWF_NOWAIT
        self._writes_inline = cached and not opened.read_only
        self._rule = InlineRule()
        self._elapsed_ns = environment.clock.elapsed_ns

        self._reading = Lanes(environment.threads, f"{name} read", _READ_LANES)
        self._writing = Lanes(environment.threads, f"{name} write", _WRITE_LANES)
        self._flushing = Lanes(environment.threads, f"{name} flush", 1)
        self._bounce_reads = self._bounce_writes = False
        self._no_holes = False
        self._reshaping = 0

        # Bytes ever written, and how many of them the last flush covered.  It begins with one that is not covered: a
        # process that was killed may have left writes in the page cache, and our first flush has to vouch for them.
        self._dirtied = 1
        self._flushed = 0
        #: Why the medium is gone, once it is.
        self._gone = ""
        self._flush_turn = trio.Lock()
        self._flush_failure: DeviceError | None = None
        self._closing = False

    # --- data ------------------------------------------------------------------------------------------------------

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        if offset < 0 or offset + length > self._size or (offset | length) & self._misaligned:
            self.check(offset, length)
        if not self._reads_inline:
            return False
        try:
            done = os.preadv(self._descriptor, buffers, offset, self._read_flags)
        except BlockingIOError:
            return False
        except OSError as error:
            self._decline(error, "read", offset, length)
            return False
        if done != length:
            return False  # partly cached, or the file ends here: a worker reads the rest, or finds that out
        counters = self.counters
        counters.reads += 1
        counters.read_bytes += length
        return True

    def try_write(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        length = len(buffers[0]) if len(buffers) == 1 else total_length(buffers)
        if offset < 0 or offset + length > self._size or (offset | length) & self._misaligned:
            self.check(offset, length)
        if not self._writes_inline or self._reshaping:
            return False
        if os.lseek(self._descriptor, 0, os.SEEK_END) < self._size:  # 0.2 us; fstat takes four times as long
            raise self._shortened("write")
        try:
            if self._never_waits:
                done = os.pwritev(self._descriptor, buffers, offset)
            else:
                if not self._rule.inline or self._dirtied - self._flushed > UNFLUSHED_LIMIT:
                    return False
                began = self._elapsed_ns()
                done = os.pwritev(self._descriptor, buffers, offset)
                took = self._elapsed_ns() - began
                self._rule.count += 1
                if took >= SLOW_NS:
                    self._rule.slow(took)
            if done != length:
                write_all(self._descriptor, offset, buffers, done)
        except OSError as error:
            self._decline(error, "write", offset, length)
            return False
        self._dirtied += length
        counters = self.counters
        counters.writes += 1
        counters.written_bytes += length
        return True

    async def read(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self.try_read(offset, buffers):
            return
        self._check_open("read")
        length = total_length(buffers)
        try:
            if self.direct:
                done = await self._read_direct(offset, buffers)
            else:
                done = await self._reading.run(read_all, self._descriptor, offset, buffers)
        except OSError as error:
            raise self._failed(error, "read", offset, length) from error
        if done != length:
            raise self._shortened("read")
        self.counters.reads += 1
        self.counters.read_bytes += length

    async def write(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self.try_write(offset, buffers):
            return
        self._check_writable()
        length = total_length(buffers)
        try:
            if self.direct:
                await self._write_direct(offset, buffers)
            else:
                took = await self._writing.run(self._timed_write, self._descriptor, offset, buffers)
                self._rule.record(took)
        except _TooShort as error:
            raise self._shortened("write") from error
        except OSError as error:
            raise self._failed(error, "write", offset, length) from error
        finally:
            self._dirtied += length or 1  # a write that failed may have left something behind, too
        self.counters.writes += 1
        self.counters.written_bytes += length

    def _timed_write(self, descriptor: int, offset: int, buffers: Sequence[Buffer]) -> int:
        began = self._elapsed_ns()
        self._guarded_write(descriptor, offset, buffers)
        return self._elapsed_ns() - began

    def _guarded_write(self, descriptor: int, offset: int, buffers: Sequence[Buffer]) -> None:
        if os.lseek(descriptor, 0, os.SEEK_END) < self._size:
            raise _TooShort(errno.EIO, "the file is shorter than when it was opened")
        write_all(descriptor, offset, buffers)

    def _shortened(self, verb: str) -> MediaError:
        """The medium is gone, from now on for every request; the exception for this one."""
        if verb == "read":
            self.counters.read_errors += 1
        else:
            self.counters.write_errors += 1
        if not self._gone:
            self._gone = f"it was truncated; it had {self._size} bytes when it was opened"
            self._reads_inline = self._writes_inline = False
        return self._is_gone(verb)

    def _is_gone(self, verb: str) -> MediaError:
        return MediaError(f"cannot {verb} {self.path}: {self._gone}", hint="restore it before the next mount")

    def _decline(self, error: OSError, verb: str, offset: int, length: int) -> None:
        """An inline attempt failed: return if a worker should try, raise if it would fare no better."""
        if error.errno == errno.EINVAL:
            return  # more buffers than one call takes; if it is something else, the worker reports it
        if error.errno == errno.EOPNOTSUPP and verb == "read":
            self._reads_inline = False
            return
        raise self._failed(error, verb, offset, length) from error

    def _failed(self, error: OSError, verb: str, offset: int, length: int) -> DeviceError:
        """Count a failed request; the exception for it."""
        if verb == "read":
            self.counters.read_errors += 1
        else:
            self.counters.write_errors += 1
            self._dirtied += 1
        return self._translated(error, f"{verb} {length} bytes at {offset} of {self.path}")

    def _translated(self, error: OSError, what: str) -> DeviceError:
        translated: OrionError = from_oserror(error, what)
        # Permissions and names are matters of opening; a request that meets them has lost its medium.
        return translated if isinstance(translated, DeviceError) else MediaError(translated.message)

    # --- O_DIRECT ----------------------------------------------------------------------------------------------------

    async def _read_direct(self, offset: int, buffers: Sequence[Buffer]) -> int:
        """Read past the page cache; by way of an aligned buffer once the kernel refused the caller's."""
        if not self._bounce_reads:
            try:
                return await self._reading.run(read_all, self._descriptor, offset, buffers)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._bounce_reads = True
        total = total_length(buffers)
        done = 0
        bounce = POOL.take(min(total, _BOUNCE) or 1)
        try:
            while done < total:
                step = min(total - done, len(bounce))
                moved = await self._reading.run(read_all, self._descriptor, offset + done, [bounce[:step]])
                start = 0
                for view in window(buffers, done, moved):
                    view[:] = bounce[start : start + len(view)]
                    start += len(view)
                done += moved
                if moved != step:
                    break
        finally:
            POOL.give(bounce)
        return done

    async def _write_direct(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if not self._bounce_writes:
            try:
                await self._writing.run(self._guarded_write, self._descriptor, offset, buffers)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._bounce_writes = True
        total = total_length(buffers)
        bounce = POOL.take(min(total, _BOUNCE) or 1)
        try:
            for done in range(0, total, len(bounce)):
                step = min(total - done, len(bounce))
                bounce[:step] = gather(window(buffers, done, step))
                await self._writing.run(self._guarded_write, self._descriptor, offset + done, [bounce[:step]])
        finally:
            POOL.give(bounce)

    # --- durability ------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Make every write that completed before this call durable, by fdatasync(2).

        Takes no system call if nothing was written since the last flush.  Flushes that wait for their turn share one.
        """
        covers = self._dirtied
        if self._flush_failure is None and self._flushed >= covers:
            return
        self._check_open("flush")
        async with self._flush_turn:
            if self._flush_failure is not None:
                raise type(self._flush_failure)(self._flush_failure.message, hint=self._flush_failure.hint)
            if self._flushed >= covers:
                return
            covers = self._dirtied
            try:
                await self._flushing.run(self._sync, self._descriptor)
            except OSError as error:
                self.counters.write_errors += 1
                failure = self._translated(error, f"flush {self.path}")
                failure.hint = "what was written since its last flush may be lost, and all its flushes fail from now on"
                self._flush_failure = failure
                raise failure from error
            self._flushed = covers

    def try_flush(self) -> bool:
        if self._flush_failure is not None or self._gone or self._descriptor < 0:
            return False
        if self._flushed < self._dirtied:
            if not self._never_waits:
                return False
            try:
                os.fdatasync(self._descriptor)  # keeps memory where it is: no worker is worth that
            except OSError:
                return False  # a worker meets it again, and makes it sticky
            self._flushed = self._dirtied
        return True

    def _sync(self, descriptor: int) -> None:
        """Runs on a worker."""
        os.fdatasync(descriptor)

    # --- space -----------------------------------------------------------------------------------------------------

    async def discard(self, offset: int, length: int) -> None:
        self.check(offset, length)
        self._check_writable()
        try:
            await self._punch(punch_pages if self._remote else punch_hole, offset, length)
        except OSError as error:
            raise self._failed(error, "discard", offset, length) from error

    async def write_zeroes(self, offset: int, length: int) -> None:
        self.check(offset, length)
        self._check_writable()
        try:
            if not await self._punch(zero_and_check if self._remote else punch_hole, offset, length):
                await self._fill_zeroes(offset, length)
        except OSError as error:
            raise self._failed(error, "zero", offset, length) from error

    async def _punch(self, punch: Callable[[int, int, int], None], offset: int, length: int) -> bool:
        """Release the range by *punch*; False where the medium has no holes.  Raises OSError."""
        if self._no_holes:
            return False
        try:
            await self._reshape(punch, offset, length)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._no_holes = True
            return False
        return True

    async def _fill_zeroes(self, offset: int, length: int) -> None:
        """Zero a range of a medium that has no holes.  May raise OSError."""
        await super().write_zeroes(offset, length)

    async def _reshape(self, function: Callable[[int, int, int], None], offset: int, length: int) -> None:
        """Have a worker call ``function(descriptor, offset, length)``, step by step.  Raises OSError."""
        self._reshaping += 1
        try:
            for start in range(offset, offset + length, _RESHAPE_STEP):
                step = min(_RESHAPE_STEP, offset + length - start)
                await self._writing.run(function, self._descriptor, start, step)
        finally:
            self._reshaping -= 1
            self._dirtied += 1

    # --- the rest --------------------------------------------------------------------------------------------------

    @property
    def inline_writes(self) -> bool:
        """Whether the next write would run on the event loop."""
        if not self._writes_inline:
            return False
        return self._never_waits or (self._rule.inline and self._dirtied - self._flushed <= UNFLUSHED_LIMIT)

    def _state(self) -> str:
        return "active" if self._flush_failure is None and not self._gone else "failed"

    def _counts(self) -> dict[str, int]:
        return asdict(self.counters)

    def _check_writable(self) -> None:
        if self.read_only:
            raise ReadOnly(f"{self.path} was opened read-only")
        self._check_open("write")

    def _check_open(self, verb: str) -> None:
        if self._gone:
            raise self._is_gone(verb)
        if self._descriptor < 0:
            raise MediaError(f"cannot {verb} {self.path}: the device is closed")

    async def aclose(self) -> None:
        """Flush, wait for the requests that run, and close the descriptor, which gives up its lock.

        If it is cancelled it may leave out the flush, but nothing else.
        """
        if self._closing:
            return
        self._closing = True
        try:
            if not self.read_only:
                await self.flush()
        finally:
            descriptor, self._descriptor = (
                self._descriptor,
                -1,
            )  # requests fail now: its number may soon be another file
            self._reads_inline = self._writes_inline = False
            await self._reading.aclose()
            await self._writing.aclose()
            try:
                await self._flushing.run(os.close, descriptor)
            except OSError as error:
                raise self._translated(error, f"close {self.path}") from error
            finally:
                await self._flushing.aclose()
