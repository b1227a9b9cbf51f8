"""The Linux MD metadata 1.2 superblock: a codec without I/O.

One superblock lies at byte 4096 of every member.  Format: the kernel's ``uapi/linux/raid/md_p.h`` (struct
``mdp_superblock_1``); every integer is little-endian and a sector is 512 bytes.  The media are hostile input: whatever
the bytes are, :meth:`Superblock.parse` returns a superblock whose fields are consistent or raises a
:class:`SuperblockError`, in bounded time and memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Any

from orionfs.errors import IntegrityError, MediaError, NotFound, OrionError, Refused, Unsupported
from orionfs.units import SECTOR, round_up

MAGIC = 0xA92B4EFC
#: Byte of the member at which a 1.2 superblock begins, and the most that it takes.
OFFSET = 4096
SIZE = 4096
#: The bytes before ``dev_roles``, and the most roles that fit behind them.
FIXED_SIZE = 256
MAX_ROLES = (SIZE - FIXED_SIZE) // 2

#: ``resync_offset`` of an array whose redundancy is in order throughout.
RESYNC_DONE = 2**64 - 1

#: Counting on from here never overflows; nobody has got this far by updating superblocks.
MAX_EVENTS = 2**63

ROLE_JOURNAL = 0xFFFD
ROLE_FAULTY = 0xFFFE
ROLE_SPARE = 0xFFFF

FEATURE_BITMAP = 0x1
FEATURE_RECOVERY_OFFSET = 0x2
FEATURE_RESHAPE_ACTIVE = 0x4
FEATURE_BAD_BLOCKS = 0x8
FEATURE_REPLACEMENT = 0x10
FEATURE_RESHAPE_BACKWARDS = 0x20
FEATURE_NEW_OFFSET = 0x40
FEATURE_RECOVERY_BITMAP = 0x80
FEATURE_CLUSTERED = 0x100
FEATURE_JOURNAL = 0x200
FEATURE_PPL = 0x400
FEATURE_MULTIPLE_PPLS = 0x800
FEATURE_RAID0_LAYOUT = 0x1000

#: What people call the bits of ``feature_map``.
FEATURE_NAMES: dict[int, str] = {
    FEATURE_BITMAP: "write-intent bitmap",
    FEATURE_RECOVERY_OFFSET: "recovery under way",
    FEATURE_RESHAPE_ACTIVE: "reshape under way",
    FEATURE_BAD_BLOCKS: "bad-block log",
    FEATURE_REPLACEMENT: "hot replacement",
    FEATURE_RESHAPE_BACKWARDS: "backwards reshape",
    FEATURE_NEW_OFFSET: "new data offset",
    FEATURE_RECOVERY_BITMAP: "recovery by bitmap",
    FEATURE_CLUSTERED: "cluster",
    FEATURE_JOURNAL: "write journal",
    FEATURE_PPL: "partial parity log (PPL)",
    FEATURE_MULTIPLE_PPLS: "multiple partial parity logs (PPL)",
    FEATURE_RAID0_LAYOUT: "RAID 0 layout",
}
KNOWN_FEATURES = sum(FEATURE_NAMES)

LEVEL_LINEAR = -1
#: Every level that MD has a number for, by the name that mdadm prints.
LEVEL_NAMES: dict[int, str] = {
    -5: "faulty",
    -4: "multipath",
    -1: "linear",
    0: "raid0",
    1: "raid1",
    4: "raid4",
    5: "raid5",
    6: "raid6",
    10: "raid10",
}

#: The fixed part: each field with its :mod:`struct` code, in the order of the bytes.  Leading underscores mark what is
#: not kept in a field of :class:`Superblock`.
_LAYOUT = (
    ("_magic", "I"),
    ("major_version", "I"),
    ("feature_map", "I"),
    ("_pad0", "I"),
    ("set_uuid", "16s"),
    ("set_name", "32s"),
    ("ctime", "Q"),
    ("level", "i"),
    ("layout", "I"),
    ("size", "Q"),
    ("chunksize", "I"),
    ("raid_disks", "I"),
    ("bitmap_offset", "i"),
    ("new_level", "i"),
    ("reshape_position", "Q"),
    ("delta_disks", "i"),
    ("new_layout", "I"),
    ("new_chunk", "I"),
    ("new_offset", "i"),
    ("data_offset", "Q"),
    ("data_size", "Q"),
    ("super_offset", "Q"),
    ("recovery_offset", "Q"),
    ("dev_number", "I"),
    ("cnt_corrected_read", "I"),
    ("device_uuid", "16s"),
    ("devflags", "B"),
    ("bblog_shift", "B"),
    ("bblog_size", "H"),
    ("bblog_offset", "i"),
    ("utime", "Q"),
    ("events", "Q"),
    ("resync_offset", "Q"),
    ("_sb_csum", "I"),
    ("_max_dev", "I"),
    ("logical_block_size", "I"),
    ("_pad3", "28s"),
)
_NAMES = tuple(name for name, _ in _LAYOUT)
_FIXED = struct.Struct("<" + "".join(code for _, code in _LAYOUT))
_CHECKSUM_AT = 216


class SuperblockError(OrionError):
    """These bytes are not a superblock that this release can use.  The caller puts the member's label in front."""


