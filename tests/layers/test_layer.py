"""Layer passes everything through."""

from orionfs.layers.layer import Layer
from orionfs.testing.conformance import check_device
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice
from orionfs.units import MIB


async def test_the_contract_holds():
    async def make():
        return Layer(RamDevice("ram", MIB, 4096))

    await check_device(make)


async def test_every_call_is_the_same_call_of_the_child():
    child = FaultyDevice(RamDevice("ram", MIB))
    layer = Layer(child, name="layer")
    await layer.write(0, [bytes(512)])
    await layer.read(0, [bytearray(512)])
    await layer.write_zeroes(0, 512)
    await layer.discard(0, 512)
    await layer.flush()
    assert child.calls == {"read": 1, "write": 1, "write_zeroes": 1, "discard": 1, "flush": 1}
    assert layer.allocated() == MIB
    assert layer.describe().children == (child.describe(),)
    await layer.aclose()
    assert child.child.closed
