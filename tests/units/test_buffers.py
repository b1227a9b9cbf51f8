"""Buffers: windows into scatter/gather lists, and the pool."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.buffers import PAGE, BufferPool, fill_zero, gather, total_length, window

pieces = st.lists(st.binary(max_size=9), max_size=8)


@given(pieces)
def test_gathering_is_concatenation(buffers):
    assert gather(buffers) == b"".join(buffers)
    assert total_length(buffers) == len(b"".join(buffers))


def test_gathering_one_buffer_copies_nothing():
    buffer = bytearray(b"abc")
    view = gather([buffer])
    buffer[0] = ord("x")
    assert view == b"xbc"


@given(pieces, st.data())
def test_a_window_is_a_slice_of_the_concatenation(buffers, data):
    whole = b"".join(buffers)
    offset = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - offset))
    views = window(buffers, offset, length)
    assert b"".join(views) == whole[offset : offset + length]
    assert all(len(view) for view in views)


@given(pieces, st.integers(0, 100), st.integers(1, 100))
def test_a_window_beyond_the_end_is_refused(buffers, offset, beyond):
    total = total_length(buffers)
    with pytest.raises(ValueError, match="shorter"):
        window(buffers, offset, max(total - offset, 0) + beyond)


def test_a_window_is_a_view_not_a_copy():
    buffers = [bytearray(4), bytearray(4)]
    for view in window(buffers, 2, 4):
        view[:] = b"x" * len(view)
    assert buffers == [b"\0\0xx", b"xx\0\0"]


@given(st.lists(st.binary(max_size=9).map(bytearray), max_size=5))
def test_zeroing_reaches_every_byte(buffers):
    lengths = [len(buffer) for buffer in buffers]
    fill_zero(buffers)
    assert buffers == [bytes(length) for length in lengths]


@given(st.integers(1, 5 * PAGE))
def test_pooled_memory_is_aligned_writable_and_as_long_as_asked(length):
    view = BufferPool().take(length)
    assert len(view) == length
    assert not view.readonly
    assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % PAGE == 0


def test_the_pool_hands_out_again_what_it_was_given():
    pool = BufferPool()
    first = pool.take(3 * PAGE)
    first[:4] = b"mark"
    pool.give(first)
    again = pool.take(4 * PAGE)
    assert again[:4] == b"mark"
    assert pool.take(4 * PAGE)[:4] == bytes(4), "what is taken is nobody else's"


def test_the_pool_keeps_no_more_than_it_may():
    pool = BufferPool(keep_bytes=2 * PAGE)
    views = [pool.take(PAGE) for _ in range(3)]
    for view in views:
        view[:4] = b"mark"
        pool.give(view)
    assert [bytes(pool.take(PAGE)[:4]) for _ in range(3)] == [b"mark", b"mark", bytes(4)]
