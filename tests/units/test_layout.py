"""Stripes of RAID 4, 5 and 6: every chunk where MD's tables put it, written here once more from the tables."""

from __future__ import annotations

import pytest

from orionfs.array.layout import raid4_layout, raid5_layout, raid6_layout
from orionfs.array.levels import LEVELS

CHUNK = 4096

#: Layout number: P of stripe r with n members.
RAID5_P = {
    0: lambda r, n: n - 1 - r % n,
    1: lambda r, n: r % n,
    2: lambda r, n: n - 1 - r % n,
    3: lambda r, n: r % n,
    4: lambda r, n: 0,
    5: lambda r, n: n - 1,
}
RAID6_P = RAID5_P | {
    5: lambda r, n: n - 2,
    8: lambda r, n: r % n,
    9: lambda r, n: n - 1 - (r + 1) % n,
    10: lambda r, n: n - 1 - r % n,
    16: lambda r, n: n - 2 - r % (n - 1),
    17: lambda r, n: r % (n - 1),
    18: lambda r, n: n - 2 - r % (n - 1),
    19: lambda r, n: r % (n - 1),
    20: lambda r, n: 0,
}


def raid5_data(layout, p, j, n):
    if layout in (2, 3):
        return (p + 1 + j) % n
    return {4: j + 1, 5: j}.get(layout, j + 1 if j >= p else j)


def raid6_q(layout, p, n):
    if layout >= 16:
        return n - 1
    return {4: 1, 5: n - 1, 10: (p - 1) % n}.get(layout, 0 if p == n - 1 else p + 1)


def raid6_data(layout, p, j, n):
    if layout in (2, 3):
        return (p + 2 + j) % n
    if layout in (0, 1, 8, 9):
        return j + 1 if p == n - 1 else j + 2 if j >= p else j
    if layout in (4, 5):
        return {4: j + 2, 5: j}[layout]
    if layout == 10:
        return (p + 1 + j) % n
    if layout in (18, 19):
        return (p + 1 + j) % (n - 1)
    return j + 1 if layout == 20 or j >= p else j


def exponents(layout, p, q, n):
    """Exponent by slot: DDF numbers all members, MD those with data as it meets them from the one behind Q."""
    if layout in (8, 9, 10):
        return {slot: slot for slot in range(n) if slot not in (p, q)}
    found: dict[int, int] = {}
    at = 0 if q == n - 1 else q + 1
    for _ in range(n):
        if at not in (p, q):
            found[at] = len(found)
        at = (at + 1) % n
    return found


@pytest.mark.parametrize("members", [2, 3, 4, 7])
@pytest.mark.parametrize("layout", RAID5_P)
def test_raid5(layout, members):
    shape = raid5_layout(CHUNK, members, 100 * CHUNK, layout)
    assert (shape.columns, shape.parities, shape.row_count) == (members - 1, 1, 100)
    for number in range(100):
        row = shape.row(number)
        p = RAID5_P[layout](number, members)
        assert row.parity == p
        assert row.q == -1
        assert list(row.data) == [raid5_data(layout, p, j, members) for j in range(members - 1)]


@pytest.mark.parametrize("members", [4, 5, 6, 9])
@pytest.mark.parametrize("layout", RAID6_P)
def test_raid6(layout, members):
    shape = raid6_layout(CHUNK, members, 100 * CHUNK, layout)
    assert (shape.columns, shape.parities, shape.size) == (members - 2, 2, 100 * CHUNK * (members - 2))
    for number in range(100):
        row = shape.row(number)
        p = RAID6_P[layout](number, members)
        q = raid6_q(layout, p, members)
        assert (row.parity, row.q) == (p, q)
        assert list(row.data) == [raid6_data(layout, p, j, members) for j in range(members - 2)]
        power = exponents(layout, p, q, members)
        assert list(row.exponents) == [power[slot] for slot in row.data]
        assert sorted({*row.data, p, q}) == list(range(members)), "every member has one chunk of it"


def test_raid4_has_its_parity_on_the_last_member():
    shape = raid4_layout(
        CHUNK,
        4,
        50 * CHUNK,
    )
    for number in range(50):
        assert shape.row(number) == ((0, 1, 2), 3, -1, ())
        assert shape.locate(number * 3 * CHUNK + CHUNK + 512) == (1, number * CHUNK + 512, CHUNK - 512)


def test_every_layout_of_the_level_table_has_a_formula_here():
    assert set(LEVELS["raid5"].layouts.values()) == set(RAID5_P)
    assert set(LEVELS["raid6"].layouts.values()) == set(RAID6_P)
