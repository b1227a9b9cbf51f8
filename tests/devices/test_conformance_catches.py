"""The conformance suite can fail: each of these devices breaks one promise, and is caught at it."""

import itertools
from dataclasses import replace

import pytest
import trio

from orionfs.backends.null import NullDevice
from orionfs.device import Geometry
from orionfs.errors import MediaError
from orionfs.extents import Extent, Kind
from orionfs.layers.bytewise import Bytewise
from orionfs.testing.conformance import ConformanceError, check_device
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB, round_down, round_up

SIZE = MIB + 512


class Broken(RamDevice):
    """A device to break: everything goes through _get and _put."""

    def __init__(self, always_wait=False):
        super().__init__("broken", SIZE, always_wait=always_wait)
        self.calls = itertools.count(1)


class ReadsShort(Broken):
    def _get(self, offset, buffers):
        super()._get(offset, [memoryview(buffers[0])[:-1], *buffers[1:]] if buffers and len(buffers[0]) else buffers)


class ReadsZerosNowAndThen(Broken):
    def _get(self, offset, buffers):
        super()._get(offset, buffers)
        if next(self.calls) % 20 == 0 and buffers:
            memoryview(buffers[-1])[:] = bytes(len(buffers[-1]))


class ReadsBeyondItsBuffers(Broken):
    def _get(self, offset, buffers):
        super()._get(offset, buffers)
        if buffers and isinstance(buffers[-1], memoryview):
            buffers[-1].obj[-1] ^= 1


class ReadsWhatWasThereBefore(Broken):
    def _put(self, offset, buffers):
        length = sum(map(len, buffers))
        self.stale = (offset, bytes(self.data[offset : offset + length]))
        super()._put(offset, buffers)

    def _get(self, offset, buffers):
        super()._get(offset, buffers)
        stale_offset, stale = getattr(self, "stale", (-1, b""))
        if stale_offset == offset and len(stale) == len(buffers[0]):
            buffers[0][:] = stale


class LosesWrites(Broken):
    def _put(self, offset, buffers):
        if next(self.calls) % 10:
            super()._put(offset, buffers)


class WritesOneBlockTooFar(Broken):
    def _put(self, offset, buffers):
        super()._put(min(offset + 512, SIZE - sum(map(len, buffers))), buffers)


class SpillsOver(Broken):
    def _put(self, offset, buffers):
        super()._put(offset, buffers)
        end = offset + sum(map(len, buffers))
        self.data[end : round_up(end, 4096)] = bytes(round_up(end, 4096) - end)
        del self.data[SIZE:]


class MixesUpItsPieces(Broken):
    def _put(self, offset, buffers):
        super()._put(offset, list(reversed(buffers)))


class ChangesTheBuffersOfItsCaller(Broken):
    def _put(self, offset, buffers):
        super()._put(offset, buffers)
        for buffer in buffers:
            if isinstance(buffer, memoryview) and len(buffer) and not buffer.readonly:
                buffer[0] ^= 1


class TakesFewPieces(Broken):
    def _put(self, offset, buffers):
        if len(buffers) > 1024:
            raise MediaError("too many pieces")
        super()._put(offset, buffers)


class TriesAndWritesAllTheSame(Broken):
    def try_write(self, offset, buffers):
        super().try_write(offset, buffers)
        return False


class SaysThatItWrote(Broken):
    def try_write(self, offset, buffers):
        self.check_buffers(offset, buffers)
        return True


class SaysThatItRead(Broken):
    def try_read(self, offset, buffers):
        self.check_buffers(offset, buffers)
        return True


class TakesAnyOffset(Broken):
    def check(self, offset, length):
        if offset < 0 or offset + length > SIZE:
            super().check(offset, length)


class TakesWhatLiesBeyondItsEnd(Broken):
    def check(self, offset, length):
        if offset < 0 or (offset | length) % 512:
            super().check(offset, length)

    def _put(self, offset, buffers):
        super()._put(offset, buffers)
        del self.data[SIZE:]

    def _get(self, offset, buffers):
        if offset + sum(map(len, buffers)) <= SIZE:
            super()._get(offset, buffers)


