"""Placement: the places that mdadm 4.2 picked, sector by sector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.placement import bblog_offset, bitmap_space, component_size, data_offset

MIB = 2048  # sectors
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("device_size", "chunk_kib", "offset"),
    [
        (64 * MIB, 0, 2048),
        (64 * MIB, 64, 2048),
        (64 * MIB, 512, 4096),
        (GIB, 512, 4096),
        (9 * GIB, 512, 18432),
        (4096 * GIB, 512, 264192),
        (130 * GIB, 0, 264192),
        (40 * MIB + 3, 64, 2048),
    ],
)
def test_the_data_begin_where_mdadm_puts_them(device_size, chunk_kib, offset):
    assert data_offset(device_size, chunk_kib * 2) == offset


@pytest.mark.parametrize(
    ("sectors", "space"),
    [
        (0, 0),
        (127, 0),
        (128, 8),
        (8 * GIB + 8, 8),
        (8 * GIB + 9, 128),
        (200 * GIB + 127, 128),
        (200 * GIB + 128, 256),
    ],
)
def test_the_room_for_a_bitmap_grows_in_steps(sectors, space):
    assert bitmap_space(sectors) == space


@pytest.mark.parametrize(("size", "offset"), [(0, 8), (79872, 16), (9 * GIB, 136), (4096 * GIB, 264)])
def test_the_bad_block_log_lies_behind_the_bitmap(size, offset):
    assert bblog_offset(size) == offset


@pytest.mark.parametrize(
    ("available", "chunk", "block", "size"),
    [
        (79875, 128, 512, 79872),
        (79875, 0, 512, 79874),
        (79875, 0, 4096, 79872),
        (79879, 0, 4096, 79872),
        (127, 128, 512, 0),
    ],
)
def test_members_are_used_in_whole_chunks_or_kib(available, chunk, block, size):
    assert component_size(available, chunk, block) == size


@given(
    device_size=st.integers(2 * MIB, 2**40),
    chunk=st.sampled_from([0, *(8 << shift for shift in range(15))]),
    data=st.data(),
)
def test_no_two_areas_overlap_on_any_device(device_size, chunk, data):
    offset = data_offset(device_size, chunk)
    size = data.draw(st.sampled_from([0, component_size(max(device_size - offset, 0), chunk)]))
    assert offset % MIB == 0
    assert 8 + bitmap_space(size) + 8 <= 8 + bblog_offset(size) + 8 <= offset, "superblock, bitmap, log, data"