class NoSuperblock(SuperblockError, NotFound):
    """There is no MD superblock here at all."""


class DamagedSuperblock(SuperblockError, IntegrityError):
    """There is one, but its checksum is wrong or its fields contradict each other."""


class UnknownFeature(SuperblockError, Refused):
    """It has feature bits that this release does not know."""


class UnsupportedVersion(SuperblockError, Unsupported):
    """It is MD metadata of another version than 1.2."""


class TruncatedMember(SuperblockError, MediaError):
    """The member is shorter than its superblock says, or than a superblock."""


@dataclass(slots=True)
class Superblock:
    """One member's superblock.  Fields have the names and units (sectors, unless said) of the format.

    ``bitmap_offset`` shares its bytes with the place of the PPL (see :attr:`ppl_offset`); ``ctime`` and ``utime`` are
    raw (see :func:`pack_time`).  ``set_name`` is fit for a terminal: what is not printable reads ``\\xNN``.  ``raw`` is
    the block that it was parsed from: :meth:`encode` keeps what no field covers, such as the fields of newer kernels.
    """

    set_uuid: bytes
    device_uuid: bytes
    level: int
    raid_disks: int
    dev_number: int
    dev_roles: list[int]
    data_offset: int
    data_size: int
    set_name: str = ""
    size: int = 0
    layout: int = 0
    chunksize: int = 0
    ctime: int = 0
    utime: int = 0
    events: int = 0
    resync_offset: int = RESYNC_DONE
    feature_map: int = 0
    major_version: int = 1
    super_offset: int = OFFSET // SECTOR
    bitmap_offset: int = 0
    new_level: int = 0
    reshape_position: int = 0
    delta_disks: int = 0
    new_layout: int = 0
    new_chunk: int = 0
    new_offset: int = 0
    recovery_offset: int = 0
    cnt_corrected_read: int = 0
    devflags: int = 0
    bblog_shift: int = 0
    bblog_size: int = 0
    bblog_offset: int = 0
    logical_block_size: int = 0
    raw: bytes = field(default=bytes(SIZE), repr=False, compare=False)

    @classmethod
    def parse(cls, raw: bytes | bytearray | memoryview, device_size: int | None = None) -> Superblock:
        """The superblock in *raw*, the 4096 bytes at :data:`OFFSET` of a member of *device_size* bytes (None: unknown).

        Raises a subclass of :class:`SuperblockError` for each cause.  What is returned has a right checksum, version
        1.2, only feature bits that have a name, at most :data:`MAX_ROLES` roles and slots, and data that lie behind
        the superblock and inside the device.
        """
        raw = bytes(raw[:SIZE])
        if len(raw) < SIZE:
            raise TruncatedMember("is too short to hold an MD superblock", hint="check that it is the right file")
        values: dict[str, Any] = dict(zip(_NAMES, _FIXED.unpack_from(raw), strict=True))
        if values["_magic"] != MAGIC:
            raise NoSuperblock("holds no MD superblock", hint="check that it is a member of an array")
        if values["major_version"] != 1:
            raise UnsupportedVersion(
                f"holds MD metadata of major version {values['major_version']}, and OrionFS uses version 1.2 only",
                hint="assemble this array with mdadm",
            )
        max_dev = values["_max_dev"]
        if max_dev > MAX_ROLES:
            raise _damaged(f"has a superblock that claims {max_dev} roles where at most {MAX_ROLES} fit")
        if checksum(raw, max_dev) != values["_sb_csum"]:
            raise _damaged("has an MD superblock whose checksum is wrong")
        values["set_name"] = _decode_name(values["set_name"])
        values["dev_roles"] = list(struct.unpack_from(f"<{max_dev}H", raw, FIXED_SIZE))
        superblock = cls(raw=raw, **{name: value for name, value in values.items() if not name.startswith("_")})
        superblock._check(device_size)
        return superblock

    def _check(self, device_size: int | None) -> None:
        """Raise a :class:`SuperblockError` unless the fields fit each other and a device of *device_size* bytes."""
        unknown = self.feature_map & ~KNOWN_FEATURES
        if unknown:
            raise UnknownFeature(
                f"uses MD features {unknown:#x}, which this release of OrionFS does not know",
                hint="use a newer release, or assemble the array with a kernel that knows them",
            )
        if self.super_offset != OFFSET // SECTOR:
            raise UnsupportedVersion(
                f"holds a superblock that belongs at sector {self.super_offset}; that of version 1.2 is at sector 8",
                hint="assemble this array with mdadm",
            )
        if self.level not in LEVEL_NAMES:
            raise _damaged(f"has a superblock that names level {self.level}, which MD does not have")
        if not 1 <= self.raid_disks <= MAX_ROLES:
            raise _damaged(f"has a superblock that claims an array of {self.raid_disks} members")
        if self.events > MAX_EVENTS:
            raise _damaged(f"has a superblock that claims {self.events} events, more than can have happened")
        if self.data_offset * SECTOR < OFFSET + self.length():
            raise _damaged(f"has a superblock that places the data at sector {self.data_offset}, on top of itself")
        if self.size > self.data_size and self.level not in (LEVEL_LINEAR, 0):
            raise _damaged(f"has a superblock that uses {self.size} sectors of {self.data_size}")
        needed = (self.data_offset + self.data_size) * SECTOR
        if device_size is not None and needed > device_size:
            raise TruncatedMember(
                f"is {device_size} bytes long where its superblock needs {needed}: it was truncated",
                hint="put the whole member back; nothing was written",
            )

    def encode(self) -> bytes:
        """The 4096 bytes to store at :data:`OFFSET`, checksum included; only the first :meth:`length` need writing.

        What no field covers is as it was in :attr:`raw`.
        """
        block = bytearray(self.raw)
        values = dict(zip(_NAMES, _FIXED.unpack_from(block), strict=True))
        stored_name = values["set_name"]
        for name in _NAMES:
            if not name.startswith("_"):
                values[name] = getattr(self, name)
        if _decode_name(stored_name) == self.set_name:
            values["set_name"] = stored_name
        else:
            values["set_name"] = encode_name(self.set_name)
        values.update(_magic=MAGIC, _sb_csum=0, _max_dev=self.max_dev)
        _FIXED.pack_into(block, 0, *values.values())
        struct.pack_into(f"<{self.max_dev}H", block, FIXED_SIZE, *self.dev_roles)
        struct.pack_into("<I", block, _CHECKSUM_AT, checksum(block, self.max_dev))
        return bytes(block)

    def length(self, logical_block: int = SECTOR) -> int:
        """Bytes that an update has to write: what the checksum covers, in whole blocks.

        One sector for up to 128 roles, so that a power cut leaves an old or a new superblock.
        """
        return round_up(FIXED_SIZE + 2 * self.max_dev, logical_block)

    def copy(self) -> Superblock:
        """An independent copy."""
        return replace(self, dev_roles=list(self.dev_roles))

    @property
    def max_dev(self) -> int:
        """Entries of ``dev_roles``."""
        return len(self.dev_roles)

    @property
    def role(self) -> int:
        """What this member is by its own account: its slot, or one of the ``ROLE_`` constants.

        A member in a slot holds the array's data only if it is not :attr:`is_recovering`.
        """
        return self.role_of(self.dev_number)

    def role_of(self, dev_number: int) -> int:
        """The role of the member with that number; a number without an entry is a spare's."""
        return self.dev_roles[dev_number] if dev_number < self.max_dev else ROLE_SPARE

    def numbers_in(self, slot: int) -> list[int]:
        """The ``dev_number`` of each member that holds *slot*: none if the slot is empty, two while one is replaced."""
        return [number for number, role in enumerate(self.dev_roles) if role == slot]

    def disown(self, slot: int) -> None:
        """Record whoever holds *slot* as faulty, so that a reader of this superblock never trusts it again."""
        for number in self.numbers_in(slot):
            self.dev_roles[number] = ROLE_FAULTY

    @property
    def is_clean(self) -> bool:
        """Whether the redundancy is in order throughout (``resync_offset``)."""
        return self.resync_offset == RESYNC_DONE

    @property
    def is_recovering(self) -> bool:
        """Whether this member is only rebuilt up to ``recovery_offset``."""
        return bool(self.feature_map & FEATURE_RECOVERY_OFFSET)

    @property
    def ppl_offset(self) -> int:
        """Sectors from the superblock to the PPL (with a PPL feature; signed)."""
        low = self.bitmap_offset & 0xFFFF
        return low - 0x10000 if low & 0x8000 else low

    @property
    def ppl_size(self) -> int:
        """Sectors of the PPL (with a PPL feature)."""
        return self.bitmap_offset >> 16 & 0xFFFF