class RefusesWithTheWrongError(Broken):
    def check(self, offset, length):
        if offset < 0 or offset + length > SIZE or (offset | length) % 512:
            raise ValueError("no")


class RefusesTooLate(Broken):
    async def write(self, offset, buffers):
        if 0 <= offset <= SIZE - sum(map(len, buffers)):
            self._put(offset, buffers)
        self.check_buffers(offset, buffers)


class RefusesEmptyRequests(Broken):
    async def write(self, offset, buffers):
        assert buffers
        await super().write(offset, buffers)


class ZeroesNothing(Broken):
    async def write_zeroes(self, offset, length):
        self.check(offset, length)


class ZeroesTooMuch(Broken):
    async def write_zeroes(self, offset, length):
        self.check(offset, length)
        start, end = round_down(offset, 4096), min(round_up(offset + length, 4096), SIZE)
        self.data[start:end] = bytes(end - start)


class DiscardsToGarbage(Broken):
    async def discard(self, offset, length):
        self.check(offset, length)
        self.data[offset : offset + length] = b"\xff" * length


class DiscardsTooMuch(Broken):
    async def discard(self, offset, length):
        await ZeroesTooMuch.write_zeroes(self, offset, length)


class DiscardsLater(Broken):
    discarded = (0, 0)

    async def discard(self, offset, length):
        self.check(offset, length)
        self.discarded = (offset, length)

    def _get(self, offset, buffers):
        super()._get(offset, buffers)
        start, length = self.discarded
        self.data[start : start + length] = bytes(length)
        self.discarded = (0, 0)


class CallsEverythingAHole(Broken):
    async def extents(self, offset, length):
        self.check(offset, length)
        if length:
            yield Extent(offset, length, Kind.HOLE)


class CallsTheLastBlockZero(Broken):
    async def extents(self, offset, length):
        self.check(offset, length)
        if length:
            yield Extent(offset, length - 512, Kind.DATA)
            yield Extent(offset + length - 512, 512, Kind.ZERO)


class LeavesGapsInItsExtents(Broken):
    async def extents(self, offset, length):
        self.check(offset, length)
        if length > 1024:
            yield Extent(offset, 512, Kind.DATA)
            yield Extent(offset + 1024, length - 1024, Kind.DATA)
        elif length:
            yield Extent(offset, length, Kind.DATA)


class EndsItsExtentsEarly(Broken):
    async def extents(self, offset, length):
        self.check(offset, length)
        if length > 512:
            yield Extent(offset, length - 512, Kind.DATA)


class HasExtentsBeyondTheRange(Broken):
    async def extents(self, offset, length):
        self.check(offset, length)
        if length:
            yield Extent(offset, length + 512, Kind.DATA)


class MixesOverlappingWrites(Broken):
    async def write(self, offset, buffers):
        length = self.check_buffers(offset, buffers)
        data = b"".join(buffers)
        for start in range(0, length, 256):
            self.data[offset + start : offset + start + 256] = data[start : start + 256]
            if next(self.calls) % 16 == 1:
                await trio.lowlevel.checkpoint()

    def try_write(self, offset, buffers):
        return False


class TearsWhatIsCancelled(Broken):
    async def write(self, offset, buffers):
        length = self.check_buffers(offset, buffers)
        self.data[offset : offset + length] = b"\x77" * length
        await trio.lowlevel.checkpoint()
        self._put(offset, buffers)

    def try_write(self, offset, buffers):
        return False


class FailsWhenItIsBusy(Broken):
    busy = 0

    async def write(self, offset, buffers):
        self.check_buffers(offset, buffers)
        if self.busy > 2:
            raise MediaError("too much at once")
        self.busy += 1
        try:
            await trio.lowlevel.checkpoint()
            self._put(offset, buffers)
        finally:
            self.busy -= 1

    def try_write(self, offset, buffers):
        return False


class DropsWhatItFlushes(Broken):
    async def flush(self):
        self.data[:512] = bytes(512)


class FlushesOnce(Broken):
    async def flush(self):
        await super().flush()
        if self.flushes > 1:
            raise MediaError("again?")


class NeverFlushes(Broken):
    async def flush(self):
        await trio.sleep_forever()


