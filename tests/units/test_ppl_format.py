"""The partial parity log: its codec against the facts of the format, against itself, and against anything else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.layout import LEFT_SYMMETRIC, raid5_layout
from orionfs.array.ppl_format import (
    HEADER_SIZE,
    MAX_ENTRIES,
    UNLOGGED,
    UNPROVEN,
    Entry,
    Record,
    decode_header,
    encode_header,
    last_record,
    next_place,
    signature_of,
)
from orionfs.array.ppl_replay import Span, span_of
from orionfs.kernels.checksums import crc32c

UUID = bytes(range(16))
SIGNATURE = signature_of(UUID)
KIB = 1024
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ENTRIES = st.builds(Entry, U64, U32.map(lambda size: size // 512 * 512), U32, U32, U32)


def crc_by_the_book(data):
    """CRC-32C bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@given(st.binary(max_size=200), st.integers(0, 200))
def test_the_checksum_is_the_ordinary_one(data, at):
    assert crc32c(data) == crc_by_the_book(data)
    assert crc32c(memoryview(data)[at:], crc32c(bytearray(data[:at]))) == crc32c(data)
    assert crc32c(b"") == 0
    assert crc32c(b"123456789") == 0xE3069283


@given(U32, U64, st.lists(ENTRIES, max_size=MAX_ENTRIES), st.integers(0, 2**24))
def test_what_is_encoded_is_decoded_again(signature, generation, entries, at):
    header = encode_header(signature, generation, entries)
    assert len(header) == HEADER_SIZE
    length = HEADER_SIZE + sum(entry.pp_size for entry in entries)
    assert decode_header(header, signature, at) == Record(at, length, generation, tuple(entries))
    assert decode_header(header, signature ^ 1) is None


def test_fields_lie_where_the_kernel_looks_for_them():
    header = encode_header(SIGNATURE, 7, [Entry(1 << 40, 4096, 8192, 3, 0xDEADBEEF)])
    assert header[:512] == b"\xff" * 512
    assert struct.unpack_from("<IIQI", header, 512) == (crc_by_the_book(UUID), 0, 7, 1)
    assert struct.unpack_from("<QIIII", header, 536) == (1 << 40, 4096, 8192, 3, 0xDEADBEEF)
    assert header[560:] == bytes(HEADER_SIZE - 560)
    blank = header[:532] + bytes(4) + header[536:]
    assert struct.unpack_from("<I", header, 532) == (crc_by_the_book(blank),)


def test_a_record_has_room_for_148_entries():
    entry = Entry(0, 0, 512, 0, 0)
    assert decode_header(encode_header(1, 1, [entry] * 148), 1) is not None
    with pytest.raises(ValueError, match="149 entries"):
        encode_header(1, 1, [entry] * 149)


@given(st.integers(0, HEADER_SIZE - 1), st.integers(1, 255))
def test_every_flipped_byte_is_noticed(position, flip):
    header = bytearray(encode_header(SIGNATURE, 7, [Entry(1, 4096, 8192, 3, 5)]))
    header[position] ^= flip
    assert decode_header(header, SIGNATURE) is None


@given(st.binary(max_size=HEADER_SIZE) | st.binary(min_size=HEADER_SIZE, max_size=HEADER_SIZE), U32)
def test_garbage_is_no_record(garbage, signature):
    assert decode_header(garbage, signature) is None
    assert last_record(garbage, signature) is None


@given(U32)
def test_more_entries_than_fit_are_no_record(count):
    header = bytearray(encode_header(SIGNATURE, 7, []))
    struct.pack_into("<I", header, 528, count)
    struct.pack_into("<I", header, 532, 0)
    struct.pack_into("<I", header, 532, crc32c(header))
    assert (decode_header(header, SIGNATURE) is not None) == (count <= MAX_ENTRIES)


def area_of(*records, size=64 * KIB):
    """An area with *records*, each (generation, partial parity sizes), one after the other."""
    area = bytearray(size)
    at = 0
    for generation, sizes in records:
        header = encode_header(SIGNATURE, generation, [Entry(0, size, size, 0, 0) for size in sizes])
        area[at : at + HEADER_SIZE] = header
        at += HEADER_SIZE + sum(sizes)
    return area


@pytest.mark.parametrize(
    ("records", "generation", "at"),
    [
        ([(5, [])], 5, 0),
        ([(5, [4096, 512]), (6, []), (7, [4096])], 7, 12800),
        ([(5, []), (6, []), (4, [])], 6, 4096),
        ([(5, []), (5, [])], 5, 4096),
        ([(5, [60 * KIB])], 5, 0),
        ([(5, [56 * KIB]), (6, [])], 5, 0),  # the last 4 KiB are not looked at
        ([(5, [52 * KIB]), (6, [])], 6, 56 * KIB),
        ([(5, [2**31])], 5, 0),
    ],
)
def test_the_last_record_in_sequence_counts(records, generation, at):
    area = area_of(*records[:1]) if records[0][1] and records[0][1][0] > 2**20 else area_of(*records)
    record = last_record(area, SIGNATURE)
    assert (record.generation, record.at) == (generation, at)


