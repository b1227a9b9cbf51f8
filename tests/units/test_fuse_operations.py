"""File operations on devices, called as plain coroutines."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.errors import MediaError
from orionfs.fuse.operations import Changes
from tests.units.fuse_kit import Rig, fails_with

SIZE = 1 << 20


@pytest.fixture(params=[True, False], ids=["inline", "waiting"])
def inline(request):
    return request.param


# --- reads and writes ------------------------------------------------------------------------------------------------


async def test_what_is_written_is_read_back(inline):
    rig = Rig(inline=inline)
    handle = await rig.open()
    data = bytes(range(256)) * 32
    assert await rig.operations.write(handle, 8192, data) == len(data)
    assert await rig.read(handle, 8192, len(data)) == data
    assert bytes(rig.ram.data[8192 : 8192 + len(data)]) == data


async def test_a_read_larger_than_any_request_of_the_kernel_is_served_too():
    rig = Rig(size=4 << 20)
    rig.ram.data[:] = os.urandom(4 << 20)
    handle = await rig.open()
    assert await rig.read(handle, 512, 3 << 20) == bytes(rig.ram.data[512 : 512 + (3 << 20)])


async def test_reads_end_at_the_end(inline):
    rig = Rig(inline=inline)
    rig.ram.data[-10:] = b"0123456789"
    handle = await rig.open()
    assert await rig.read(handle, SIZE - 10, 4096) == b"0123456789"
    assert await rig.read(handle, SIZE, 4096) == b""
    assert await rig.read(handle, SIZE + 5, 4096) == b""


async def test_a_write_across_the_end_stores_what_fits_and_the_next_gets_enospc(inline):
    rig = Rig(inline=inline)
    handle = await rig.open()
    assert await rig.operations.write(handle, SIZE - 1000, b"x" * 4096) == 1000
    assert bytes(rig.ram.data[-1001:]) == b"\0" + b"x" * 1000
    with fails_with(errno.ENOSPC):
        await rig.operations.write(handle, SIZE, b"y")
    with fails_with(errno.ENOSPC):
        await rig.operations.write(handle, SIZE + 4096, b"y" * 10)
    assert len(rig.ram.data) == SIZE


@given(st.lists(st.tuples(st.integers(0, 8192), st.binary(min_size=1, max_size=3000)), max_size=12), st.booleans())
async def test_writes_of_any_offset_and_length_act_as_on_a_plain_file(writes, inline):
    rig = Rig(size=8192, block=4096, inline=inline)
    handle = await rig.open()
    model = bytearray(8192)
    for offset, data in writes:
        fits = data[: max(8192 - offset, 0)]
        if fits:
            assert await rig.operations.write(handle, offset, data) == len(fits)
            model[offset : offset + len(fits)] = fits
        else:
            with fails_with(errno.ENOSPC):
                await rig.operations.write(handle, offset, data)
    assert await rig.read(handle, 0, 16384) == bytes(model)


async def test_fsync_flushes_the_device_each_time():
    rig = Rig()
    handle = await rig.open()
    await rig.operations.fsync(handle)
    await rig.operations.fsync(handle)
    assert rig.ram.flushes == 2


async def test_close_flushes_nothing():
    rig = Rig()
    handle = await rig.open()
    await rig.operations.write(handle, 0, b"x" * 512)
    await rig.operations.flush(handle)
    await rig.operations.release(handle)
    assert rig.ram.flushes == 0


async def test_close_reports_the_flush_that_failed_to_every_writer_and_to_nobody_else():
    rig = Rig()
    writer, other, reader = await rig.open(), await rig.open(), await rig.open(flags=os.O_RDONLY)
    for handle in (writer, other):
        await rig.operations.write(handle, 0, b"x" * 512)
    rig.faulty.fail("flush", MediaError("the cache was lost"), forever=True)
    with fails_with(errno.EIO):
        await rig.operations.fsync(writer)
    for handle in (writer, other):
        with fails_with(errno.EIO):
            await rig.operations.flush(handle)
    await rig.operations.flush(reader)


async def test_a_handle_that_synced_in_time_closes_cleanly():
    rig = Rig()
    early, late = await rig.open(), await rig.open()
    await rig.operations.write(early, 0, b"x" * 512)
    await rig.operations.fsync(early)
    await rig.operations.write(late, 0, b"x" * 512)
    rig.faulty.fail("flush", MediaError("the cache was lost"), forever=True)
    with fails_with(errno.EIO):
        await rig.operations.fsync(late)
    await rig.operations.flush(early)


@pytest.mark.parametrize("call", ["read", "write"])
async def test_an_error_of_the_device_reaches_the_program(call, inline):
    rig = Rig(inline=inline)
    handle = await rig.open()
    rig.faulty.fail(call, MediaError("bad sector"))
    with fails_with(errno.EIO):
        await (rig.operations.read(handle, 0, 512) if call == "read" else rig.operations.write(handle, 0, b"x" * 512))


async def test_a_released_handle_is_gone():
    rig = Rig()
    handle = await rig.open()
    await rig.operations.release(handle)
    with fails_with(errno.EBADF):
        await rig.operations.read(handle, 0, 512)
    assert not rig.operations.files


# --- who may write ---------------------------------------------------------------------------------------------------

WRITING = (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC)


@pytest.mark.parametrize("flags", WRITING)
@pytest.mark.parametrize(
    ("terms", "code"), [({"read_only": True}, errno.EROFS), ({"claimed_by": "volumes/tank"}, errno.EACCES)]
)
async def test_a_device_that_takes_no_writes_cannot_be_opened_for_them(terms, code, flags):
    rig = Rig(truncate="ignore", **terms)
    with fails_with(code):
        await rig.open(flags=flags)
    found = await rig.operations.getattr(await rig.inode("arrays/vault"))
    assert stat.S_IMODE(found.mode) == 0o440
    handle = await rig.open(flags=os.O_RDONLY)
    assert await rig.read(handle, 0, 4) == b"\0" * 4


async def test_a_latch_stops_writes_through_handles_that_are_open_already():
    rig = Rig()
    handle = await rig.open()
    rig.exposed.latch("the test says so")
    with fails_with(errno.EROFS):
        await rig.operations.write(handle, 0, b"x" * 512)
    assert await rig.read(handle, 0, 4) == b"\0" * 4


@pytest.mark.parametrize("name", ["status", "config.toml", "events"])
@pytest.mark.parametrize("flags", WRITING)
async def test_nothing_in_the_control_folder_can_be_opened_for_writing(name, flags):
    with fails_with(errno.EACCES):
        await Rig().open(f".orionfs/{name}", flags)


async def test_a_folder_cannot_be_opened_as_a_file():
    for path in ("", "arrays", ".orionfs"):
        with fails_with(errno.EISDIR):
            await Rig().open(path, os.O_RDONLY)


# --- truncation ------------------------------------------------------------------------------------------------------


async def truncate(rig, size):
    return await rig.operations.setattr(await rig.inode("arrays/vault"), Changes(size=size))


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1, 1 << 62])
async def test_truncation_is_refused_by_default_and_changes_nothing(size):
    rig = Rig()
    rig.ram.data[:] = b"x" * SIZE
    with fails_with(errno.EPERM):
        await truncate(rig, size)
    with fails_with(errno.EPERM):
        await rig.open(flags=os.O_WRONLY | os.O_TRUNC)
    assert rig.ram.data == b"x" * SIZE
    assert not rig.operations.files


@pytest.mark.parametrize("policy", ["refuse", "ignore", "discard"])
async def test_truncation_to_the_size_that_it_has_is_allowed_and_changes_nothing(policy):
    rig = Rig(truncate=policy)
    rig.ram.data[:] = b"x" * SIZE
    assert (await truncate(rig, SIZE)).size == SIZE
    assert rig.ram.data == b"x" * SIZE


@pytest.mark.parametrize("size", [0, 1000, SIZE + 1])
async def test_ignored_truncation_succeeds_without_effect_as_on_a_block_device(size):
    rig = Rig(truncate="ignore")
    rig.ram.data[:] = b"x" * SIZE
    assert (await truncate(rig, size)).size == SIZE
    await rig.open(flags=os.O_WRONLY | os.O_TRUNC)
    assert rig.ram.data == b"x" * SIZE


@pytest.mark.parametrize("size", [0, 1, 512, 1000, SIZE - 1])
async def test_discarding_truncation_leaves_zeros_behind_the_new_end_as_in_a_file(size):
    rig = Rig(truncate="discard", block=4096)
    rig.ram.data[:] = b"x" * SIZE
    found = await truncate(rig, size)
    assert rig.ram.data == b"x" * size + bytes(SIZE - size)
    # The kernel must drop its cache behind the new end, and ask again.
    assert (found.size, found.attribute_timeout_s) == (size, 0.0)
    assert (await rig.operations.getattr(found.inode)).size == SIZE


async def test_opening_with_o_trunc_zeroes_a_device_that_says_discard():
    rig = Rig(truncate="discard")
    rig.ram.data[:] = b"x" * SIZE
    before = rig.exposed.attributes.mtime_ns
    await rig.open(flags=os.O_WRONLY | os.O_TRUNC)
    assert rig.ram.data == bytes(SIZE)
    assert rig.exposed.attributes.mtime_ns > before


async def test_a_device_cannot_grow_also_where_truncation_discards():
    rig = Rig(truncate="discard")
    with fails_with(errno.EFBIG):
        await truncate(rig, SIZE + 1)


async def test_a_failed_discard_is_reported_and_gives_no_handle():
    rig = Rig(truncate="discard")
    rig.faulty.fail("write_zeroes", MediaError("bad sector"))
    with fails_with(errno.EIO):
        await rig.open(flags=os.O_WRONLY | os.O_TRUNC)
    assert not rig.operations.files
