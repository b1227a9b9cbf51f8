"""The journal's headers and records: what is written is read, and nothing else is."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.journal_format import (
    BLOCK,
    HEADER_SPACE,
    MAX_LOGS,
    MAX_RECORD,
    MAX_RING,
    MAX_VOIDS,
    MAX_WITNESSED,
    SLOT,
    Header,
    LogPlace,
    Mark,
    Void,
    Witnessed,
    area_of,
    check_record,
    encode_record,
    head_size,
    mark_of,
    minimum_ring,
    parse_head,
    parse_header,
    readdressed,
    record_length,
    record_pieces,
)
from orionfs.array.superblock import Superblock, roles_for
from orionfs.array.transfer import Transfer
from orionfs.units import KIB, MIB, SECTOR

uuids = st.binary(min_size=16, max_size=16)
counts = st.integers(0, 2**62 - 1)
marks = st.builds(Mark, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    unit = draw(st.sampled_from((512, 1024, 4096)))
    size = draw(st.integers(1, 64)) * 4096
    places = st.integers(0, size // unit).map(lambda number: number * unit)
    logs = draw(
        st.lists(st.builds(LogPlace, uuids, st.integers(0, 99).map(lambda n: n * BLOCK)), min_size=1, max_size=8)
    )
    voids = [Void(draw(counts), 0, draw(places)) for _ in range(draw(st.integers(0, 3)))]
    return Header(
        generation=draw(counts),
        set_uuid=draw(uuids),
        device_uuid=logs[-1].device_uuid,
        data_offset=draw(st.integers(0, 2**63)),
        base=logs[-1].base,
        epoch=draw(st.integers(0, 2**64 - 1)),
        sequence=draw(counts),
        offset=draw(places),
        ring_size=size,
        unit=unit,
        proven=draw(st.booleans()),
        logs=tuple(logs),
        voids=tuple(voids),
        witness=draw(st.dictionaries(uuids, st.builds(Witnessed, marks, marks), max_size=20)),
    )


def a_header(**changes) -> Header:
    log = LogPlace(b"d" * 16, 16 * KIB)
    witness = {b"d" * 16: Witnessed(Mark(1, 2, 3), Mark(4, 5, 6))}
    header = Header(7, b"s" * 16, b"d" * 16, 2048, 16 * KIB, 99, 3, 512, MIB, 512, True, (log,), (), witness)
    return replace(header, **changes)


def sealed(block: bytearray) -> bytes:
    """*block* with its checksum made right."""
    struct.pack_into("<I", block, 8, 0)
    struct.pack_into("<I", block, 8, zlib.crc32(block))
    return bytes(block)


# --- headers ---------------------------------------------------------------------------------------------------------


@given(headers())
def test_a_header_is_read_as_it_was_written(header):
    block = header.encode()
    assert len(block) == SLOT
    assert parse_header(block) == header


def test_a_header_has_room_for_the_most_of_everything():
    witness = {bytes([number]) * 16: Witnessed(Mark(1, 1, 1), Mark(2, 2, 2)) for number in range(MAX_WITNESSED)}
    logs = tuple(LogPlace(bytes([number]) * 16, 0) for number in range(MAX_LOGS))
    voids = tuple(Void(number, 0, 512) for number in range(MAX_VOIDS))
    header = a_header(device_uuid=logs[0].device_uuid, base=0, logs=logs, voids=voids, witness=witness)
    assert len(header.encode()) == SLOT
    assert parse_header(header.encode()) == header


@pytest.mark.parametrize("at", [0, 7, 8, 12, 16, 24, 63, 111, 117, 119, 120, 200, 4095, SLOT - 1])
def test_a_changed_byte_makes_a_header_worthless(at):
    block = bytearray(a_header().encode())
    block[at] ^= 1
    assert parse_header(block) is None


@pytest.mark.parametrize("kept", range(0, SLOT, SECTOR))
def test_a_torn_header_is_none(kept):
    witness = {bytes([number]) * 16: Witnessed(Mark(1, 1, 1), Mark(2, 2, 2)) for number in range(MAX_WITNESSED)}
    old = a_header(witness=witness).encode()
    new = a_header(generation=8, proven=False, witness=dict.fromkeys(witness, Witnessed(Mark(3, 3, 3), Mark(4, 4, 4))))
    torn = new.encode()[:kept] + old[kept:]
    whole = parse_header(torn)
    assert whole is None or whole in (parse_header(old), new)
    assert whole is None or kept == 0 or kept > 5000  # nothing but padding was missing


@pytest.mark.parametrize(
    "changes",
    [
        {"unit": 256},
        {"unit": 1536},
        {"unit": 2 * MIB},
        {"unit": 0},
        {"ring_size": 0},
        {"ring_size": MIB + 100},
        {"ring_size": 2 * MAX_RING},
        {"offset": MIB + 512},
        {"offset": 100},
        {"generation": 2**63},
        {"sequence": 2**63},
        {"base": 100},
        {"base": 4 * KIB},
        {"device_uuid": b"e" * 16},
        {"voids": (Void(1, MIB, 512),)},
        {"logs": ()},
    ],
)
def test_a_header_that_contradicts_itself_is_none(changes):
    assert parse_header(a_header(**changes).encode()) is None


@pytest.mark.parametrize(("at", "value"), [(112, MAX_LOGS + 1), (114, MAX_VOIDS + 1), (116, MAX_WITNESSED + 1)])
def test_counts_beyond_the_room_are_refused(at, value):
    block = bytearray(a_header().encode())
    assert parse_header(sealed(block)) is not None
    struct.pack_into("<H", block, at, value)
    assert parse_header(sealed(block)) is None


def test_another_version_is_none():
    block = bytearray(a_header().encode())
    struct.pack_into("<I", block, 12, 2)
    assert parse_header(sealed(block)) is None


@given(st.binary(max_size=300), st.integers(0, SLOT))
def test_garbage_is_none(garbage, at):
    block = bytearray(SLOT)
    block[at : at + len(garbage)] = garbage[: SLOT - at]
    assert parse_header(block) is None
    assert parse_header(garbage) is None


def test_a_header_for_another_log_member_differs_in_what_is_its_own():
    other = LogPlace(b"x" * 16, 32 * KIB)
    header = a_header(logs=(*a_header().logs, other))
    moved = parse_header(readdressed(header.encode(), other, 4096))
    assert moved == replace(header, device_uuid=b"x" * 16, base=32 * KIB, data_offset=4096)
    assert readdressed(moved.encode(), header.logs[0], header.data_offset) == header.encode()


def test_a_mark_fits_itself_and_unknown_counts_fit_any():
    mark = Mark(5, 6, 7)
    assert mark.fits(mark)
    assert Mark(5, 0, 0).fits(mark)
    assert not Mark(5, 6, 8).fits(mark)
    assert not Mark(5, 7, 7).fits(mark)
    assert not Mark(4, 0, 0).fits(mark)


def test_the_mark_of_a_superblock_changes_with_it():
    superblock = Superblock(b"s" * 16, b"d" * 16, 5, 3, 0, roles_for(3), 2048, 4096, size=4096, events=9, utime=11)
    first = Superblock.parse(superblock.encode())
    superblock.events += 1
    second = Superblock.parse(superblock.encode())
    assert mark_of(first)[1:] == (9, 11)
    assert mark_of(first).checksum != mark_of(second).checksum


# --- areas -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 10**9))
def test_an_area_lies_in_its_gap(offset, length):
    area = area_of(offset, length)
    if area is None:
        assert length < HEADER_SPACE + 3 * BLOCK
        return
    assert offset <= area.base < offset + BLOCK
    assert area.base % BLOCK == 0
    assert area.ring + area.ring_size <= offset + length
    assert 0 < area.ring_size <= MAX_RING
    assert area.ring_size % BLOCK == 0


@pytest.mark.parametrize("members", [2, 5, 29, 30, 64])
@pytest.mark.parametrize("unit", [512, 4096])
def test_the_least_ring_holds_two_blocks_of_all_members(members, unit):
    transfers = [Transfer(slot, 0, BLOCK, [memoryview(bytes(BLOCK))]) for slot in range(members)]
    assert minimum_ring(members, unit) == 2 * len(encode_record(1, 1, 1, transfers, unit).data)


# --- records ---------------------------------------------------------------------------------------------------------


@st.composite
def writes(draw: st.DrawFn) -> list[Transfer]:
    transfers = []
    for _ in range(draw(st.integers(1, 40))):
        views = [memoryview(bytes([draw(st.integers(0, 255))]) * (SECTOR * draw(st.integers(1, 3)))) for _ in range(2)]
        offset = draw(st.integers(0, 2**40)) * SECTOR
        transfers.append(Transfer(draw(st.integers(0, 63)), offset, offset + sum(map(len, views)), views))
    return transfers


@given(writes(), st.integers(0, 2**64 - 1), counts, counts, st.sampled_from((512, 4096)))
def test_a_record_is_read_as_it_was_written(transfers, epoch, sequence, durable, unit):
    data, at = encode_record(epoch, sequence, durable, transfers, unit)
    assert len(data) == record_length(transfers, unit)
    assert len(data) % unit == 0
    assert head_size(data[:SECTOR]) == at
    head = parse_head(data[:at], unit)
    assert head is not None
    assert (head.epoch, head.sequence, head.durable, head.length) == (epoch, sequence, durable, len(data))
    assert check_record(data, head)
    pieces = record_pieces(data, head)
    assert [(slot, offset, bytes(piece)) for slot, offset, piece in pieces] == [
        (transfer.slot, transfer.offset, b"".join(transfer.buffers)) for transfer in transfers
    ]


def a_record(unit: int = 512) -> bytearray:
    transfers = [Transfer(slot, 8192, 8192 + BLOCK, [memoryview(bytes([slot + 1]) * BLOCK)]) for slot in range(2)]
    return bytearray(encode_record(5, 6, 4, transfers, unit).data)


def believed(raw: bytes | bytearray) -> bool:
    """What a replay asks of the bytes."""
    size = head_size(raw[:SECTOR])
    head = parse_head(raw[:size], 512) if size else None
    return head is not None and (head.epoch, head.sequence) == (5, 6) and check_record(raw, head)


def test_a_small_record_costs_one_sector_more_than_its_payload():
    assert len(a_record()) == 2 * BLOCK + SECTOR
    assert len(a_record(4096)) == 3 * BLOCK


def test_a_changed_byte_makes_a_record_worthless():
    assert believed(a_record())
    for at in [*range(72), 511, 512, 4607, 4608, 8703]:
        raw = a_record()
        raw[at] ^= 1
        assert not believed(raw), at


@pytest.mark.parametrize("missing", range(17))
def test_a_record_with_a_sector_of_something_older_is_worthless(missing):
    raw = a_record()
    raw[missing * SECTOR : (missing + 1) * SECTOR] = bytes([9]) * SECTOR
    assert not believed(raw)


def fuzzed(**fields: int) -> bytes:
    """A record with a right checksum whatever its fields say."""
    raw = a_record()
    for name, value in fields.items():
        place, kind = {
            "payload": (32, "<I"),
            "count": (36, "<H"),
            "sequence": (16, "<Q"),
            "offset": (40, "<Q"),
            "length": (48, "<I"),
        }[name]
        struct.pack_into(kind, raw, place, value)
    struct.pack_into("<I", raw, 0, zlib.crc32(raw[4:]))
    return bytes(raw)


@pytest.mark.parametrize(
    "fields",
    [
        {"payload": 0},
        {"payload": 2**32 - 512},
        {"payload": MAX_RECORD},
        {"count": 0},
        {"count": 1},
        {"count": 3},
        {"count": 65535},
        {"sequence": 2**63},
        {"offset": 2**63},
        {"offset": 100},
        {"length": 0},
        {"length": 100},
        {"length": 2**32 - 512},
    ],
)
def test_a_record_that_contradicts_itself_is_refused(fields):
    assert believed(fuzzed())
    assert not believed(fuzzed(**fields))


@given(st.binary(min_size=512, max_size=2048))
def test_garbage_is_no_record(garbage):
    assert not believed(garbage)
    raw = bytearray(garbage)
    raw[4:8] = b"ORJR"
    assert not believed(raw)
