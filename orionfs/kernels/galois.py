"""Arithmetic of the second parity: bytes as elements of GF(2^8), as Linux RAID 6 has it.

The polynomial is 0x11d and 2 a generator of the field.  A stripe with data chunks D, each with an exponent e of its
own below 255, has P = sum of D and Q = sum of 2^e D; a sum is an XOR.

Whole stripes are multiplied by 2 with shifts and masks over 128 KiB at a time, which is three times as fast as any
table (7 to 12 GB/s of data).  For any other factor a table of 256 bytes is fastest (4 GB/s, 1.1 us for 4 KiB).

Buffers and :data:`~orionfs.kernels.parity.Cells` as in :mod:`orionfs.kernels.parity`.  Temporary memory is
less than ten blocks of 128 KiB, or twice the length for :func:`change`.  Safe to call from any thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from orionfs.buffers import Buffer
from orionfs.kernels.parity import Cells, Words, words, xor

_POLYNOMIAL = 0x11D
#: What takes the place of the bit that a doubling shifts out, and of the one that a halving does.
_CARRY = np.int8(_POLYNOMIAL & 0xFF)
_BORROW = np.int8((_POLYNOMIAL >> 1) - 256)
_SIGN = np.int8(7)
_ONE = np.uint8(1)
#: So many doublings or halvings are as fast as a table.
_STEPS = 3
#: Words that are worked on at a time: less costs calls, more no longer fits the second-level cache.
_BLOCK = (128 << 10) // 8
#: Up to so many words the calls cost more than the tables.
_SMALL = 4096 // 8

#: What :func:`locate` says of a block that is not a data chunk's exponent.
CONSISTENT, WRONG_P, WRONG_Q, UNKNOWN = -1, -2, -3, -4


def _powers() -> tuple[list[int], list[int]]:
    power, logarithm = [1] * 510, [0] * 256
    value = 1
    for exponent in range(255):
        power[exponent] = power[exponent + 255] = value
        logarithm[value] = exponent
        value = value << 1 ^ (_POLYNOMIAL if value & 0x80 else 0)
    return power, logarithm


#: 2 to the power of 0 to 509, and the logarithms of 1 to 255.
_POWER, _LOGARITHM = _powers()


def _product(left: int, right: int) -> int:
    return _POWER[_LOGARITHM[left] + _LOGARITHM[right]] if left and right else 0


def _inverse(value: int) -> int:
    return _POWER[255 - _LOGARITHM[value]]


@cache
def _table(factor: int) -> bytes:
    """The multiples of *factor*."""
    return bytes(_product(factor, value) for value in range(256))


def _multiple(source: Words, factor: int) -> Words:
    """*factor* times *source*, as new memory if that is not *source* itself."""
    if factor == 1:
        return source
    # A bytearray: its translate() is half as long on the way as that of bytes.
    product = bytearray(np.ascontiguousarray(source)).translate(_table(factor))
    return np.frombuffer(product, np.uint64).reshape(source.shape)


def _double(target: Words, source: Words, carry: Words) -> None:
    """*target* becomes 2 times *source*, which it may be; *carry* is room for as much."""
    source_bytes, carry_bytes = source.view(np.int8), carry.view(np.int8)
    np.right_shift(source_bytes, _SIGN, out=carry_bytes)
    np.bitwise_and(carry_bytes, _CARRY, out=carry_bytes)
    np.add(source_bytes, source_bytes, out=target.view(np.int8))
    np.bitwise_xor(target, carry, out=target)


def _halve(target: Words, carry: Words) -> None:
    """*target* becomes half of itself; *carry* is room for as much."""
    target_bytes, carry_bytes = target.view(np.uint8), carry.view(np.uint8)
    np.bitwise_and(target_bytes, _ONE, out=carry_bytes)
    np.negative(carry_bytes.view(np.int8), out=carry_bytes.view(np.int8))
    np.bitwise_and(carry_bytes.view(np.int8), _BORROW, out=carry_bytes.view(np.int8))
    np.right_shift(target_bytes, _ONE, out=target_bytes)
    np.bitwise_xor(target, carry, out=target)


def _scale(target: Words, exponent: int, carry: Words) -> None:
    """*target* becomes 2 to the power of *exponent* (maybe negative) times itself; *carry* is room for as much."""
    if -_STEPS <= exponent <= _STEPS:
        for _ in range(exponent):
            _double(target, target, carry)
        for _ in range(-exponent):
            _halve(target, carry)
    else:
        target[:] = _multiple(target, _POWER[exponent % 255])


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Index ranges that divide *shape*, whose last axis is contiguous in memory, into blocks that fit the cache."""
    if len(shape) == 1:
        for start in range(0, shape[0], _BLOCK):
            yield (slice(start, start + _BLOCK),)
        return
    height, width = shape
    if width == 0:
        return
    step = max(_BLOCK // width, 1)
    for row in range(0, height, step):
        for start in range(0, width, _BLOCK):
            yield slice(row, row + step), slice(start, start + _BLOCK)


class _Sum:
    """Q of some columns, by Horner's rule: doubled from one exponent to the next lower one."""

    __slots__ = ("_carry", "_columns", "_gaps")

    def __init__(self, data: Sequence[Cells], exponents: Sequence[int]) -> None:
        order = sorted(range(len(data)), key=exponents.__getitem__, reverse=True)
        powers = [exponents[index] for index in order]
        self._columns = [words(data[index]) for index in order]
        self._gaps = [high - low for high, low in zip(powers, [*powers[1:], 0], strict=True)]
        self._carry = np.empty(min(self._columns[0].size, _BLOCK), np.uint64)

    def put(self, block: tuple[slice, ...], p: Words | None, q: Words) -> None:
        """P and Q of one *block* of the columns (at least one), into *p* and *q*, which are none of them."""
        columns = [column[block] for column in self._columns]
        if p is not None:
            if len(columns) == 1:
                p[:] = columns[0]
            else:
                np.bitwise_xor(columns[0], columns[1], out=p)
                for column in columns[2:]:
                    np.bitwise_xor(p, column, out=p)
        carry = self._carry[: q.size].reshape(q.shape)
        q_bytes, carry_bytes = q.view(np.int8), carry.view(np.int8)
        now, now_bytes = columns[0], columns[0].view(np.int8)
        for index, gap in enumerate(self._gaps):
            if index:
                np.bitwise_xor(now, columns[index], out=q)
                now, now_bytes = q, q_bytes
            for _ in range(gap):
                np.right_shift(now_bytes, _SIGN, out=carry_bytes)
                np.bitwise_and(carry_bytes, _CARRY, out=carry_bytes)
                np.add(now_bytes, now_bytes, out=q_bytes)
                np.bitwise_xor(q, carry, out=q)
                now, now_bytes = q, q_bytes
        if now is not q:
            q[:] = now


def syndromes(p: Cells | None, q: Cells, data: Sequence[Cells], exponents: Sequence[int]) -> None:
    """*p* and *q* become P and Q of *data* (at least one column); neither overlaps *data* or the other.

    With None for *p*, Q only.
    """
    q_words, p_words = words(q), None if p is None else words(p)
    if q_words.size <= _SMALL:
        _small_syndromes(p_words, q_words, data, exponents)
        return
    total = _Sum(data, exponents)
    for block in _blocks(q_words.shape):
        total.put(block, None if p_words is None else p_words[block], q_words[block])


def _small_syndromes(p: Words | None, q: Words, data: Sequence[Cells], exponents: Sequence[int]) -> None:
    if p is not None:
        xor(p, data)
    products = [_multiple(words(column), _POWER[exponent]) for column, exponent in zip(data, exponents, strict=True)]
    xor(q, products)


def syndrome_rows(p: Buffer, q: Buffer, data: Buffer, chunk: int, exponents: Sequence[Sequence[int]]) -> None:
    """P and Q of whole stripes: *data* is rows of chunks, *p* and *q* get one chunk for each row.

    *exponents* are those of the first row, the second, and so on; after the last the first again.
    """
    columns = len(exponents[0])
    stripes = words(data).reshape(-1, columns, chunk // 8)
    p_rows, q_rows = words(p).reshape(-1, chunk // 8), words(q).reshape(-1, chunk // 8)
    alike = all(row == exponents[0] for row in exponents)
    step = 1 if alike else len(exponents)
    for first in range(min(step, len(stripes))):
        part = stripes[first::step]
        syndromes(p_rows[first::step], q_rows[first::step], [part[:, at] for at in range(columns)], exponents[first])


def change(p: Buffer | None, q: Buffer | None, old: Buffer, new: Buffer, exponent: int) -> None:
    """Bring P and Q over some bytes of a stripe up to date when data with that *exponent* change there.

    Meant for small writes; either of *p* and *q* may be None.
    """
    difference = bytearray(len(old))
    delta = np.frombuffer(difference, np.uint64)
    np.bitwise_xor(words(old), words(new), out=delta)
    if p is not None:
        target = words(p)
        np.bitwise_xor(target, delta, out=target)
    if q is not None:
        if exponent:
            delta = np.frombuffer(difference.translate(_table(_POWER[exponent])), np.uint64)
        target = words(q)
        np.bitwise_xor(target, delta, out=target)


def recover_from_q(target: Cells, exponent: int, q: Cells, data: Sequence[Cells], exponents: Sequence[int]) -> None:
    """*target* becomes the lost data chunk with *exponent*; *data*, with *exponents*, are all others (maybe none).

    *target* may be one of the sources.
    """
    result, q_words = words(target), words(q)
    total = _Sum(data, exponents) if data else None
    for block in _blocks(result.shape):
        rest = np.empty(q_words[block].shape, np.uint64)
        if total is not None:
            total.put(block, None, rest)
            np.bitwise_xor(rest, q_words[block], out=rest)
        else:
            rest[...] = q_words[block]
        _scale(rest, -exponent, np.empty(rest.shape, np.uint64))
        result[block] = rest


def recover_two(
    targets: tuple[Cells, Cells],
    lost: tuple[int, int],
    p: Cells,
    q: Cells,
    data: Sequence[Cells],
    exponents: Sequence[int],
) -> None:
    """*targets* become the two *lost* data chunks, known by their exponents; *data* are all others (maybe none).

    The targets may be among the sources.
    """
    first, second = words(targets[0]), words(targets[1])
    p_words, q_words = words(p), words(q)
    near, far = sorted(lost)
    # D(far) = (P' + 2^-near Q') / (1 + 2^(far - near)), where P' and Q' are what the two have in P and Q.
    factor = _inverse(1 ^ _POWER[far - near])
    total = _Sum(data, exponents) if data else None
    for block in _blocks(first.shape):
        shape = p_words[block].shape
        p_rest, q_rest = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
        if total is not None:
            total.put(block, p_rest, q_rest)
            np.bitwise_xor(p_rest, p_words[block], out=p_rest)
            np.bitwise_xor(q_rest, q_words[block], out=q_rest)
        else:
            p_rest[...] = p_words[block]
            q_rest[...] = q_words[block]
        _scale(q_rest, -near, np.empty(shape, np.uint64))
        np.bitwise_xor(q_rest, p_rest, out=q_rest)
        at_far = _multiple(q_rest, factor)
        np.bitwise_xor(p_rest, at_far, out=p_rest)
        first[block], second[block] = (p_rest, at_far) if lost[0] == near else (at_far, p_rest)


def locate(p: Buffer, q: Buffer, exponents: Sequence[int], block: int) -> list[int]:
    """Which chunk of a stripe is wrong, for each *block* bytes of it.

    *p* and *q* are the differences between P and Q as they are and as the data say they should be.  One wrong data
    chunk shows in both, everywhere by the same factor; a wrong P or Q shows in one only.  The answer for a block is the
    exponent of the data chunk, WRONG_P, WRONG_Q, CONSISTENT, or UNKNOWN if no single chunk explains it.
    """
    p_blocks = np.frombuffer(p, np.uint8).reshape(-1, block)
    q_blocks = np.frombuffer(q, np.uint8).reshape(-1, block)
    verdicts = [CONSISTENT] * len(p_blocks)
    for index in np.flatnonzero(p_blocks.any(axis=1) | q_blocks.any(axis=1)):
        verdicts[int(index)] = _locate(p_blocks[index], q_blocks[index], exponents)
    return verdicts


def _locate(p: NDArray[np.uint8], q: NDArray[np.uint8], exponents: Sequence[int]) -> int:
    in_p, in_q = p != 0, q != 0
    if not in_q.any():
        return WRONG_P
    if not in_p.any():
        return WRONG_Q
    if not np.array_equal(in_p, in_q):
        return UNKNOWN
    logarithm = np.array(_LOGARITHM, np.int16)
    found = (logarithm[q[in_q]] - logarithm[p[in_p]]) % 255
    exponent = int(found[0])
    return exponent if exponent in exponents and bool((found == exponent).all()) else UNKNOWN
