"""Cutting transfers: nothing is lost, nothing doubled, and each part keeps to its rows and its size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.journal_format import BLOCK, record_length
from orionfs.array.journal_pieces import clip, cut_to_size, select_rows
from orionfs.array.transfer import Transfer
from orionfs.units import KIB

CHUNK = 16 * KIB


@st.composite
def writes(draw: st.DrawFn) -> list[Transfer]:
    transfers = []
    for slot in range(draw(st.integers(1, 5))):
        low = draw(st.integers(0, 200)) * 512
        length = draw(st.integers(1, 200)) * 512
        cut = draw(st.integers(0, length))
        data = memoryview(bytes((slot * 7 + at // 512) % 256 for at in range(length)))
        transfers.append(Transfer(slot, low, low + length, [view for view in (data[:cut], data[cut:]) if view]))
    return transfers


def bytes_of(transfers):
    found = {}
    for transfer in transfers:
        data = b"".join(transfer.buffers)
        assert len(data) == transfer.end - transfer.offset > 0
        for at in range(0, len(data), 512):
            place = (transfer.slot, transfer.offset + at)
            assert place not in found
            found[place] = data[at : at + 512]
    return found


@given(writes(), st.integers(0, 300), st.integers(0, 300))
def test_clip_keeps_what_lies_between(transfers, low, high):
    low, high = low * 512, high * 512
    expected = {place: data for place, data in bytes_of(transfers).items() if low <= place[1] < high}
    assert bytes_of(clip(transfers, low, high)) == expected


@given(writes(), st.sets(st.integers(0, 20)))
def test_rows_are_taken_apart(transfers, rows):
    everything = bytes_of(transfers)
    rest = set(range(20)) - rows
    inside, outside = bytes_of(select_rows(transfers, rows, CHUNK)), bytes_of(select_rows(transfers, rest, CHUNK))
    assert {place[1] // CHUNK for place in inside} <= rows
    assert inside | outside == {place: data for place, data in everything.items() if place[1] // CHUNK < 20 or rows}
    assert not inside.keys() & outside.keys()


@given(writes(), st.integers(1, 300).map(lambda number: number * KIB), st.sampled_from((512, 4096)))
def test_records_fit_and_are_whole_columns_of_blocks(transfers, most, unit):
    parts = cut_to_size(transfers, most, unit)
    together = {}
    for part in parts:
        found = bytes_of(part)
        assert not together.keys() & found.keys()
        together |= found
        low, high = min(transfer.offset for transfer in part), max(transfer.end for transfer in part)
        assert record_length(part, unit) <= most or high - low // BLOCK * BLOCK <= BLOCK
    assert together == bytes_of(transfers)
    # The bytes of one block of the members' addresses stay together: that is what is old or new as a whole.
    for first, second in ((a, b) for a in parts for b in parts if a is not b):
        assert not {place[1] // BLOCK for place in bytes_of(first)} & {place[1] // BLOCK for place in bytes_of(second)}