class ClosesOnce(Broken):
    async def aclose(self):
        if self.closed:
            raise MediaError("again?")
        await super().aclose()


class DescribesWithoutJson(Broken):
    def describe(self):
        return replace(super().describe(), details={"path": object()})


class DescribesAnother(Broken):
    def describe(self):
        return replace(super().describe(), name="other")


class CountsInWords(Broken):
    def describe(self):
        return replace(super().describe(), counters={"reads": "many"})


class TakesMoreSpaceThanItHas(Broken):
    def allocated(self):
        return SIZE + 1


class HasOddBlocks(Broken):
    def __init__(self):
        super().__init__()
        self.geometry = Geometry(size=SIZE, logical_block=520)


class HasHalfABlock(Broken):
    def __init__(self):
        super().__init__()
        self.geometry = Geometry(size=SIZE - 1)


BROKEN = {
    ReadsShort: "check_round_trips",
    ReadsZerosNowAndThen: "check_round_trips",
    ReadsBeyondItsBuffers: "beyond the buffers",
    ReadsWhatWasThereBefore: "check_round_trips",
    LosesWrites: "check_round_trips",
    WritesOneBlockTooFar: "check_round_trips",
    SpillsOver: "check_round_trips",
    MixesUpItsPieces: "check_round_trips",
    ChangesTheBuffersOfItsCaller: "changed the buffers",
    TakesFewPieces: "check_many_pieces",
    TriesAndWritesAllTheSame: "check_try_calls",
    SaysThatItWrote: "check_round_trips",
    SaysThatItRead: "check_round_trips",
    TakesAnyOffset: "check_refusals",
    TakesWhatLiesBeyondItsEnd: "check_refusals",
    RefusesWithTheWrongError: "not OutOfRange",
    RefusesTooLate: "check_refusals",
    RefusesEmptyRequests: "check_empty_requests",
    ZeroesNothing: "check_zeroes",
    ZeroesTooMuch: "check_zeroes",
    DiscardsToGarbage: "check_discards",
    DiscardsTooMuch: "check_discards",
    DiscardsLater: "check_discards",
    CallsEverythingAHole: "holds data",
    CallsTheLastBlockZero: "holds data",
    LeavesGapsInItsExtents: "does not continue",
    EndsItsExtentsEarly: "check_extents",
    HasExtentsBeyondTheRange: "does not continue",
    MixesOverlappingWrites: "check_overlaps",
    TearsWhatIsCancelled: "check_cancellation",
    FailsWhenItIsBusy: "check_concurrency",
    DropsWhatItFlushes: "check_concurrency",
    FlushesOnce: "check_concurrency",
    NeverFlushes: "hangs",
    ClosesOnce: "again?",
    DescribesWithoutJson: "JSON",
    DescribesAnother: "another name",
    CountsInWords: "integers",
    TakesMoreSpaceThanItHas: "allocated",
    HasOddBlocks: "power of two",
    HasHalfABlock: "whole blocks",
}


@pytest.mark.parametrize(("kind", "complaint"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
async def test_broken_device_is_caught(kind, complaint, autojump_clock):
    async def make():
        return kind()

    with pytest.raises((ConformanceError, MediaError), match=complaint):
        await check_device(make)


async def test_a_device_that_forgets_is_caught_when_it_is_opened_again():
    async def make():
        return Broken()

    with pytest.raises(ConformanceError, match="closed and opened again"):
        await check_device(make, reopen=make)


async def test_a_device_that_stores_nothing_is_caught_unless_it_says_so():
    async def make():
        return NullDevice("null", SIZE)

    with pytest.raises(ConformanceError, match="check_round_trips"):
        await check_device(make)


class NoLock:
    """What Bytewise would be without its lock."""

    def try_acquire(self, start, end):
        return True

    async def acquire(self, start, end):
        """Everybody is welcome."""

    def release(self, start, end):
        """Nothing was taken."""


async def test_read_modify_write_without_a_lock_is_caught():
    async def make():
        device = Bytewise(RamDevice("ram", SIZE, always_wait=True))
        device._changes = NoLock()
        return device

    with pytest.raises(ConformanceError, match="check_concurrency"):
        await check_device(make, any_offset=True)
