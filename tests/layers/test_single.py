"""One device of a jbod: it passes everything through and remembers what went wrong."""

from __future__ import annotations

import pytest

from orionfs.errors import MediaError, NoSpace, ReadOnly
from orionfs.layers.single import Single
from orionfs.testing.conformance import check_device
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB


@pytest.mark.parametrize("always_wait", [False, True])
async def test_it_is_a_device_like_any_other(always_wait: bool):
    async def make() -> Single:
        return Single(RamDevice("ram", 3 * MIB, always_wait=always_wait), name="disks.0")

    await check_device(make)


REQUESTS = {
    "read": lambda device: device.read(0, [bytearray(512)]),
    "write": lambda device: device.write(0, [bytes(512)]),
    "flush": lambda device: device.flush(),
}


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("operation", REQUESTS)
async def test_a_failed_request_is_told_until_it_is_cleared(operation: str, inline: bool):
    faulty = FaultyDevice(RamDevice("d0", MIB), inline=inline)
    single = Single(faulty, name="disks.0")
    assert single.describe().state == "clean"
    faulty.fail(operation, lambda: MediaError("the medium failed"), forever=True)
    assert not single.try_read(0, [bytearray(512)]) or operation != "read"
    with pytest.raises(MediaError):
        await REQUESTS[operation](single)
    described = single.describe()
    (member,) = described.children
    assert (described.state, described.details["slots"], member.state) == ("failed", "_", "failed")
    assert described.details["why"] == ["d0: the medium failed"]
    assert described.counters["read_errors"] + described.counters["write_errors"] == 1
    single.clear()
    assert single.describe().state == "clean"


async def test_a_read_only_one_takes_no_writes():
    single = Single(RamDevice("d0", MIB), name="disks.0", read_only=True)
    for write in (single.write(0, [bytes(512)]), single.write_zeroes(0, 512), single.discard(0, 512)):
        with pytest.raises(ReadOnly):
            await write
    with pytest.raises(ReadOnly):
        single.try_write(0, [bytes(512)])
    await single.read(0, [bytearray(512)])


async def test_a_full_host_is_no_failure_of_the_device():
    faulty = FaultyDevice(RamDevice("d0", MIB), inline=False)
    single = Single(faulty, name="disks.0")
    faulty.fail("write", NoSpace("it is full"))
    with pytest.raises(NoSpace):
        await single.write(0, [bytes(512)])
    assert single.state == "clean"
