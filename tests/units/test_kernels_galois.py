"""P and Q against the slowest model that is plainly right: one byte at a time, by the definition."""

from __future__ import annotations

import random
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.kernels import galois
from orionfs.kernels.parity import nonzero_rows, rows, xor, xor_into, xor_rows

#: Lengths in words: one, few, odd, and around the size of a block.
LENGTHS = st.one_of(st.integers(1, 70), st.sampled_from([511, 1000, 8191, 8192, 8193, 20001]))


def times(left: int, right: int) -> int:
    """Multiplication of polynomials over GF(2), then the remainder by 0x11d."""
    product = 0
    for bit in range(8):
        if right >> bit & 1:
            product ^= left << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


def power(exponent: int) -> int:
    return reduce(lambda value, _: times(value, 2), range(exponent), 1)


MULTIPLES = {exponent: bytes(times(power(exponent), value) for value in range(256)) for exponent in range(255)}


def summed(columns: list[bytes]) -> bytes:
    return reduce(
        lambda left, right: (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big"),
        columns,
    )


def syndromes(data: list[bytes], exponents: list[int]) -> tuple[bytes, bytes]:
    return summed(data), summed([d.translate(MULTIPLES[e]) for d, e in zip(data, exponents, strict=True)])


@st.composite
def stripes(draw, least: int = 1, most: int = 7):
    columns = draw(st.integers(least, most))
    exponents = draw(
        st.one_of(
            st.just(list(range(columns))),
            st.permutations(range(columns)),
            st.lists(st.integers(0, 254), min_size=columns, max_size=columns, unique=True),
        )
    )
    source = random.Random(draw(st.integers(0, 1 << 32)))
    length = 8 * draw(LENGTHS)
    return [source.randbytes(length) for _ in range(columns)], list(exponents)


def empty(data) -> bytearray:
    return bytearray(b"\x55" * len(data[0]))


@given(stripes())
@settings(deadline=None, max_examples=40)
def test_syndromes_are_what_their_definition_says(stripe):
    data, exponents = stripe
    p, q, alone = empty(data), empty(data), empty(data)
    galois.syndromes(p, q, data, exponents)
    galois.syndromes(None, alone, data, exponents)
    assert (p, q) == syndromes(data, exponents)
    assert alone == q


@given(
    st.integers(1, 6),
    st.sampled_from([8, 24, 512, 4096]),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 1 << 32),
)
@settings(deadline=None, max_examples=40)
def test_whole_stripes_each_with_its_own_exponents(columns, chunk, height, period, seed):
    source = random.Random(seed)
    exponents = [source.sample(range(9), columns) for _ in range(period)]
    data = source.randbytes(columns * chunk * height)
    p, q, xored = bytearray(chunk * height), bytearray(chunk * height), bytearray(chunk * height)
    galois.syndrome_rows(p, q, data, chunk, exponents)
    xor_rows(xored, data, columns, chunk)
    assert xored == p
    for row in range(height):
        base = row * columns * chunk
        stripe = [data[base + at * chunk : base + (at + 1) * chunk] for at in range(columns)]
        here = slice(row * chunk, (row + 1) * chunk)
        assert (p[here], q[here]) == syndromes(stripe, exponents[row % period])