def test_a_torn_record_leaves_the_one_before_it():
    area = area_of((5, [4096]), (6, [4096]))
    area[8192 + 600] ^= 1
    assert last_record(area, SIGNATURE).generation == 5
    area[600] ^= 1
    assert last_record(area, SIGNATURE) is None


@given(st.integers(0, 70000), st.lists(st.integers(0, 12).map(lambda pages: pages * 4096), max_size=40))
def test_records_go_around_and_a_reader_always_finds_the_newest(extra, lengths):
    size = 64 * KIB + extra // 512 * 512
    area = bytearray(size)
    area[:HEADER_SIZE] = encode_header(SIGNATURE, 1, [])
    generation = 1
    last = last_record(area, SIGNATURE)
    for length in lengths:
        at = next_place(last, HEADER_SIZE + length, size)
        if not at:
            generation += 1
            area[:HEADER_SIZE] = encode_header(SIGNATURE, generation, [])
            last = last_record(area, SIGNATURE)
            assert last == Record(0, HEADER_SIZE, generation, ())
            at = next_place(last, HEADER_SIZE + length, size)
            assert at == HEADER_SIZE
        generation += 1
        entries = [Entry(0, length, length, 0, 0)] if length else []
        area[at : at + HEADER_SIZE + length] = encode_header(SIGNATURE, generation, entries) + b"\xa5" * length
        last = last_record(area, SIGNATURE)
        assert (last.at, last.generation) == (at, generation)


# --- entries ---------------------------------------------------------------------------------------------------------

LAYOUT = raid5_layout(64 * KIB, 4, 10 * 64 * KIB, LEFT_SYMMETRIC)


@pytest.mark.parametrize(
    ("entry", "span"),
    [
        # Row 0: data in 0, 1, 2, parity in 3.  Row 1: data in 3, 0, 1, parity in 2.
        (Entry(0, 4096, 4096, 3, 0), Span(0, 4096, (0,), 3)),
        (Entry(128 + 8, 4096, 4096, 3, 0), Span(4096, 8192, (1,), 3)),
        (Entry(3 * 128, 65536, 131072, 2, 0), Span(65536, 131072, (3, 0), 2)),
        (Entry(3 * 128 + 127, 512, 1024, 2, 0), Span(131072 - 512, 131072, (3, 0), 2)),
        (Entry(3 * 128, 0, 3 * 65536, 2, 0), Span(65536, 131072, (3, 0, 1), 2)),
        (Entry(8, 0, 3 * 4096, 3, 0), Span(4096, 8192, (0, 1, 2), 3)),
        (Entry(0, 4096, 4096, 2, 0), None),  # the parity is somewhere else
        (Entry(127, 1024, 1024, 3, 0), None),  # beyond the chunk
        (Entry(128, 4096, 12288, 3, 0), None),  # beyond the stripe
        (Entry(0, 4096, 12288, 3, 0), None),  # a whole stripe has no partial parity
        (Entry(128, 0, 3 * 4096, 3, 0), None),  # a whole stripe begins with its first chunk
        (Entry(0, 4096, 4096 + 512, 3, 0), None),
        (Entry(0, 0, 4096, 3, 0), None),  # no third of that
        (Entry(0, 1000, 1000, 3, 0), None),
        (Entry(0, 8192, 4096, 3, 0), None),
        (Entry(10 * 3 * 128, 4096, 4096, 3, 0), None),  # beyond the array
        (UNLOGGED, None),
        (UNPROVEN, None),
    ],
)
def test_what_an_entry_speaks_of(entry, span):
    assert span_of(entry, LAYOUT) == span


@given(
    st.integers(0, 2**64 - 1) | st.integers(0, 4000),
    st.integers(0, 2**32 - 1) | st.integers(0, 300).map(lambda sectors: sectors * 512),
    st.integers(0, 2**32 - 1) | st.integers(0, 600).map(lambda sectors: sectors * 512),
    st.integers(0, 2**32 - 1) | st.integers(0, 4),
)
def test_no_entry_leads_anywhere_else_than_into_one_stripe(sector, pp_size, data_size, slot):
    span = span_of(Entry(sector, pp_size, data_size, slot, 0), LAYOUT)
    if span is None:
        return
    row = LAYOUT.row(span.low // LAYOUT.chunk)
    assert 0 <= span.low < span.high <= 10 * LAYOUT.chunk
    assert span.low // LAYOUT.chunk == (span.high - 1) // LAYOUT.chunk
    assert span.parity == slot == row.parity
    assert set(span.slots) <= set(row.data)
    assert len(span.slots) * (span.high - span.low) == data_size
    assert LAYOUT.locate(sector * 512)[:2] == (span.slots[0], span.low)


@pytest.mark.parametrize("entry", [UNLOGGED, UNPROVEN])
def test_what_is_to_be_a_mismatch_is_one_for_every_reader(entry):
    """A reader compares the checksum with that of the partial parity, of which there is none."""
    assert entry.pp_size == 0
    assert entry.checksum != crc32c(b"")
