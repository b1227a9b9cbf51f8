"""A device that is lent: it passes everything through, and its end is not the end of the device."""

from orionfs.layers.lent import Lent
from orionfs.testing.conformance import check_device
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB


async def test_it_is_a_device_like_any_other():
    async def make():
        return Lent(RamDevice("ram", MIB, 4096))

    await check_device(make)


async def test_its_end_flushes_the_device_and_leaves_it_open():
    child = FaultyDevice(RamDevice("ram", MIB))
    lent = Lent(child)
    assert lent.describe() == child.describe()
    await lent.aclose()
    assert child.calls == {"flush": 1}
    await child.write(0, [bytes(512)])
