"""How a background job shares the members with the foreground."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.pace import Pace
from orionfs.array.policies import Policies
from orionfs.units import KIB, MIB

UNIT = 64 * KIB


class Bench:
    """A job on a clock of its own.  With *load* there is a foreground request during every step."""

    def __init__(self, *, load: bool, **policies: int) -> None:
        self.now = 100.0
        self.load = load
        self.requests = 0
        self.worked = 0.0
        self.moved = 0
        self.pace = Pace(self, Policies(**policies), lambda: self.requests)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    async def run(self, seconds: float, rate: float) -> float:
        """Work for so long, with members that move *rate* bytes per second; what came of it, bytes per second."""
        began = self.now
        while self.now < began + seconds:
            self.requests += self.load
            size = self.pace.batch(UNIT)
            assert size % UNIT == 0
            took = size / rate
            self.now += took
            self.worked += took
            self.moved += size
            await self.pace.rest(size, took)
        return self.moved / (self.now - began)


async def test_alone_a_job_never_rests_and_moves_much_at_a_time():
    bench = Bench(load=False)
    assert bench.pace.batch(UNIT) == MIB
    assert await bench.run(1, 500 * MIB) == pytest.approx(500 * MIB)


async def test_beside_requests_it_works_a_tenth_of_the_time_a_unit_at_a_time():
    bench = Bench(load=True, rebuild_floor=0)
    bench.requests = 1
    assert bench.pace.batch(UNIT) == UNIT
    await bench.run(2, 500 * MIB)
    assert bench.worked == pytest.approx(0.2, rel=0.05)


async def test_a_unit_larger_than_the_batch_is_done_as_a_whole():
    assert Bench(load=True).pace.batch(8 * MIB) == 8 * MIB


@given(st.integers(MIB, 500 * MIB), st.integers(MIB, 400 * MIB))
async def test_it_never_falls_below_the_floor_if_the_members_can_do_it(floor, rate):
    bench = Bench(load=True, rebuild_floor=floor)
    assert await bench.run(3, rate) >= 0.95 * min(floor, rate)


@given(st.integers(MIB, 100 * MIB), st.booleans())
async def test_it_never_exceeds_the_ceiling(ceiling, load):
    bench = Bench(load=load, rebuild_floor=0, rebuild_ceiling=ceiling)
    # The first batches may come before any of them has been measured.
    assert await bench.run(5, 500 * MIB) <= 1.05 * ceiling + 2 * MIB / 5


async def test_it_takes_up_speed_again_when_the_requests_end():
    bench = Bench(load=True)
    await bench.run(1, 500 * MIB)
    bench.load = False
    await bench.run(0.5, 500 * MIB)
    assert bench.pace.batch(UNIT) == MIB
