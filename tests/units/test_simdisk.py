"""SimDisk keeps what was flushed, and only that, and does to the rest what it is told."""

import random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.errors import MediaError, NoSpace, OutOfRange
from orionfs.extents import Kind
from orionfs.testing import crash
from orionfs.testing.crash import Choice, Pending
from orionfs.testing.machine import Machine, PowerCut
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation, run

MIB = 1 << 20


def page(letter: bytes) -> bytes:
    return letter * 4096


def in_simulation(function, seed=0, **options):
    return run(seed, function, **options).value


async def read(disk, offset, length):
    buffer = bytearray(length)
    await disk.read(offset, [buffer])
    return bytes(buffer)


def test_a_write_is_read_back_across_pages_and_through_several_buffers():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(3584, [b"a" * 512, b"b" * 4096, b"c" * 512])
        parts = [bytearray(1024), bytearray(4608)]
        await disk.read(3072, parts)
        assert bytes(parts[0] + parts[1]) == bytes(512) + b"a" * 512 + b"b" * 4096 + b"c" * 512
        assert await read(disk, MIB - 512, 512) == bytes(512)

    in_simulation(main)


def test_an_unaligned_or_outside_request_is_refused_and_changes_nothing():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine, logical_block=4096)
        for offset, length in ((512, 4096), (0, 512), (MIB, 4096), (-4096, 4096)):
            with pytest.raises(OutOfRange):
                await disk.write(offset, [bytes(length)])
            with pytest.raises(OutOfRange):
                disk.try_write(offset, [bytes(length)])
        assert not disk.unflushed

    in_simulation(main)


def test_a_write_becomes_visible_when_it_completes_and_not_before():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine, inline=0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.write, 0, [page(b"x")])
            while not disk.unflushed:
                await trio.lowlevel.checkpoint()
            assert disk.unflushed[0].completed is None
            assert disk.content(0, 4096) == bytes(4096)
        assert disk.unflushed[0].completed is not None
        assert disk.content(0, 4096) == page(b"x")

    in_simulation(main)


def test_only_what_a_completed_flush_covers_survives_the_worst_power_cut():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(0, [page(b"a")])
        await disk.flush()
        await disk.write(0, [page(b"b")])
        await disk.write_zeroes(4096, 4096)
        after = disk.crash("none")
        assert after.content(0, 4096) == page(b"a")
        assert disk.crash("all").content(0, 4096) == page(b"b")
        assert disk.content(0, 4096) == page(b"b"), "the crash makes another disk; this one goes on"

    in_simulation(main)


def test_a_flush_does_not_cover_a_write_that_completed_after_it_was_submitted():
    async def main(simulation):
        for attempt in range(20):
            disk = SimDisk(f"d{attempt}", MIB, machine=simulation.machine, inline=0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(disk.flush)
                nursery.start_soon(disk.write, 0, [page(b"x")])
            assert disk.crash("none").content(0, 4096) == bytes(4096)
            await disk.flush()
            assert disk.crash("none").content(0, 4096) == page(b"x")

    in_simulation(main)


def test_the_later_of_two_flushed_writes_wins():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        for letter in (b"a", b"b", b"c"):
            await disk.write(0, [page(letter)])
        await disk.flush()
        assert disk.crash("none").content(0, 4096) == page(b"c")

    in_simulation(main)


def test_every_single_write_can_be_the_only_one_lost_or_kept_or_torn():
    pending = [Pending("d0", n * 4096, 4096, page(b"%d" % n), n) for n in range(3)]
    outcomes = {choice: _disk_after(pending, choice) for choice in crash.choices(pending, subsets=4)}
    letters = {choice: "".join(chr(disk[n * 4096]) for n in range(3)) for choice, disk in outcomes.items()}
    assert letters[Choice("none")] == "\0\0\0"
    assert letters[Choice("all")] == "012"
    assert letters[Choice("lost", 1)] == "0\x002"
    assert letters[Choice("kept", 1)] == "\x001\0"
    assert outcomes[Choice("head", 2)][8192:12288] == b"2" * 2048 + bytes(2048)
    assert outcomes[Choice("tail", 2)][8192:12288] == bytes(2048) + b"2" * 2048
    assert sum(choice.kind == "random" for choice in outcomes) == 4


def test_a_prefix_keeps_the_writes_that_were_submitted_first():
    pending = [Pending("d0", n * 512, 512, b"%d" % n * 512, n) for n in range(5)]
    assert _disk_after(pending, Choice("prefix", 3))[:2560:512] == b"012\0\0"


def test_overlapping_writes_may_reach_the_medium_in_any_order():
    pending = [Pending("d0", 0, 512, letter * 512, tick) for tick, letter in enumerate((b"a", b"b"))]
    seen = {_disk_after(pending, Choice("random", seed))[:1] for seed in range(40)}
    assert seen == {b"a", b"b", b"\0"}


def _disk_after(pending, choice):
    pages = {}
    crash.apply(pages, crash.outcome(pending, choice))
    return b"".join(crash.load(pages, 0, 16384))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.booleans())), st.integers(0, 99))
