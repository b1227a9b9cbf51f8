"""FaultyDevice fails what was scripted, and nothing else."""

import pytest
import trio
import trio.testing

from orionfs.errors import MediaError
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

BLOCK = bytes(range(256)) * 2


def make(**options) -> FaultyDevice:
    return FaultyDevice(RamDevice("ram", 8192), **options)


async def read(device, offset=0) -> bytes:
    buffer = bytearray(512)
    if not device.try_read(offset, [buffer]):
        await device.read(offset, [buffer])
    return bytes(buffer)


async def write(device, offset=0) -> None:
    if not device.try_write(offset, [BLOCK]):
        await device.write(offset, [BLOCK])


@pytest.mark.parametrize("inline", [True, False])
async def test_only_the_nth_read_fails(inline):
    device = make(inline=inline)
    device.fail("read", lambda: MediaError("gone"), nth=2)
    await read(device)
    with pytest.raises(MediaError):
        await read(device)
    await read(device)
    assert device.calls == {"read": 3}


@pytest.mark.parametrize("inline", [True, False])
async def test_forever_lasts_until_it_is_healed(inline):
    device = make(inline=inline)
    device.fail("write", MediaError("gone"), nth=2, forever=True)
    await write(device)
    for _ in range(3):
        with pytest.raises(MediaError):
            await write(device)
    device.heal()
    await write(device)
    assert device.calls == {"write": 5}


@pytest.mark.parametrize("inline", [True, False])
async def test_a_failed_write_changes_nothing_unless_it_is_too_late(inline):
    device = make(inline=inline)
    device.fail("write", MediaError("gone"))
    device.fail("write", MediaError("gone"), nth=2, too_late=True)
    with pytest.raises(MediaError):
        await write(device)
    assert await read(device) == bytes(512)
    with pytest.raises(MediaError):
        await write(device)
    assert await read(device) == BLOCK


@pytest.mark.parametrize("inline", [True, False])
async def test_a_range_limits_what_counts(inline):
    device = make(inline=inline)
    device.fail("read", MediaError("gone"), within=(512, 1024))
    await read(device, 0)
    await read(device, 1024)
    with pytest.raises(MediaError):
        await read(device, 512)


async def test_a_blocked_operation_waits_for_its_gate():
    device = make()
    gate = trio.Event()
    device.block("write", gate)
    assert not device.try_write(0, [BLOCK])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.write, 0, [BLOCK])
        await trio.testing.wait_all_tasks_blocked()
        assert await read(device) == bytes(512)
        gate.set()
    assert await read(device) == BLOCK
    assert device.calls["write"] == 1


async def test_flush_discard_and_zeroing_can_fail():
    device = make()
    for operation in ("flush", "discard", "write_zeroes"):
        device.fail(operation, MediaError(operation))
    with pytest.raises(MediaError, match="flush"):
        await device.flush()
    with pytest.raises(MediaError, match="discard"):
        await device.discard(0, 512)
    with pytest.raises(MediaError, match="write_zeroes"):
        await device.write_zeroes(0, 512)
    await device.flush()
    assert device.child.flushes == 1


async def test_what_the_child_declines_is_counted_once():
    device = FaultyDevice(RamDevice("ram", 8192, always_wait=True))
    await write(device)
    assert device.calls == {"write": 1}
