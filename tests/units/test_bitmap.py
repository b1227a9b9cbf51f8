"""Bitmap: the codec against bytes that mdadm wrote, against itself, and against anything else."""

import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.bitmap import (
    HEADER_SIZE,
    MAGIC,
    MAX_LENGTH,
    STATE_STALE,
    STATE_WRITE_ERROR,
    Bitmap,
    BitmapError,
    DamagedBitmap,
    UnsupportedBitmap,
    default_chunk,
    length_of,
)

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
UUID = bytes(range(16))
U64 = st.integers(0, 2**64 - 1)


@st.composite
def bitmaps(draw):
    """Any bitmap that a parser should accept."""
    chunksize = 1 << draw(st.integers(9, 31))
    chunks = draw(st.integers(0, 3000))
    size = chunks * (chunksize // 512) - draw(st.integers(0, chunksize // 512 - 1)) if chunks else 0
    events = draw(U64)
    bitmap = Bitmap(
        draw(st.binary(min_size=16, max_size=16)),
        events,
        draw(st.integers(0, events)),
        size,
        chunksize,
        state=draw(st.integers(0, 2**32 - 1)),
        daemon_sleep=draw(st.integers(1, 2**32 - 1)),
        write_behind=draw(st.integers(0, 2**32 - 1)),
        sectors_reserved=draw(st.integers(0, 2**32 - 1)),
    )
    assert bitmap.chunks == chunks
    for chunk in draw(st.sets(st.integers(0, max(chunks - 1, 0)), max_size=20)) if chunks else ():
        bitmap.set_chunks(chunk, chunk)
    return bitmap


@given(bitmaps())
def test_what_is_encoded_is_parsed_again(bitmap):
    image = bitmap.encode()
    assert len(image) % 4096 == 0
    assert len(image) - 4096 < bitmap.length() <= len(image)
    assert Bitmap.parse(image) == bitmap
    assert Bitmap.parse(image).encode() == image


@given(bitmaps(), st.binary(min_size=184, max_size=184))
def test_what_no_field_covers_is_preserved(bitmap, rest):
    image = bitmap.encode()
    image[72:HEADER_SIZE] = rest
    parsed = Bitmap.parse(image)
    parsed.events = 7
    struct.pack_into("<Q", image, 24, 7)
    assert parsed.encode() == image


@given(bitmaps(), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 40)), max_size=6))
def test_bits_are_what_a_set_of_numbers_would_be(bitmap, spans):
    model = set(bitmap.dirty_chunks())
    for first, length in spans:
        last = min(first + length, bitmap.chunks - 1)
        if first <= last:
            bitmap.set_chunks(first, last)
            model.update(range(first, last + 1))
    for chunk in list(model)[::3]:
        bitmap.clear_chunk(chunk)
        model.discard(chunk)
    assert set(bitmap.dirty_chunks()) == model
    assert sorted(model) == list(bitmap.dirty_chunks())
    assert {chunk for chunk in range(bitmap.chunks) if bitmap[chunk]} == model
    covered = set()
    for low, high in bitmap.dirty_ranges():
        assert low < high <= bitmap.sync_size * 512
        covered |= set(range(low // bitmap.chunksize, (high - 1) // bitmap.chunksize + 1))
    assert covered == model


def test_bits_lie_lowest_first_behind_the_header_and_the_rest_of_the_page_is_ones():
    bitmap = Bitmap(UUID, 3, 2, 10 * 128, 64 * KIB)
    bitmap.set(9 * 64 * KIB, 10 * 64 * KIB)
    bitmap.set(0, 1)
    image = bitmap.encode()
    assert image[HEADER_SIZE : HEADER_SIZE + 2] == b"\x01\xfe", "bits 10 to 15 stand for nothing"
    assert image[HEADER_SIZE + 2 :] == b"\xff" * (4096 - HEADER_SIZE - 2)
    assert Bitmap.parse(image).dirty_ranges() == [(0, 65536), (9 * 65536, 10 * 65536)]


def test_padding_is_no_dirt_and_the_last_chunk_ends_with_the_array():
    bitmap = Bitmap.parse(Bitmap(UUID, 1, 1, 129, 64 * KIB).encode()[: HEADER_SIZE + 1])
    assert bitmap.chunks == 2
    assert not list(bitmap.dirty_chunks())
    bitmap.set_all()
    assert bitmap.dirty_ranges() == [(0, 129 * 512)]


def test_what_grows_is_dirty():
    bitmap = Bitmap(UUID, 1, 1, 128 * 4, 64 * KIB)
    assert bitmap.resized(128 * 11).dirty_ranges() == [(4 * 65536, 11 * 65536)]
    assert bitmap.resized(128 * 3).dirty_ranges() == []
    assert bitmap.dirty_ranges() == []


@pytest.mark.parametrize(("state", "good"), [(0, True), (STATE_STALE, False), (STATE_WRITE_ERROR, False), (8, True)])
def test_a_bitmap_that_says_that_bits_are_missing_is_not_trusted(state, good):
    assert Bitmap(UUID, 1, 1, 128, 4096, state=state).is_trustworthy is good


# --- hostile input ---------------------------------------------------------------------------------------------------


def change(**fields):
    """A bitmap of 64 MiB in 64 KiB chunks with some fields of its header changed."""
    places = {"magic": (0, "I"), "version": (4, "I"), "size": (40, "Q"), "chunk": (52, "I"), "sleep": (56, "I")}
    places |= {"nodes": (68, "I"), "events": (24, "Q"), "cleared": (32, "Q")}
    image = Bitmap(UUID, 5, 5, 64 * MIB // 512, 64 * KIB).encode()
    for name, value in fields.items():
        offset, code = places[name]
        struct.pack_into("<" + code, image, offset, value)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "kind", "says"),
    [
        (b"", DamagedBitmap, "too short"),
        (change()[:255], DamagedBitmap, "too short"),
        (bytes(4096), DamagedBitmap, "no write-intent bitmap"),
        (change(version=3), UnsupportedBitmap, r"version 3 \(in the byte order of its host\)"),
        (change(version=5), UnsupportedBitmap, r"version 5 \(shared by a cluster\)"),
        (change(version=6), UnsupportedBitmap, r"version 6 \(lockless \(llbitmap\)\)"),
        (change(version=2**32 - 1), UnsupportedBitmap, r"version 4294967295 \(unknown\)"),
        (change(nodes=2), UnsupportedBitmap, "cluster"),
        (change(chunk=0), DamagedBitmap, "chunks of 0 bytes"),
        (change(chunk=256), DamagedBitmap, "chunks of 256 bytes"),
        (change(chunk=65537), DamagedBitmap, "chunks of 65537 bytes"),
        (change(sleep=0), DamagedBitmap, "never tidied"),
        (change(size=2**64 - 1), DamagedBitmap, "in a place for 4096"),
        (change(chunk=512), DamagedBitmap, "16640 bytes in a place for 4096"),
    ],
)
def test_each_cause_has_its_error_and_its_sentence(image, kind, says):
    with pytest.raises(kind, match=says) as caught:
        Bitmap.parse(image)
    assert type(caught.value) is kind
    assert caught.value.hint
    assert caught.value.exit_code == (4 if kind is DamagedBitmap else 2)


def test_more_than_can_be_kept_in_memory_is_refused_before_it_is_read():
    with pytest.raises(DamagedBitmap, match=f"in a place for {MAX_LENGTH}"):
        Bitmap.parse_header(change(size=2**50), 2**40)


def test_bits_that_were_forgotten_in_the_future_were_forgotten_now():
    assert Bitmap.parse(change(cleared=2**64 - 1)).events_cleared == 5


@given(st.binary(max_size=600))
def test_garbage_is_refused(garbage):
    with pytest.raises(BitmapError):
        Bitmap.parse(garbage)


@given(st.lists(st.tuples(st.integers(4, 80), st.binary(min_size=1, max_size=8)), max_size=6), st.integers(0, 2**40))
def test_hostile_fields_never_raise_anything_else_and_never_take_much_memory(changes, space):
    image = bytearray(change())
    for position, value in changes:
        image[position : position + len(value)] = value
    try:
        bitmap = Bitmap.parse_header(image, space)
    except BitmapError:
        return
    assert bitmap.length() == HEADER_SIZE + len(bitmap.bits) <= min(space, MAX_LENGTH)
    assert bitmap.events_cleared <= bitmap.events
    assert Bitmap.parse_header(bitmap.encode(), space) == bitmap


# --- chunks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "space", "stripe_chunk", "chunk"),
    [
        (MIB, 4096, 0, 64 * KIB),
        (64 * MIB, 4096, 0, 256 * KIB),
        (64 * MIB, 4096, 512 * KIB, 512 * KIB),
        (GIB, 4096, 64 * KIB, 4 * MIB),
        (GIB + 512, 4096, 64 * KIB, 8 * MIB),
        (16 * GIB, 4096, 0, 64 * MIB),
        (TIB, 64 * KIB, 0, 64 * MIB),
        (TIB, 4096, 0, 64 * MIB),
        (TIB, 1024, 0, 256 * MIB),
        (0, 4096, 0, 64 * KIB),
    ],
)
def test_the_chunk_of_a_new_bitmap(size, space, stripe_chunk, chunk):
    assert default_chunk(size // 512, space, stripe_chunk) == chunk


@given(st.integers(0, 2**53), st.integers(300, 2**20), st.sampled_from([0, 4096, MIB, 64 * MIB, GIB]))
def test_a_new_bitmap_always_fits_and_is_no_finer_than_it_has_to_be(size, space, stripe_chunk):
    chunk = default_chunk(size, space, stripe_chunk)
    assert chunk & (chunk - 1) == 0
    assert chunk >= 64 * KIB
    assert length_of(size, chunk) <= space
    if chunk > 64 * MIB:
        assert length_of(size, chunk // 2) > space


# --- mdadm -----------------------------------------------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.parametrize(("size", "chunksize"), [(64 * MIB, 64 * KIB), (10 * GIB, 64 * MIB), (3 * MIB + 512, MIB)])
def test_mdadm_counts_the_same_bits(requires, tmp_path, size, chunksize):
    requires("mdadm")
    bitmap = Bitmap(UUID, 9, 7, size // 512, chunksize)
    bitmap.set(0, 1)
    bitmap.set(size - 1, size)
    path = tmp_path / "bitmap"
    path.write_bytes(bitmap.encode())
    done = subprocess.run(["mdadm", "--examine-bitmap", path], capture_output=True, text=True, check=True)
    seen = dict((part.strip() for part in line.split(" : ", 1)) for line in done.stdout.splitlines() if " : " in line)
    assert seen["Magic"] == f"{MAGIC:08x}"
    assert seen["Version"] == "4"
    assert seen["UUID"] == "00010203:04050607:08090a0b:0c0d0e0f"
    assert (seen["Events"], seen["Events Cleared"], seen["State"]) == ("9", "7", "OK")
    assert seen["Daemon"] == "5s flush period"
    assert seen["Bitmap"].startswith(f"{-(-size // chunksize)} bits (chunks), {2 if size > chunksize else 1} dirty")