def test_stored_pages_are_what_a_flat_array_would_hold(writes, salt):
    pages, flat = {}, bytearray(64 * 512)
    generator = random.Random(salt)
    for first, count, zero in writes:
        count = min(count, 64 - first)
        data = None if zero else generator.randbytes(count * 512)
        crash.store(pages, first * 512, count * 512, data)
        flat[first * 512 : (first + count) * 512] = bytes(count * 512) if data is None else data
    assert b"".join(crash.load(pages, 0, len(flat))) == flat
    assert b"".join(crash.load(pages, 1536, 9728)) == flat[1536 : 1536 + 9728]


def test_no_sector_ever_holds_what_nobody_wrote_there():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        values = [{0} for _ in range(64)]
        generator = simulation.random("test")
        for number in range(1, 30):
            first = generator.randrange(60)
            count = generator.randint(1, 4)
            await disk.write(first * 512, [bytes([number]) * (count * 512)])
            for block in range(first, first + count):
                values[block].add(number)
            if generator.random() < 0.2:
                await disk.flush()
                for block in range(64):
                    values[block] = {disk.content(block * 512, 1)[0]}
        for choice in crash.choices(disk.unflushed, subsets=20):
            after = disk.crash(choice)
            for block in range(64):
                sector = after.content(block * 512, 512)
                assert sector == sector[:1] * 512
                assert sector[0] in values[block], choice

    for seed in range(5):
        in_simulation(main, seed)


def test_a_kill_loses_nothing_that_completed_and_a_power_cut_afterwards_still_does():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(0, [page(b"a")])
        survivor = disk.kill()
        assert survivor.content(0, 4096) == page(b"a")
        assert survivor.crash("none").content(0, 4096) == bytes(4096)
        await survivor.flush()
        assert survivor.crash("none").content(0, 4096) == page(b"a")

    in_simulation(main)


def test_a_kill_cuts_a_write_in_flight_only_at_page_boundaries():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine, inline=0)
        seen = set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disk.write, 2048, [b"x" * 8192])
            while not disk.unflushed:
                await trio.lowlevel.checkpoint()
            seen = {disk.kill(seed=seed).content(0, 12288).count(b"x") for seed in range(50)}
        assert seen == {0, 2048, 6144, 8192}

    in_simulation(main)


def test_the_power_goes_at_the_operation_that_was_asked_for_and_nothing_happens_after():
    disks = []

    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        disks.append(disk)
        try:
            for number in range(10):
                await disk.write(number * 4096, [page(b"x")])
        finally:
            with pytest.raises(PowerCut):
                await disk.flush()
            with pytest.raises(PowerCut):
                await disk.read(0, [bytearray(512)])

    result = run(1, main, cut_at=4)
    assert result.power_cut
    assert result.value is None
    assert len(disks[0].unflushed) == 4
    assert disks[0].machine.operations == 4


def test_a_power_cut_is_not_caught_by_code_that_handles_exceptions():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        try:
            await disk.write(0, [bytes(512)])
        except Exception:
            pytest.fail("handled")

    assert run(1, main, cut_at=1).power_cut


def test_other_errors_beside_a_power_cut_are_not_hidden():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        try:
            await disk.write(0, [bytes(512)])
        finally:
            raise ValueError("a bug in the cleanup")

    with pytest.raises(ValueError, match="a bug"):
        run(1, main, cut_at=1)


def test_the_nth_write_fails_once_or_for_ever_and_leaves_each_block_old_or_new():
    async def main(simulation):
        for forever in (False, True):
            disk = SimDisk(f"d{forever}", MIB, machine=simulation.machine)
            fault = simulation.machine.fail("write", at=3, disk=disk.name, forever=forever)
            failed = []
            for number in range(5):
                try:
                    await disk.write(number * 8192, [b"x" * 8192])
                except MediaError:
                    failed.append(number)
                assert set(disk.content(number * 8192, 8192)) <= {0, ord("x")}
            assert failed == ([2, 3, 4] if forever else [2])
            assert fault.hits == len(failed)

    in_simulation(main)


