"""A device that is taken away: requests that run end well, all later ones say that it is gone."""

import errno

import pytest
import trio
import trio.testing

from orionfs.errors import Removed
from orionfs.layers.bytewise import Bytewise
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

REQUESTS = {
    "read": lambda device: device.read(0, [bytearray(512)]),
    "a read within a block": lambda device: device.read(1, [bytearray(5)]),
    "write": lambda device: device.write(0, [bytes(512)]),
    "a write within a block": lambda device: device.write(1, [bytes(5)]),
    "flush": lambda device: device.flush(),
    "write_zeroes": lambda device: device.write_zeroes(0, 1024),
    "discard": lambda device: device.discard(0, 1024),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_has_begun_is_waited_for_and_what_comes_later_fails_with_enodev(name: str):
    faulty = FaultyDevice(RamDevice("ram", 8192), inline=False)
    device = Bytewise(faulty)
    gate = trio.Event()
    for operation in ("read", "write", "flush", "write_zeroes", "discard"):
        faulty.block(operation, gate, forever=True)
    retired = trio.Event()

    async def retire() -> None:
        await device.retire()
        retired.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            halves = name == "a write within a block"  # the second half finds the device gone
            nursery.start_soon(expect, REQUESTS[name], device, halves)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(retire)
            await trio.testing.wait_all_tasks_blocked()
            assert not retired.is_set()
            nursery.start_soon(expect, REQUESTS[name], device, True)
            gate.set()
            await retired.wait()
    assert faulty.calls.total() == 1
    assert device.geometry.size == 8192


async def expect(request, device: Bytewise, removed: bool) -> None:
    if removed:
        with pytest.raises(Removed):
            await request(device)
    else:
        await request(device)


async def test_nothing_is_served_inline_and_the_former_device_is_left_to_its_owner():
    ram = RamDevice("ram", 8192)
    device = Bytewise(ram)
    await device.retire()
    with pytest.raises(Removed) as caught:
        device.try_read(0, [bytearray(512)])
    assert caught.value.errno == errno.ENODEV
    for write in (lambda: device.try_write(0, [bytes(512)]), lambda: device.try_write(3, [b"x"])):
        with pytest.raises(Removed):
            write()
    assert (device.allocated(), device.describe().state) == (0, "failed")
    await device.aclose()
    await ram.write(0, [bytes(512)])