@given(stripes(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_small_change_gives_the_same_as_starting_afresh(stripe, data):
    columns, exponents = stripe
    p, q = map(bytearray, syndromes(columns, exponents))
    index = data.draw(st.integers(0, len(columns) - 1))
    words = len(columns[0]) // 8
    low = data.draw(st.integers(0, words - 1)) * 8
    high = data.draw(st.integers(low // 8 + 1, words)) * 8
    new = random.Random(low).randbytes(high - low)
    before = bytes(p), bytes(q)
    galois.change(memoryview(p)[low:high], memoryview(q)[low:high], columns[index][low:high], new, exponents[index])
    changed = bytes(p), bytes(q)
    old = columns[index]
    columns[index] = old[:low] + new + old[high:]
    assert changed == syndromes(columns, exponents)
    galois.change(memoryview(p)[low:high], None, new, old[low:high], exponents[index])
    assert (bytes(p), bytes(q)) == (before[0], changed[1])
    galois.change(None, memoryview(q)[low:high], new, old[low:high], exponents[index])
    assert (bytes(p), bytes(q)) == before


@given(stripes(), st.data())
@settings(deadline=None, max_examples=40)
def test_a_lost_chunk_comes_back_from_q(stripe, data):
    columns, exponents = stripe
    p, q = syndromes(columns, exponents)
    lost = data.draw(st.integers(0, len(columns) - 1))
    others = columns[:lost] + columns[lost + 1 :]
    powers = exponents[:lost] + exponents[lost + 1 :]
    target = empty(columns)
    galois.recover_from_q(target, exponents[lost], q, others, powers)
    assert target == columns[lost]
    in_place = bytearray(q)
    galois.recover_from_q(in_place, exponents[lost], in_place, others, powers)
    assert in_place == columns[lost]
    xor(target, [p, *others])
    assert target == columns[lost]


@given(stripes(least=2), st.data())
@settings(deadline=None, max_examples=40)
def test_two_lost_chunks_come_back(stripe, data):
    columns, exponents = stripe
    p, q = syndromes(columns, exponents)
    one, two = data.draw(st.permutations(range(len(columns))))[:2]
    rest = [index for index in range(len(columns)) if index not in (one, two)]
    others, powers = [columns[index] for index in rest], [exponents[index] for index in rest]
    lost = exponents[one], exponents[two]
    first, second = empty(columns), empty(columns)
    galois.recover_two((first, second), lost, p, q, others, powers)
    assert (first, second) == (columns[one], columns[two])
    first, second = bytearray(p), bytearray(q)
    galois.recover_two((first, second), lost, first, second, others, powers)
    assert (first, second) == (columns[one], columns[two]), "in place of P and Q"


@given(stripes(), st.integers(2, 5), st.integers(0, 4))
@settings(deadline=None, max_examples=30)
def test_rows_of_buffers_do_as_well_as_buffers(stripe, step, first):
    data, exponents = stripe
    first %= step
    width = len(data[0])
    wide = [bytearray(width * step * 2) for _ in data]
    views = [rows(buffer, width, first, step) for buffer in wide]
    for column, buffer in zip(data, wide, strict=True):
        for at in (first, first + step):
            buffer[at * width : (at + 1) * width] = column
    p, q = bytearray(width * step * 2), bytearray(width * step * 2)
    p_rows, q_rows = rows(p, width, first, step), rows(q, width, first, step)
    galois.syndromes(p_rows, q_rows, views, exponents)
    expected = syndromes(data, exponents)
    for at in (first, first + step):
        assert (p[at * width : (at + 1) * width], q[at * width : (at + 1) * width]) == expected
    target = bytearray(width * step * 2)
    galois.recover_from_q(rows(target, width, first, step), exponents[0], q_rows, views[1:], exponents[1:])
    assert target == wide[0]
    if len(data) > 1:
        pair = bytearray(width * step * 2), bytearray(width * step * 2)
        targets = rows(pair[0], width, first, step), rows(pair[1], width, first, step)
        galois.recover_two(targets, (exponents[0], exponents[1]), p_rows, q_rows, views[2:], exponents[2:])
        assert pair == (wide[0], wide[1])


@given(stripes(least=2), st.data())
@settings(deadline=None, max_examples=40)
def test_one_silent_error_is_located(stripe, data):
    columns, exponents = stripe
    block = 8 * data.draw(st.sampled_from([1, 4, 64]))
    columns = [(column * block)[: max(len(column) // block, 1) * block] for column in columns]
    p, q = syndromes(columns, exponents)
    wrong = data.draw(st.integers(-2, len(columns) - 1))
    at = data.draw(st.integers(0, len(p) - 1))
    flips = data.draw(st.integers(1, 255))
    damaged = [bytearray(chunk) for chunk in (*columns, q, p)]
    damaged[wrong][at] ^= flips
    *now, q_now, p_now = damaged
    differences = bytearray(len(p)), bytearray(len(p))
    galois.syndromes(*differences, now, exponents)
    xor_into(differences[0], [p_now])
    xor_into(differences[1], [q_now])
    expected = [galois.CONSISTENT] * (len(p) // block)
    expected[at // block] = {-1: galois.WRONG_P, -2: galois.WRONG_Q}.get(wrong, exponents[wrong])
    assert galois.locate(*differences, exponents, block) == expected


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ({0: 1, 1: 1}, {0: 2, 1: 4}),  # two data chunks, at different bytes
        ({0: 1}, {1: 2}),  # a different byte in each
        ({0: 1, 1: 5}, {0: 2}),
        ({0: 3}, {0: 0x80}),  # no chunk has that exponent
    ],
)
def test_what_no_single_chunk_explains_is_not_guessed_at(p, q):
    differences = bytearray(16), bytearray(16)
    for buffer, content in zip(differences, (p, q), strict=True):
        for at, value in content.items():
            buffer[at] = value
    assert galois.locate(*differences, [0, 1, 2, 3], 8) == [galois.UNKNOWN, galois.CONSISTENT]


@given(st.integers(1, 6), LENGTHS, st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=30)
def test_xor(count, length, seed):
    source = random.Random(seed)
    data = [source.randbytes(8 * length) for _ in range(count)]
    target = empty(data)
    xor(target, data)
    assert target == summed(data)
    xor_into(target, data)
    assert nonzero_rows(target, 8) == []
    in_place = bytearray(data[0])
    xor(in_place, [in_place, *data[1:]])
    assert in_place == summed(data)