def test_a_write_without_space_does_nothing():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        simulation.machine.fail("write", error=NoSpace)
        with pytest.raises(NoSpace):
            await disk.write(0, [page(b"x")])
        assert disk.content(0, 4096) == bytes(4096)
        assert not disk.unflushed

    in_simulation(main)


def test_a_fault_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="trim"):
        Machine().fail({"trim"})


def test_a_failed_flush_stays_failed_and_makes_nothing_durable():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(0, [page(b"x")])
        simulation.machine.fail("flush")
        for _ in range(3):
            with pytest.raises(MediaError):
                await disk.flush()
        assert disk.crash("none").content(0, 4096) == bytes(4096)
        with pytest.raises(MediaError):
            await disk.aclose()

    in_simulation(main)


def test_a_latent_error_lasts_until_the_sector_is_written():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        disk.damage(4096, 1024)
        with pytest.raises(MediaError):
            await read(disk, 0, 8192)
        assert await read(disk, 0, 4096) == bytes(4096)
        await disk.write(4096, [bytes(512)])
        with pytest.raises(MediaError):
            await read(disk, 4608, 512)
        with pytest.raises(MediaError):
            await read(disk.crash(), 4608, 512)
        await disk.write(4608, [bytes(512)])
        assert await read(disk, 0, 8192) == bytes(8192)

    in_simulation(main)


def test_a_cancelled_write_happened_wholly_partly_or_not_at_all():
    async def main(simulation):
        seen = set()
        for number in range(40):
            disk = SimDisk(f"d{number}", MIB, machine=simulation.machine, inline=0)
            with trio.CancelScope() as scope:
                scope.cancel()
                await disk.write(0, [b"x" * 2048])
            seen.add(disk.content(0, 2048).count(b"x"))
        return seen

    assert {0, 2048} < in_simulation(main) <= {0, 512, 1024, 1536, 2048}


def test_try_read_and_try_write_sometimes_decline_and_then_do_nothing():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine, inline=0.5)
        outcomes = [disk.try_write(number * 512, [b"x" * 512]) for number in range(100)]
        assert set(outcomes) == {True, False}
        assert len(disk.unflushed) == sum(outcomes)
        buffer = bytearray(512)
        assert {disk.try_read(outcomes.index(True) * 512, [buffer]) for _ in range(50)} == {True, False}
        assert bytes(buffer) == b"x" * 512

    in_simulation(main)


def test_extents_and_allocated_tell_what_was_written():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(8192, [page(b"x")])
        extents = [tuple(extent) async for extent in disk.extents(0, 16384)]
        assert extents == [(0, 8192, Kind.HOLE), (8192, 4096, Kind.DATA), (12288, 4096, Kind.HOLE)]
        assert disk.allocated() == 4096
        await disk.discard(8192, 4096)
        assert disk.allocated() == 0

    in_simulation(main)


def test_the_bytes_and_the_life_of_a_crashed_disk_are_its_own():
    async def main(simulation):
        disk = SimDisk("d0", MIB, machine=simulation.machine)
        await disk.write(0, [page(b"a")])
        state = disk.state()
        other = SimDisk.restored(state, machine=Machine())
        await other.write(0, [page(b"b")])
        await other.flush()
        assert disk.content(0, 4096) == page(b"a")
        assert SimDisk.restored(state, machine=Machine()).content(0, 4096) == page(b"a")
        assert (other.name, other.geometry) == (disk.name, disk.geometry)
        disk.scribble(512, b"z" * 512)
        assert disk.crash("none").content(512, 512) == b"z" * 512

    in_simulation(main)


def test_a_simulation_gives_its_code_everything_that_an_environment_has():
    async def main(simulation: Simulation):
        environment = simulation.environment
        began = environment.clock.monotonic()
        await environment.clock.sleep(3600)
        assert 3600 <= environment.clock.monotonic() - began < 3600.001
        assert environment.clock.wall_ns() > 10**18
        worker = environment.threads.worker("w")
        assert await worker.run(sum, [1, 2]) == 3
        worker.close()
        return environment.randomness.bytes(16)

    assert run(5, main) == run(5, main)
    assert run(5, main).value != run(6, main).value
