"""Superblock: the codec of MD metadata 1.2 against bytes that mdadm wrote, and against anything else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.superblock import (
    FEATURE_NAMES,
    FIXED_SIZE,
    MAGIC,
    MAX_EVENTS,
    MAX_ROLES,
    RESYNC_DONE,
    ROLE_FAULTY,
    ROLE_JOURNAL,
    ROLE_SPARE,
    SIZE,
    DamagedSuperblock,
    NoSuperblock,
    Superblock,
    SuperblockError,
    TruncatedMember,
    UnknownFeature,
    UnsupportedVersion,
    checksum,
    encode_name,
    format_uuid,
    pack_time,
    roles_for,
    unpack_time,
)

#: The second of three members that mdadm 4.2 made of 40 MiB and 3 sectors, raid5 with 64 KiB chunks, and its roles.
BY_MDADM = (
    bytes.fromhex(
        "fc4e2ba9010000000000000000000000b6ab0a069a7262f285418d736429ba646f72696f6e766d3a74350000"
        "00000000000000000000000000000000000000007f8c006b0000000005000000020000000038010000000000"
        "8000000003000000000000000000000000000000000000000000000000000000000000000000000000080000"
        "000000000338010000000000080000000000000000000000000000000100000000000000b417ff22c9b40f37"
        "ed000082ce4355fa00000800100000007f8c006b000000000000000000000000ffffffffffffffffeb9926d0"
        "800000000000000000000000000000000000000000000000000000000000000000000000000001000200ffff"
    )
    + b"\xff" * (512 - 264)
    + bytes(SIZE - 512)
)
BY_MDADM_SIZE = (40 << 20) + 3 * 512

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
S32 = st.integers(-(2**31), 2**31 - 1)
NAMES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), max_size=8)


@st.composite
def superblocks(draw):
    """Any superblock that a parser should accept, also those that make no sense as an array."""
    count = draw(st.integers(0, MAX_ROLES) | st.integers(0, 8))
    data_size = draw(st.integers(0, 2**62))
    return Superblock(
        set_uuid=draw(st.binary(min_size=16, max_size=16)),
        device_uuid=draw(st.binary(min_size=16, max_size=16)),
        set_name=draw(NAMES),
        level=draw(st.sampled_from([-5, -4, -1, 0, 1, 4, 5, 6, 10])),
        raid_disks=draw(st.integers(1, MAX_ROLES)),
        dev_number=draw(U32),
        dev_roles=(draw(st.lists(U16, min_size=1, max_size=8)) * count)[:count],
        data_offset=draw(st.integers(16, 2**62)),
        data_size=data_size,
        size=draw(st.integers(0, data_size)),
        layout=draw(U32),
        chunksize=draw(U32),
        ctime=draw(U64),
        utime=draw(U64),
        events=draw(st.integers(0, MAX_EVENTS)),
        resync_offset=draw(U64 | st.just(RESYNC_DONE)),
        feature_map=draw(st.integers(0, sum(FEATURE_NAMES))),
        bitmap_offset=draw(S32),
        new_level=draw(S32),
        reshape_position=draw(U64),
        delta_disks=draw(S32),
        new_layout=draw(U32),
        new_chunk=draw(U32),
        new_offset=draw(S32),
        recovery_offset=draw(U64),
        cnt_corrected_read=draw(U32),
        devflags=draw(st.integers(0, 255)),
        bblog_shift=draw(st.integers(0, 255)),
        bblog_size=draw(U16),
        bblog_offset=draw(S32),
        logical_block_size=draw(U32),
    )


def sealed(block):
    """*block* with the checksum that its contents ask for, so that only what it says can be wrong."""
    (max_dev,) = struct.unpack_from("<I", block, 220)
    result = bytearray(block)
    if max_dev <= MAX_ROLES:
        struct.pack_into("<I", result, 216, checksum(result, max_dev))
    return bytes(result)


def test_what_mdadm_wrote_is_read_field_by_field():
    superblock = Superblock.parse(BY_MDADM, BY_MDADM_SIZE)
    assert format_uuid(superblock.set_uuid) == "b6ab0a06:9a7262f2:85418d73:6429ba64"
    assert format_uuid(superblock.device_uuid) == "b417ff22:c9b40f37:ed000082:ce4355fa"
    assert superblock.set_name == "orionvm:t5"
    assert (superblock.level, superblock.layout, superblock.raid_disks, superblock.chunksize) == (5, 2, 3, 128)
    assert (superblock.size, superblock.data_offset, superblock.data_size) == (79872, 2048, 79875)
    assert (superblock.bblog_shift, superblock.bblog_size, superblock.bblog_offset) == (0, 8, 16)
    assert (superblock.dev_number, superblock.role, superblock.max_dev) == (1, 1, 128)
    assert superblock.is_clean
    assert not superblock.is_recovering
    assert superblock.events == 0
    assert superblock.ctime == superblock.utime
    assert unpack_time(superblock.ctime) == 1795198079 * 10**9  # 2026-11-20 18:07:59 UTC


def test_what_mdadm_wrote_is_written_back_byte_for_byte():
    assert Superblock.parse(BY_MDADM).encode() == BY_MDADM


@given(superblocks())
def test_what_is_encoded_is_parsed_again(superblock):
    encoded = superblock.encode()
    assert len(encoded) == SIZE
    parsed = Superblock.parse(encoded)
    assert parsed == superblock
    assert parsed.encode() == encoded


@given(superblocks(), st.binary(min_size=28, max_size=28), st.binary(min_size=32, max_size=32))
def test_what_no_field_covers_is_preserved(superblock, padding, name):
    block = bytearray(superblock.encode())
    block[228:256] = padding  # newer kernels put fields here
    block[12:16] = padding[:4]
    block[32:64] = name  # also a name that is not UTF-8
    block[superblock.length() :] = b"\xa5" * (SIZE - superblock.length())
    parsed = Superblock.parse(sealed(block))
    parsed.events = 7
    again = parsed.encode()
    expected = bytearray(block)
    struct.pack_into("<Q", expected, 200, 7)
    assert again == sealed(expected)
    assert parsed.set_name.isprintable()
    parsed.set_name.encode()


def test_every_flipped_byte_is_noticed():
    covered = FIXED_SIZE + 2 * 128
    for position in range(covered):
        for flip in (0x01, 0x80, 0xFF):
            block = bytearray(BY_MDADM)
            block[position] ^= flip
            with pytest.raises(SuperblockError):
                Superblock.parse(block)
    block = bytearray(BY_MDADM)
    block[covered] ^= 1  # belongs to nobody
    Superblock.parse(block)


@given(st.binary(max_size=SIZE + 16) | st.binary(min_size=SIZE, max_size=SIZE))
def test_garbage_is_refused(garbage):
    with pytest.raises(SuperblockError) as caught:
        Superblock.parse(garbage)
    assert caught.value.exit_code in (3, 8)


@given(superblocks(), st.lists(st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=8)), max_size=6), U64)
def test_hostile_fields_with_a_right_checksum_never_raise_anything_else(superblock, changes, device_size):
    block = bytearray(superblock.encode())
    for position, change in changes:
        block[position : position + len(change)] = change
    try:
        parsed = Superblock.parse(sealed(block), device_size)
    except SuperblockError:
        return
    assert 1 <= parsed.raid_disks <= MAX_ROLES
    assert parsed.max_dev <= MAX_ROLES
    assert (parsed.data_offset + parsed.data_size) * 512 <= device_size
    assert parsed.data_offset * 512 >= 4096 + FIXED_SIZE + 2 * parsed.max_dev
    assert parsed.role in range(0x10000)
    assert len(parsed.encode()) == SIZE


def change(**fields):
    """What mdadm wrote, with some fields changed and the checksum right."""
    superblock = Superblock.parse(BY_MDADM)
    for name, value in fields.items():
        setattr(superblock, name, value)
    return superblock.encode()


@pytest.mark.parametrize(
    ("block", "kind", "says"),
    [
        (bytes(SIZE), NoSuperblock, "no MD superblock"),
        (BY_MDADM[:4095], TruncatedMember, "too short"),
        (BY_MDADM[:216] + bytes(4) + BY_MDADM[220:], DamagedSuperblock, "checksum"),
        (change(feature_map=0x6000), UnknownFeature, "0x6000"),
        (change(feature_map=0x2001), UnknownFeature, "0x2000"),
        (change(major_version=0), UnsupportedVersion, "version 0"),
        (change(super_offset=0), UnsupportedVersion, "sector 0"),
        (sealed(BY_MDADM[:220] + struct.pack("<I", 1921) + BY_MDADM[224:]), DamagedSuperblock, "1921 roles"),
        (change(level=7), DamagedSuperblock, "level 7"),
        (change(raid_disks=0), DamagedSuperblock, "0 members"),
        (change(raid_disks=2**32 - 1), DamagedSuperblock, "4294967295 members"),
        (change(events=2**64 - 1), DamagedSuperblock, "18446744073709551615 events"),
        (change(data_offset=8), DamagedSuperblock, "on top of itself"),
        (change(size=79876), DamagedSuperblock, "79876 sectors of 79875"),
        (change(data_size=79876), TruncatedMember, "truncated"),
        (change(data_offset=2**64 - 1), TruncatedMember, "truncated"),
    ],
)
def test_each_cause_has_its_error_and_its_sentence(block, kind, says):
    with pytest.raises(kind, match=says) as caught:
        Superblock.parse(block, BY_MDADM_SIZE)
    assert type(caught.value) is kind
    assert caught.value.hint


def test_exit_codes_say_what_kind_of_trouble_it_is():
    codes = {kind: kind("").exit_code for kind in SuperblockError.__subclasses__()}
    assert codes == {
        NoSuperblock: 3,
        DamagedSuperblock: 4,
        UnknownFeature: 5,
        UnsupportedVersion: 2,
        TruncatedMember: 8,
    }


def test_the_checksum_folds_the_carry_and_counts_a_half_word():
    block = bytearray(SIZE)
    struct.pack_into("<II", block, 0, 0xFFFFFFFF, 0x00000003)
    assert checksum(block, 0) == 3  # 1_00000002 folds to 2 + 1
    struct.pack_into("<H", block, FIXED_SIZE, 0xFFFF)
    assert checksum(block, 1) == 3 + 0xFFFF
    struct.pack_into("<I", block, 216, 0x12345678)
    assert checksum(block, 1) == 3 + 0xFFFF, "the field itself counts as zero"


def test_roles():
    superblock = Superblock.parse(BY_MDADM)
    superblock.dev_roles = [0, ROLE_SPARE, ROLE_FAULTY, 1, 1, ROLE_JOURNAL]
    assert superblock.numbers_in(0) == [0]
    assert superblock.numbers_in(1) == [3, 4], "a replacement is under way"
    assert superblock.role == ROLE_SPARE
    assert superblock.role_of(5) == ROLE_JOURNAL
    assert superblock.role_of(6) == ROLE_SPARE, "no entry"
    superblock.disown(1)
    assert superblock.dev_roles == [0, ROLE_SPARE, ROLE_FAULTY, ROLE_FAULTY, ROLE_FAULTY, ROLE_JOURNAL]


def test_a_copy_is_independent():
    superblock = Superblock.parse(BY_MDADM)
    copy = superblock.copy()
    assert copy == superblock
    copy.dev_roles[0] = ROLE_FAULTY
    copy.events = 9
    assert superblock.encode() == BY_MDADM


def test_new_roles_fill_whole_sectors():
    assert roles_for(3) == [0, 1, 2] + [ROLE_SPARE] * 125
    assert len(roles_for(128)) == 128
    assert len(roles_for(129)) == 384


def test_an_update_of_up_to_128_roles_is_one_sector():
    superblock = Superblock.parse(BY_MDADM)
    assert superblock.length() == 512
    assert superblock.length(4096) == 4096
    superblock.dev_roles = roles_for(129)
    assert superblock.length() == 1024
    assert Superblock.parse(superblock.encode()) == superblock


def test_the_place_of_a_ppl_shares_the_bytes_of_the_bitmap():
    superblock = Superblock.parse(BY_MDADM)
    superblock.bitmap_offset = struct.unpack("<i", struct.pack("<hH", -8, 0x8800))[0]
    assert (superblock.ppl_offset, superblock.ppl_size) == (-8, 0x8800)


@given(st.integers(0, (1 << 40) * 10**9 - 1))
def test_times_keep_microseconds(wall_ns):
    assert unpack_time(pack_time(wall_ns)) == wall_ns // 1000 * 1000


@pytest.mark.parametrize("name", ["x" * 33, "ä" * 17, "a\0b"])
def test_a_name_that_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match="32 bytes"):
        encode_name(name)


def test_a_hostile_name_is_harmless_on_a_terminal():
    block = bytearray(BY_MDADM)
    block[32:64] = b"\x1b[31m\xff\n".ljust(32, b"\0")
    superblock = Superblock.parse(sealed(block))
    assert superblock.set_name == r"\x1b[31m\xff\x0a"
    assert superblock.encode() == sealed(block)
    assert MAGIC == 0xA92B4EFC
