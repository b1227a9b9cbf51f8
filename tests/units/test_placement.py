"""Placement: the places that mdadm 4.2 picked, sector by sector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.placement import (
    bblog_offset,
    bitmap_place,
    bitmap_space,
    component_size,
    data_offset,
    free_gap,
)
from orionfs.array.superblock import FEATURE_BITMAP, FEATURE_MULTIPLE_PPLS, FEATURE_PPL, Superblock

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


def superblock(**fields):
    values = {"data_offset": 4096, "data_size": 200000, "size": 200000, "bblog_size": 8, "bblog_offset": 16}
    return Superblock(bytes(16), bytes(16), 5, 3, 0, [0, 1, 2], **values | fields)


def ppl(offset, size):
    return {"feature_map": FEATURE_PPL, "bitmap_offset": (offset & 0xFFFF) | size << 16}


@pytest.mark.parametrize(
    ("fields", "bitmap_length", "gap"),
    [
        ({}, 0, (32, 4064)),
        ({"bblog_size": 0, "bblog_offset": 0}, 0, (24, 4072)),  # mdadm may want a bitmap there one day
        ({"feature_map": FEATURE_BITMAP, "bitmap_offset": 8}, 0, (32, 4064)),
        ({"feature_map": FEATURE_BITMAP, "bitmap_offset": 8, "bblog_size": 0}, 0, (272, 3824)),
        ({"feature_map": FEATURE_BITMAP, "bitmap_offset": 8, "bblog_size": 0}, 400000, (800, 3296)),
        ({"feature_map": FEATURE_BITMAP, "bitmap_offset": 8, "bblog_offset": 100}, 0, (120, 3976)),
        ({"feature_map": FEATURE_BITMAP, "bitmap_offset": 3000, "bblog_size": 0}, 0, (16, 2992)),
        ({"bblog_offset": 2056} | ppl(8, 2048), 0, (2072, 2024)),
        ({"bblog_offset": 2056, "data_offset": 2072} | ppl(8, 2048), 0, (0, 0)),
        ({"data_offset": 35}, 0, (0, 0)),
        ({"data_offset": 44}, 0, (32, 8)),
        ({"bblog_offset": 2000}, 0, (2016, 2080)),
        ({"bblog_offset": -8}, 0, (24, 4072)),
    ],
)
def test_the_gap_that_is_left_before_the_data(fields, bitmap_length, gap):
    assert free_gap(superblock(**fields), bitmap_length) == gap


@given(
    feature=st.sampled_from([0, FEATURE_BITMAP, FEATURE_PPL, FEATURE_MULTIPLE_PPLS]),
    bitmap_offset=st.integers(-(2**31), 2**31 - 1) | st.integers(-10, 6000),
    bblog_offset=st.integers(-(2**31), 2**31 - 1) | st.integers(-10, 6000),
    bblog_size=st.integers(0, 65535) | st.just(8),
    data_offset=st.integers(16, 2**62) | st.integers(16, 6000),
    size=st.integers(0, 2**62),
    bitmap_length=st.integers(0, 2**25),
)
def test_nothing_of_md_is_in_the_gap(
    feature, bitmap_offset, bblog_offset, bblog_size, data_offset, size, bitmap_length
):
    block = superblock(
        feature_map=feature,
        bitmap_offset=bitmap_offset,
        bblog_offset=bblog_offset,
        bblog_size=bblog_size,
        data_offset=data_offset,
        size=size,
    )
    start, length = free_gap(block, bitmap_length)
    assert start % 8 == length % 8 == 0
    if not length:
        return
    areas = [(0, 16), (data_offset, 2**63)]
    if bblog_size and bblog_offset:
        areas.append((8 + bblog_offset, 8 + bblog_offset + bblog_size))
    if feature == FEATURE_BITMAP:
        areas.append((8 + bitmap_offset, 8 + bitmap_offset + max(bitmap_space(size), -(-bitmap_length // 512))))
    elif feature:
        areas.append((8 + block.ppl_offset, 8 + block.ppl_offset + block.ppl_size))
    assert not any(low < start + length and start < high for low, high in areas)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"bitmap_offset": 8}, (8192, 4096)),
        ({"bitmap_offset": 8, "bblog_offset": 264}, (8192, 256 * 512)),
        ({"bitmap_offset": 8, "bblog_size": 0}, (8192, 4080 * 512)),
        ({"bitmap_offset": 2}, (5120, 7 * 1024)),
        ({"bitmap_offset": 20}, (28 * 512, 0)),
        ({"bitmap_offset": 0}, (4096, 0)),
        ({"bitmap_offset": -8}, (0, 4096)),
        ({"bitmap_offset": -9}, (-512, 0)),
        ({"bitmap_offset": 4088}, (4096 * 512, 0)),
        ({"bitmap_offset": 5000}, (5008 * 512, 0)),
    ],
)
def test_the_place_of_a_bitmap_ends_where_something_else_begins(fields, place):
    assert bitmap_place(superblock(**fields)) == place
