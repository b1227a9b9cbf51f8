"""Redundancy: what copies and parity must be, by md-format section 7, and computed apart from the code under test.

Slow and plain on purpose: a table of products made by shifting and adding, a row at a time, a chunk at a time.  All
that a campaign knows of an array's insides it knows from here: where a block lies, what agrees, what can be missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orionfs.testing.oracle import Mask
from orionfs.units import SECTOR

Bytes = npt.NDArray[np.uint8]


class Place(NamedTuple):
    """Byte *offset* of the data area of the member in *slot*."""

    slot: int
    offset: int


class Stripe(NamedTuple):
    """One row of a parity array: the slots of P and Q (-1: none), of its data in array order, and their exponents."""

    p: int
    q: int
    data: tuple[int, ...]
    exponents: tuple[int, ...]


# --- GF(2^8) ---------------------------------------------------------------------------------------------------------


def multiply(one: int, other: int) -> int:
    """The product in the field of RAID 6: polynomial 0x11d."""
    product = 0
    while other:
        if other & 1:
            product ^= one
        one <<= 1
        if one & 0x100:
            one ^= 0x11D
        other >>= 1
    return product


def power(exponent: int) -> int:
    """The generator, 2, multiplied with itself."""
    return reduce(multiply, [2] * exponent, 1)


def times(factor: int, data: Bytes) -> Bytes:
    """Every byte of *data* times *factor*."""
    return np.array([multiply(factor, value) for value in range(256)], np.uint8)[data]


# --- models ----------------------------------------------------------------------------------------------------------


class Model:
    """Any level: *slots* members, *rows* times *chunk* bytes of each in use, *size* bytes of the array."""

    def __init__(self, slots: int, chunk: int, rows: int, size: int) -> None:
        self.slots = slots
        self.chunk = chunk
        self.rows = rows
        self.size = size

    def places(self, chunk: int) -> list[Place]:
        """Where chunk number *chunk* of the array lies: each of its copies."""
        raise NotImplementedError

    def survives(self, gone: Iterable[int]) -> bool:
        """Whether all data are there without the slots *gone*."""
        raise NotImplementedError

    def agrees_without(self, gone: Iterable[int]) -> bool:
        """Whether a resync has anything to do without the slots *gone*."""
        return self.slots - len(set(gone)) > 1

    def disagreements(self, areas: Mapping[int, Bytes]) -> list[Place]:
        """Where the data areas of the slots that are there do not agree; one place for each chunk of a member."""
        raise NotImplementedError

    def stripes_of(self, blocks: Mask) -> Mask:
        """The blocks that share redundancy with any of *blocks*."""
        return blocks

    def whole_stripes(self, first: int, end: int) -> Mask:
        """The blocks, of all blocks, of those stripes that lie in [first, end) as a whole; none without parity."""
        return np.zeros(self.size // SECTOR, np.bool_)

    def held_by(self, slots: Iterable[int]) -> Mask:
        """The blocks that only *slots* hold."""
        wanted = set(slots)
        held = [all(place.slot in wanted for place in self.places(number)) for number in range(self.size // self.chunk)]
        return np.repeat(np.array(held, np.bool_), self.chunk // SECTOR)


class Plain(Model):
    """No redundancy: nothing can be missed, nothing can disagree."""

    def __init__(self, size: int) -> None:
        super().__init__(0, size, 1, size)

    def survives(self, gone: Iterable[int]) -> bool:
        return not list(gone)

    def disagreements(self, areas: Mapping[int, Bytes]) -> list[Place]:
        return []


class Mirror(Model):
    """RAID 1, in blocks of a sector."""

    def __init__(self, slots: int, size: int) -> None:
        super().__init__(slots, SECTOR, size // SECTOR, size)

    def places(self, chunk: int) -> list[Place]:
        return [Place(slot, chunk * SECTOR) for slot in range(self.slots)]

    def survives(self, gone: Iterable[int]) -> bool:
        return len(set(gone)) < self.slots

    def disagreements(self, areas: Mapping[int, Bytes]) -> list[Place]:
        return _copies_differ(self, areas)


class Copies(Model):
    """RAID 10 by its MD layout number: near and far copies, those next to each other if ``offset``."""

    def __init__(self, slots: int, layout: int, chunk: int, component: int) -> None:
        self.near, self.far, self.adjacent = layout & 0xFF, layout >> 8 & 0xFF, bool(layout >> 16 & 1)
        used = component // chunk // self.far * self.far
        total = used // self.far * slots // self.near
        super().__init__(slots, chunk, used, total * chunk)
        self._stride = 1 if self.adjacent else -(-total * self.near * self.far // slots) // self.far

    def places(self, chunk: int) -> list[Place]:
        row, device = divmod(chunk * self.near, self.slots)
        if self.adjacent:
            row *= self.far
        found = []
        for a in range(self.near):
            # Near copies lie beside each other; past the last member they go on in the next row.
            wraps, slot = divmod(device + a, self.slots)
            for b in range(self.far):
                turned = (slot + b * self.near) % self.slots
                found.append(Place(turned, (row + wraps + b * self._stride) * self.chunk))
        return found

    def survives(self, gone: Iterable[int]) -> bool:
        lost = set(gone)
        return not any(lost.issuperset(copies) for copies in self._patterns)

    def agrees_without(self, gone: Iterable[int]) -> bool:
        lost = set(gone)
        return any(len(copies - lost) > 1 for copies in self._patterns)

    @cached_property
    def _patterns(self) -> set[frozenset[int]]:
        """Every set of members that has the copies of some chunk."""
        return {frozenset(place.slot for place in self.places(number)) for number in range(self.size // self.chunk)}

    def disagreements(self, areas: Mapping[int, Bytes]) -> list[Place]:
        return _copies_differ(self, areas)


def _copies_differ(model: Model, areas: Mapping[int, Bytes]) -> list[Place]:
    found = []
    for number in range(model.size // model.chunk):
        here = [place for place in model.places(number) if place.slot in areas]
        pieces = [areas[place.slot][place.offset : place.offset + model.chunk] for place in here]
        found += [place for place, piece in zip(here, pieces, strict=True) if (piece != pieces[0]).any()]
    return found


class Parity(Model):
    """RAID 4, 5 and 6: stripes with P, and Q at level 6."""

    def __init__(self, level: int, slots: int, layout: int, chunk: int, component: int) -> None:
        self.parities = 2 if level == 6 else 1
        self.columns = slots - self.parities
        rows = component // chunk
        super().__init__(slots, chunk, rows, rows * self.columns * chunk)
        place = {4: _row_of_4, 5: _row_of_5, 6: _row_of_6}[level]
        self.stripes: list[Stripe] = [place(slots, layout, row) for row in range(rows)]

    def places(self, chunk: int) -> list[Place]:
        row, column = divmod(chunk, self.columns)
        return [Place(self.stripes[row].data[column], row * self.chunk)]

    def survives(self, gone: Iterable[int]) -> bool:
        return len(set(gone)) <= self.parities

    def agrees_without(self, gone: Iterable[int]) -> bool:
        return len(set(gone)) < self.parities

    def disagreements(self, areas: Mapping[int, Bytes]) -> list[Place]:
        """Where one chunk of data is missing, P stands in for it, and only Q can tell."""
        found = []
        for row, stripe in enumerate(self.stripes):
            low, high = row * self.chunk, (row + 1) * self.chunk
            pieces = {slot: areas[slot][low:high] for slot in stripe.data if slot in areas}
            missing = [slot for slot in stripe.data if slot not in areas]
            if len(missing) > 1 or (missing and stripe.p not in areas):
                continue
            for slot in missing:
                pieces[slot] = reduce(np.bitwise_xor, [areas[stripe.p][low:high], *pieces.values()])
            data = [pieces[slot] for slot in stripe.data]
            if stripe.p in areas and (reduce(np.bitwise_xor, data) != areas[stripe.p][low:high]).any():
                found.append(Place(stripe.p, low))
            if stripe.q in areas:
                factors = [_TABLES[exponent] for exponent in stripe.exponents]
                terms = [table[piece] for table, piece in zip(factors, data, strict=True)]
                if (reduce(np.bitwise_xor, terms) != areas[stripe.q][low:high]).any():
                    found.append(Place(stripe.q, low))
        return found

    def stripes_of(self, blocks: Mask) -> Mask:
        return np.repeat(blocks.reshape(self.rows, -1).any(axis=1), self.columns * self.chunk // SECTOR)

    def whole_stripes(self, first: int, end: int) -> Mask:
        blocks = super().whole_stripes(first, end)
        width = self.columns * self.chunk // SECTOR
        low, high = -(-first // width) * width, end // width * width
        blocks[low : max(low, high)] = True
        return blocks


_TABLES = [times(power(exponent), np.arange(256, dtype=np.uint8)) for exponent in range(32)]


# --- where P, Q and data are -----------------------------------------------------------------------------------------


def _row_of_4(n: int, _layout: int, _row: int) -> Stripe:
    return Stripe(n - 1, -1, tuple(range(n - 1)), ())


def _row_of_5(n: int, layout: int, row: int) -> Stripe:
    p = {0: n - 1 - row % n, 1: row % n, 2: n - 1 - row % n, 3: row % n, 4: 0, 5: n - 1}[layout]
    data = [(p + 1 + j) % n for j in range(n - 1)] if layout in (2, 3) else [j + (j >= p) for j in range(n - 1)]
    return Stripe(p, -1, tuple(data), ())


def _row_of_6(n: int, layout: int, row: int) -> Stripe:
    if layout in (8, 9, 10):
        return _ddf_row(n, layout, row)
    if layout >= 16:
        return _row_with_last_q(n, layout, row)
    p = {0: n - 1 - row % n, 1: row % n, 2: n - 1 - row % n, 3: row % n, 4: 0, 5: n - 2}[layout]
    q = (p + 1) % n
    columns = range(n - 2)
    data = [(p + 2 + j) % n for j in columns] if layout in (2, 3) else [slot for slot in range(n) if slot not in (p, q)]
    return Stripe(p, q, tuple(data), _exponents(n, p, q, data))


def _row_with_last_q(n: int, layout: int, row: int) -> Stripe:
    """The layouts of a RAID 5 over all but the last member, which has Q."""
    turn = row % (n - 1)
    p = {16: n - 2 - turn, 17: turn, 18: n - 2 - turn, 19: turn, 20: 0}[layout]
    data = [(p + 1 + j) % (n - 1) for j in range(n - 2)] if layout in (18, 19) else [j + (j >= p) for j in range(n - 2)]
    return Stripe(p, n - 1, tuple(data), _exponents(n, p, n - 1, data))


def _exponents(n: int, p: int, q: int, data: Sequence[int]) -> tuple[int, ...]:
    """MD counts the data members in the order of a walk that begins behind Q."""
    walk = [(q + 1 + step) % n for step in range(n)]
    order = [slot for slot in walk if slot not in (p, q)]
    return tuple(order.index(slot) for slot in data)


def _ddf_row(n: int, layout: int, row: int) -> Stripe:
    """The layouts of DDF, whose exponents are slots."""
    p = {8: row % n, 9: n - 1 - (row + 1) % n, 10: n - 1 - row % n}[layout]
    if layout == 10:
        q = (p - 1) % n
        data = [(p + 1 + j) % n for j in range(n - 2)]
    else:
        q = (p + 1) % n
        data = [slot for slot in range(n) if slot not in (p, q)]
    return Stripe(p, q, tuple(data), tuple(data))


def model_of(level: int, slots: int, layout: int, chunk: int, component: int, size: int = 0) -> Model:
    """The model of an array by the numbers in its superblocks, in bytes; *size* for levels without redundancy."""
    match level:
        case 1:
            return Mirror(slots, component)
        case 4 | 5 | 6:
            return Parity(level, slots, layout, chunk, component)
        case 10:
            return Copies(slots, layout, chunk, component)
    return Plain(size)