def checksum(raw: bytes | bytearray, max_dev: int) -> int:
    """The ``sb_csum`` of a superblock with *max_dev* roles: 32-bit words added in 64 bits and folded once."""
    length = FIXED_SIZE + 2 * max_dev
    words = length // 4
    total: int = sum(struct.unpack_from(f"<{words}I", raw))
    if length % 4:
        total += struct.unpack_from("<H", raw, words * 4)[0]
    total -= struct.unpack_from("<I", raw, _CHECKSUM_AT)[0]
    return ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def pack_time(wall_ns: int) -> int:
    """*wall_ns* (nanoseconds since 1970) as ``ctime`` and ``utime`` hold it: 40 bits seconds, 24 bits microseconds."""
    seconds, nanoseconds = divmod(wall_ns, 10**9)
    return seconds & (1 << 40) - 1 | nanoseconds // 1000 << 40


def unpack_time(raw: int) -> int:
    """The nanoseconds since 1970 of a raw ``ctime`` or ``utime``; a whole number of microseconds."""
    return (raw & (1 << 40) - 1) * 10**9 + (raw >> 40) * 1000


def roles_for(count: int, spares: int = 0) -> list[int]:
    """The ``dev_roles`` of a new array: slots 0 to *count* - 1, *spares*, then unused entries up to a whole sector."""
    entries = (round_up(FIXED_SIZE + 2 * (count + spares), SECTOR) - FIXED_SIZE) // 2
    return [*range(count), *[ROLE_SPARE] * (entries - count)]


def format_uuid(uuid: bytes) -> str:
    """*uuid* as mdadm prints it: four groups of eight digits."""
    text = uuid.hex()
    return ":".join(text[start : start + 8] for start in range(0, 32, 8))


def encode_name(name: str) -> bytes:
    """The 32 bytes of a ``set_name``.  Raises ValueError if it does not fit or holds a NUL."""
    encoded = name.encode()
    if len(encoded) > 32 or b"\0" in encoded:
        raise ValueError(f"{name!r} is not a name of at most 32 bytes")
    return encoded.ljust(32, b"\0")


def _decode_name(raw: bytes) -> str:
    text = raw.split(b"\0", 1)[0].decode(errors="backslashreplace")
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


def _damaged(message: str) -> DamagedSuperblock:
    return DamagedSuperblock(message, hint="put a good copy of the member back, or let the array do without it")
