"""Bad blocks: the log's codec, the list in memory against a set of bytes, and the order in which the log is written."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orionfs.array.bad_blocks import LOG_SIZE, BadBlocks, decode_log, encode_log
from orionfs.array.superblock import FEATURE_BAD_BLOCKS, Superblock
from orionfs.errors import IntegrityError, MediaError
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

MIB = 1 << 20
LOG_AT = 4096 + 16 * 512


def superblock(**fields):
    values = {"data_offset": 2048, "data_size": 6144, "size": 6144, "bblog_size": 8, "bblog_offset": 16}
    return Superblock(bytes(16), bytes(16), 1, 2, 0, [0, 1], **values | fields)


# --- codec -----------------------------------------------------------------------------------------------------------


def test_words_hold_sector_and_length_and_long_ranges_take_several():
    log = encode_log([(5, 6), (2048, 2048 + 513)], 0)
    assert struct.unpack_from("<4Q", log) == (5 << 10 | 1, 2048 << 10 | 512, 2560 << 10 | 1, 2**64 - 1)
    assert log[24:] == b"\xff" * (4096 - 24)


def test_units_of_several_sectors_are_widened_to():
    log = encode_log([(9, 10), (13, 17), (18, 19)], 3)
    assert struct.unpack_from("<3Q", log) == (1 << 10 | 1, 2 << 10 | 1, 2**64 - 1), "8 to 16, and 16 to 24"
    assert decode_log(log, 3) == [(8, 16), (16, 24)]


def test_what_the_kernel_stored_is_read_in_its_order():
    raw = struct.pack("<3Q", 2560 << 10 | 512, 2048 << 10 | 512, 7 << 10).ljust(4096, b"\xff")
    assert decode_log(raw, 0) == [(2560, 3072), (2048, 2560)]


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 1500)), max_size=40),
    st.integers(0, 4),
)
def test_what_is_encoded_covers_what_it_was_made_of_and_no_more_than_whole_units(gaps, shift):
    ranges, at = [], 0
    for gap, length in gaps:
        ranges.append((at + gap, at + gap + length))
        at += gap + length
    stored = decode_log(encode_log(ranges, shift), shift)
    unit = 1 << shift
    wanted = {sector // unit for low, high in ranges for sector in range(low, high)}
    found = [sector // unit for low, high in stored for sector in range(low, high, unit)]
    assert sorted(found) == sorted(wanted)


def test_the_log_holds_512_words_and_not_one_more():
    ranges = [(2 * number, 2 * number + 1) for number in range(513)]
    assert len(decode_log(encode_log(ranges[:512], 0), 0)) == 512
    with pytest.raises(ValueError, match="513 words"):
        encode_log(ranges, 0)


@given(st.binary(max_size=LOG_SIZE), st.integers(0, 16))
def test_any_log_is_read_and_means_something_finite(raw, shift):
    for low, high in decode_log(raw, shift):
        assert 0 <= low < high <= low + (1023 << shift)


# --- the list --------------------------------------------------------------------------------------------------------


class ListOfRanges(RuleBasedStateMachine):
    """The list does what a set of sectors does."""

    ranges = st.tuples(st.integers(-3, 45), st.integers(0, 45))

    def __init__(self):
        super().__init__()
        self.bad = BadBlocks(superblock(data_size=40, size=40))
        self.model = set()

    @rule(where=ranges)
    def add(self, where):
        low, high = sorted(where)
        before = set(self.model)
        self.model |= set(range(max(low, 0), min(high, 40)))
        self.bad.changed = False
        self.bad.add(low * 512, high * 512)
        assert self.bad.changed == (self.model != before)

    @rule(where=ranges)
    def forget(self, where):
        low, high = sorted(where)
        before = set(self.model)
        self.model -= set(range(low, high))
        self.bad.changed = False
        self.bad.forget(low * 512, high * 512)
        assert self.bad.changed == (self.model != before)

    @rule(where=ranges)
    def touches(self, where):
        low, high = sorted(where)
        if low < high:
            assert self.bad.touches(low * 512, high * 512) == any(low <= sector < high for sector in self.model)

    @invariant()
    def is_the_same(self):
        sectors = [sector for low, high in self.bad.ranges() for sector in range(low // 512, high // 512)]
        assert sectors == sorted(self.model)
        assert bool(self.bad) == bool(self.model)
        assert self.bad.feature == (FEATURE_BAD_BLOCKS if self.model else 0)
        ends = [end for _low, end in self.bad.ranges()]
        assert all(end < low for end, (low, _high) in zip(ends, self.bad.ranges()[1:], strict=False)), "not merged"


TestListOfRanges = ListOfRanges.TestCase


# --- the log on a device ---------------------------------------------------------------------------------------------


async def test_what_is_stored_is_loaded_in_sectors_of_the_member():
    device = RamDevice("d", 4 * MIB)
    bad = BadBlocks(superblock())
    bad.add(0, 512)
    bad.add(8192, 12288)
    await bad.store(device)
    assert not bad.changed
    assert device.flushes == 2
    assert struct.unpack_from("<3Q", device.data, LOG_AT) == (2048 << 10 | 1, 2064 << 10 | 8, 2**64 - 1)
    again = await BadBlocks.load(device, superblock(feature_map=bad.feature))
    assert again.ranges() == [(0, 512), (8192, 12288)]
    assert not again.changed
    assert not (await BadBlocks.load(device, superblock())).ranges(), "without the feature the log says nothing"


async def test_what_lies_outside_the_data_is_left_out():
    device = RamDevice("d", 4 * MIB)
    words = [2047 << 10 | 2, (2048 + 6143) << 10 | 100, (2**54 - 1) << 10 | 1, 0 << 10 | 100]
    device.data[LOG_AT : LOG_AT + 4096] = struct.pack("<4Q", *words).ljust(4096, b"\xff")
    bad = await BadBlocks.load(device, superblock(feature_map=FEATURE_BAD_BLOCKS))
    assert bad.ranges() == [(0, 512), (6143 * 512, 6144 * 512)]


async def test_what_was_written_over_is_durable_before_it_leaves_the_log():
    device = FaultyDevice(RamDevice("d", 4 * MIB))
    bad = BadBlocks(superblock())
    bad.add(0, 512)
    await bad.store(device)
    bad.forget(0, 512)
    device.fail("flush", MediaError("no flush"))
    with pytest.raises(MediaError, match="no flush"):
        await bad.store(device)
    assert bad.changed
    assert device.calls["write"] == 1, "the page with the block is still there"


async def test_a_full_log_is_a_reason_to_give_the_member_up():
    device = RamDevice("d", 4 * MIB)
    bad = BadBlocks(superblock())
    for number in range(512):
        bad.add(number * 1024, number * 1024 + 512)
    assert not bad.full
    await bad.store(device)
    before = bytes(device.data)
    bad.add(MIB, MIB + 512)
    assert bad.full
    with pytest.raises(MediaError, match="more bad blocks than its log can hold"):
        await bad.store(device)
    assert bad.changed
    assert device.data == before


async def test_a_member_without_a_log_can_have_none():
    bad = BadBlocks(superblock(bblog_size=0, bblog_offset=0))
    await bad.store(RamDevice("d", 4 * MIB))
    bad.add(0, 512)
    assert bad.full
    with pytest.raises(MediaError):
        await bad.store(RamDevice("d", 4 * MIB))


@pytest.mark.parametrize(
    "fields",
    [
        {"bblog_size": 16},
        {"bblog_offset": -16},
        {"bblog_offset": -4},
        {"bblog_offset": 2039},
        {"bblog_offset": 4000},
        {"bblog_shift": 255},
    ],
)
def test_a_log_in_an_impossible_place_is_refused(fields):
    with pytest.raises(IntegrityError, match="claims a bad-block log") as caught:
        BadBlocks(superblock(**fields))
    assert caught.value.hint
