"""RAID 10 layouts, against placements that are found by laying chunks out one after the other."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.raid10_layout import Raid10Layout, copy_slots, margin_without, split_layout

CHUNK = 4096

NEAR_2, NEAR_3, FAR_2, FAR_3, OFFSET_2, OFFSET_3 = 0x102, 0x103, 0x201, 0x301, 0x10201, 0x10301


def lay_out(members, near, far, offset, member_rows):
    """{(slot, row): chunk} by laying chunks down: no division, no remainder of an address."""
    zone_rows = member_rows // far
    rows = [[chunk] * near for chunk in range(members * member_rows)]
    line = [chunk for copies in rows for chunk in copies]  # 0 0 1 1 2 2 ...
    table = [line[row * members : (row + 1) * members] for row in range(zone_rows)]
    whole = {chunk for chunk in range(len(rows)) if sum(row.count(chunk) for row in table) == near}
    found = {}
    for number, row in enumerate(table):
        for zone in range(far):
            place = number * far + zone if offset else number + zone * zone_rows
            turn = zone * near % members
            turned = row[-turn:] + row[:-turn] if turn else row
            found |= {(slot, place): chunk for slot, chunk in enumerate(turned) if chunk in whole}
    return found


@st.composite
def shapes(draw):
    members = draw(st.integers(2, 9))
    near = draw(st.integers(1, members))
    far = draw(st.integers(1, members // near))
    offset = draw(st.booleans()) and members % near == 0
    return members, near, far, offset, draw(st.integers(1, 13))


@given(shapes())
def test_every_copy_is_where_laying_the_chunks_out_puts_it(shape):
    members, near, far, offset, rows = shape
    layout = Raid10Layout(CHUNK, members, rows * CHUNK + 512, near | far << 8 | offset << 16)
    expected = lay_out(*shape)
    found = {}
    for chunk in range(layout.chunks):
        group, base, run = layout.find(chunk * CHUNK)
        assert run == CHUNK
        for slot, delta, _zone in layout.groups[group]:
            assert (slot, (base + delta) // CHUNK) not in found, "two chunks in one place"
            found[slot, (base + delta) // CHUNK] = chunk
    assert found == expected
    assert layout.size == CHUNK * len(set(expected.values()))
    for slot in range(members):
        for row in range(rows):
            assert layout.chunk_at(slot, row) == expected.get((slot, row))


@pytest.mark.parametrize(
    ("number", "members", "rows"),
    [
        # As in md(4): near 2 on 4 and on 5, far 2 on 4, offset 2 on 4; rows of chunks, one column for each member.
        (NEAR_2, 4, ["0 0 1 1", "2 2 3 3"]),
        (NEAR_2, 5, ["0 0 1 1 2", "2 3 3 4 4"]),
        (NEAR_2, 3, ["0 0 1", "1 2 2", "3 3 ."]),
        (NEAR_3, 4, ["0 0 0 1", "1 1 2 2", "2 3 3 3"]),
        (FAR_2, 4, ["0 1 2 3", "4 5 6 7", "3 0 1 2", "7 4 5 6"]),
        (OFFSET_2, 4, ["0 1 2 3", "3 0 1 2", "4 5 6 7", "7 4 5 6"]),
        (FAR_3, 5, ["0 1 2 3 4", "4 0 1 2 3", "3 4 0 1 2"]),
        (OFFSET_3, 4, ["0 1 2 3", "3 0 1 2", "2 3 0 1", "4 5 6 7", "7 4 5 6", "6 7 4 5"]),
    ],
)
def test_the_pictures_of_the_manual(number, members, rows):
    layout = Raid10Layout(CHUNK, members, len(rows) * CHUNK, number)
    for row, line in enumerate(rows):
        drawn = [layout.chunk_at(slot, row) for slot in range(members)]
        assert " ".join("." if chunk is None else str(chunk) for chunk in drawn) == line


@pytest.mark.parametrize(("number", "rows"), [(NEAR_2, 11), (FAR_3, 9), (OFFSET_3, 9), (NEAR_3, 11)])
def test_only_whole_sets_of_copies_are_used(number, rows):
    """Of 11 rows, three far copies use 9; the size that mdadm records is rounded down the same way."""
    layout = Raid10Layout(CHUNK, 4, 11 * CHUNK, number)
    assert layout.rows == rows
    assert layout.size == 4 * rows // layout.copies * CHUNK


@given(shapes(), st.data())
def test_what_a_part_of_a_member_holds(shape, data):
    members, near, far, offset, rows = shape
    layout = Raid10Layout(CHUNK, members, rows * CHUNK, near | far << 8 | offset << 16)
    used = layout.rows * CHUNK
    slot = data.draw(st.integers(0, members - 1))
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, used // 512).map(lambda n: n * 512)] * 2)))
    expected = {}
    for at in range(0, layout.size, 512):
        group, base, _run = layout.find(at)
        for place in layout.groups[group]:
            if place.slot == slot and low <= base + place.delta < high:
                expected[base + place.delta] = at
    held = list(layout.held(slot, low, high))
    assert {part.offset + step: part.at + step for part in held for step in range(0, part.length, 512)} == expected
    assert [part.offset for part in held] == sorted(part.offset for part in held)
    reached = set()
    for start, end in layout.spans(low, high):
        first, last = layout.reach(start, end)
        reached |= {at for at in range(first, last, 512)}
        assert last - first <= (-(-end // CHUNK) - start // CHUNK + 1) * (members // near + 2) * CHUNK, "a short span"
    assert reached >= set(expected.values())


@given(shapes())
def test_what_survives_is_what_leaves_a_copy_of_every_chunk(shape):
    members, near, far, offset, _rows = shape
    number = near | far << 8 | offset << 16
    layout = Raid10Layout(CHUNK, members, far * near * members * CHUNK, number)
    holders = [{place.slot for place in layout.groups[layout.find(at)[0]]} for at in range(0, layout.size, CHUNK)]
    assert copy_slots(number, members) == set(map(frozenset, holders))
    for count in range(min(members, 4) + 1):
        for gone in combinations(range(members), count):
            left = min(len(slots - set(gone)) for slots in holders)
            assert margin_without(number, members, frozenset(gone)) == left - 1


def test_which_pairs_a_raid10_of_four_survives():
    def fatal(number):
        return [pair for pair in combinations(range(4), 2) if margin_without(number, 4, frozenset(pair)) < 0]

    assert fatal(NEAR_2) == [(0, 1), (2, 3)]
    assert fatal(FAR_2) == fatal(OFFSET_2) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    assert fatal(NEAR_3) == []


@pytest.mark.parametrize("number", [0, 2, 0x100, 0x20102, 0x40102, 0x1000102])
def test_numbers_that_are_no_layout(number):
    with pytest.raises(ValueError, match="no layout"):
        split_layout(number)


def test_copies_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit"):
        Raid10Layout(CHUNK, 2, CHUNK * 8, NEAR_3)
    with pytest.raises(ValueError, match="offset"):
        Raid10Layout(CHUNK, 5, CHUNK * 8, 0x10202)
