"""Sizes, durations and rates, as people write them and as we print them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.units import GIB, KIB, MIB, format_duration, format_rate, format_size, parse_size, round_down, round_up


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("64KiB", 64 * KIB),
        ("64kib", 64 * KIB),
        ("64kB", 64000),
        ("1MB", 1000000),
        ("1.5G", 3 * GIB // 2),
        (" 1 TiB ", 1 << 40),
        ("7E", 7 << 60),
        ("0.5KiB", 512),
        (4096, 4096),
    ],
)
def test_sizes_are_read_as_truncate_reads_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "big",
        "-1",
        "1X",
        "K",
        "1,5G",
        "0.3KiB",
        "1.5",
        "1 2",
        "0x10",
        "1e3",
        -1,
        True,
        1.5,
        None,
        "\u0661K",
        "1\u212a",
    ],
)
def test_what_is_not_a_size_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a|is negative"):
        parse_size(text)


@given(st.integers(0, 1 << 70))
def test_a_number_of_bytes_is_itself(size):
    assert parse_size(str(size)) == parse_size(size) == size


@given(st.integers(0, (1 << 63) - 1))
def test_a_printed_size_reads_back_to_within_its_one_decimal(size):
    text = format_size(size)
    number, unit = text.split()
    magnitude = parse_size(f"1{unit}")
    tenths = int(float(number) * 10 + 0.5)
    assert abs(tenths * magnitude - size * 10) * 2 <= magnitude
    assert size == 0 or 1 <= float(number) <= 1024


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 * KIB, "64 KiB"),
        (GIB, "1 GiB"),
        (1 << 60, "1 EiB"),
        (15 * GIB // 10, "1.5 GiB"),
    ],
)
def test_sizes_are_printed_with_one_decimal_at_most(size, text):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (7500, "2h05m"), (356400, "4d03h")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert format_duration(seconds) == text


def test_rates_are_sizes_per_second():
    assert format_rate(182 * MIB) == "182 MiB/s"


@given(st.integers(0, 1 << 64), st.integers(1, 1 << 32))
def test_rounding_finds_the_neighbors(value, unit):
    below, above = round_down(value, unit), round_up(value, unit)
    assert below % unit == above % unit == 0
    assert below <= value <= above
    assert above - below in (0, unit)
    assert (above == below) == (value % unit == 0)
