"""The Linux MD write-intent bitmap, version 4: a codec without I/O.

A header of 256 bytes, then at once the bits, the lowest of a byte first; each says that somewhere in its chunk the
redundancy may not agree.  Format: the kernel's ``drivers/md/md-bitmap.h`` (``bitmap_super_t``), integers little-endian.
The media are hostile input: whatever the bytes are, parsing them gives a bitmap of bounded size or raises a
:class:`BitmapError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from orionfs.errors import IntegrityError, OrionError, Unsupported
from orionfs.units import KIB, MIB, SECTOR, round_up

MAGIC = 0x6D746962
VERSION = 4
HEADER_SIZE = 256
#: What mdadm fills up, with ones: the whole page behind the last bit.
PAGE = 4096
#: A finer bitmap than this is not what it was made for, and it is kept in memory.
MAX_LENGTH = 16 * MIB

STATE_STALE = 0x2
STATE_WRITE_ERROR = 0x4

#: The chunk that mdadm chooses, and the least that it takes.
LARGEST_CHUNK = 64 * MIB
_LEAST_CHUNK = 4 * KIB
#: Smaller arrays get smaller chunks, so that a resync after a cut stays a small part of them too.
_CHUNKS = 256
_SMALLEST_CHUNK = 64 * KIB

#: Other versions of the format, and what they are.
_OTHER_VERSIONS = {3: "in the byte order of its host", 5: "shared by a cluster", 6: "lockless (llbitmap)"}

_LAYOUT = (
    ("_magic", "I"),
    ("_version", "I"),
    ("uuid", "16s"),
    ("events", "Q"),
    ("events_cleared", "Q"),
    ("sync_size", "Q"),
    ("state", "I"),
    ("chunksize", "I"),
    ("daemon_sleep", "I"),
    ("write_behind", "I"),
    ("sectors_reserved", "I"),
    ("_nodes", "I"),
)
_NAMES = tuple(name for name, _ in _LAYOUT)
_FIXED = struct.Struct("<" + "".join(code for _, code in _LAYOUT))


class BitmapError(OrionError):
    """These bytes are not a bitmap that this release can use.  The caller puts the member's label in front."""


class DamagedBitmap(BitmapError, IntegrityError):
    """There is none, or its fields contradict each other: nothing is known about what was being written."""


class UnsupportedBitmap(BitmapError, Unsupported):
    """It is of a kind that this release must not write to."""


@dataclass(slots=True)
class Bitmap:
    """A bitmap in memory.  Fields have the names and units of the format.

    ``sync_size`` is in sectors, ``chunksize`` in bytes, ``daemon_sleep`` in seconds.  A bit stands for ``chunksize``
    sync addresses: bytes of member data, at level 10 bytes of the array.  ``bits`` are the stored bytes as far as there
    are chunks; bits past the last chunk are zero here and ones in :meth:`encode`, as mdadm writes them.  ``raw`` is the
    header that it was parsed from: what no field covers is kept.
    """

    uuid: bytes
    events: int
    events_cleared: int
    sync_size: int
    chunksize: int
    state: int = 0
    daemon_sleep: int = 5
    write_behind: int = 0
    sectors_reserved: int = 0
    bits: bytearray = field(default_factory=bytearray, repr=False)
    raw: bytes = field(default=bytes(HEADER_SIZE), repr=False, compare=False)

    def __post_init__(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """As many bits as there are chunks."""
        self.bits = (self.bits + bytes(self._bit_bytes()))[: self._bit_bytes()]
        if self.chunks % 8:
            self.bits[-1] &= (1 << self.chunks % 8) - 1

    @classmethod
    def parse_header(cls, raw: bytes | bytearray | memoryview, space: int) -> Bitmap:
        """The header in *raw* (at least 256 bytes) of a bitmap that may take *space* bytes; its bits are all zero.

        Raises :class:`UnsupportedBitmap` or :class:`DamagedBitmap`.
        """
        raw = bytes(raw[:HEADER_SIZE])
        if len(raw) < HEADER_SIZE:
            raise _damaged("is too short to hold a write-intent bitmap")
        values: dict[str, Any] = dict(zip(_NAMES, _FIXED.unpack_from(raw), strict=True))
        version, chunksize = values["_version"], values["chunksize"]
        if values["_magic"] != MAGIC:
            raise _damaged("holds no write-intent bitmap where its superblock says that there is one")
        if version != VERSION or values["_nodes"]:
            what = _OTHER_VERSIONS.get(5 if version == VERSION else version, "unknown")
            raise UnsupportedBitmap(
                f"has a write-intent bitmap of version {version} ({what}), and OrionFS uses version {VERSION} only",
                hint="let the kernel remove it: mdadm --grow --bitmap=none",
            )
        if chunksize < SECTOR or chunksize & chunksize - 1:
            raise _damaged(f"has a write-intent bitmap with chunks of {chunksize} bytes, which is no power of two")
        if not values["daemon_sleep"]:
            raise _damaged("has a write-intent bitmap that is never tidied")
        length = length_of(values["sync_size"], chunksize)
        if length > min(space, MAX_LENGTH):
            raise _damaged(f"has a write-intent bitmap of {length} bytes in a place for {min(space, MAX_LENGTH)}")
        # A count of the future would make every absence look covered.
        values["events_cleared"] = min(values["events_cleared"], values["events"])
        return cls(raw=raw, **{name: value for name, value in values.items() if not name.startswith("_")})

    @classmethod
    def parse(cls, raw: bytes | bytearray | memoryview, space: int | None = None) -> Bitmap:
        """The bitmap that *raw* begins with; *space* as in :meth:`parse_header`, the length of *raw* if None."""
        bitmap = cls.parse_header(raw, len(raw) if space is None else min(space, len(raw)))
        bitmap.load_bits(raw)
        return bitmap

    def load_bits(self, raw: bytes | bytearray | memoryview) -> None:
        """Take the bits from *raw*, the stored bitmap with its header, at least :meth:`length` bytes."""
        self.bits = bytearray(raw[HEADER_SIZE : self.length()])
        self._fit()

    def encode(self) -> bytearray:
        """Header, bits, and ones up to a whole page."""
        length = self.length()
        image = bytearray(self.header() + self.bits)
        if self.chunks % 8:
            image[-1] |= 0xFF << self.chunks % 8 & 0xFF
        return image + b"\xff" * (round_up(length, PAGE) - length)

    def header(self) -> bytes:
        """The 256 bytes of the header alone."""
        block = bytearray(self.raw)
        values = {name: getattr(self, name, 0) for name in _NAMES}
        values.update(_magic=MAGIC, _version=VERSION, _nodes=0)
        _FIXED.pack_into(block, 0, *values.values())
        return bytes(block)

    @property
    def chunks(self) -> int:
        """How many bits mean something."""
        return -(-self.sync_size * SECTOR // self.chunksize)

    def length(self) -> int:
        """Bytes of header and bits."""
        return HEADER_SIZE + self._bit_bytes()

    def _bit_bytes(self) -> int:
        return -(-self.chunks // 8)

    @property
    def is_trustworthy(self) -> bool:
        """Whether it does not itself say that bits are missing."""
        return not self.state & (STATE_STALE | STATE_WRITE_ERROR)

    def __getitem__(self, chunk: int) -> bool:
        return bool(self.bits[chunk >> 3] & 1 << (chunk & 7))

    def set(self, low: int, high: int) -> None:
        """Set the bits of the sync addresses [low, high)."""
        if low < high:
            self.set_chunks(low // self.chunksize, (high - 1) // self.chunksize)

    def set_chunks(self, first: int, last: int) -> None:
        """Set the bits of the chunks *first* to *last*, both included."""
        bits = self.bits
        for chunk in range(first, min(first | 7, last) + 1):
            bits[chunk >> 3] |= 1 << (chunk & 7)
        low, high = (first | 7) + 1, max(last & ~7, (first | 7) + 1)
        bits[low >> 3 : high >> 3] = b"\xff" * (high - low >> 3)
        for chunk in range(high, last + 1):
            bits[chunk >> 3] |= 1 << (chunk & 7)

    def clear_chunk(self, chunk: int) -> None:
        """Clear the bit of *chunk*."""
        self.bits[chunk >> 3] &= ~(1 << (chunk & 7))

    def resized(self, sync_size: int) -> Bitmap:
        """The same for *sync_size* sectors; chunks that are new are dirty."""
        known = self.chunks
        other = replace(self, sync_size=sync_size, bits=bytearray(self.bits))
        if other.chunks > known:
            other.set_chunks(known, other.chunks - 1)
        return other

    def set_all(self) -> None:
        """Every chunk may disagree."""
        self.bits[:] = b"\xff" * len(self.bits)
        self._fit()

    def dirty_chunks(self) -> Iterator[int]:
        """The chunks whose bit is set, in order."""
        for index, byte in enumerate(self.bits):
            if byte:
                for bit in range(8):
                    if byte & 1 << bit:
                        yield index * 8 + bit

    def dirty_ranges(self) -> list[tuple[int, int]]:
        """The sync addresses [low, high) whose bits are set, neighbors joined, in order."""
        end = self.sync_size * SECTOR
        return [(low * self.chunksize, min(high * self.chunksize, end)) for low, high in runs(self.dirty_chunks())]


def length_of(sync_size: int, chunksize: int) -> int:
    """Bytes that a bitmap over *sync_size* sectors takes with chunks of *chunksize* bytes, header included."""
    chunks = -(-sync_size * SECTOR // chunksize)
    return HEADER_SIZE + -(-chunks // 8)


def default_chunk(sync_size: int, space: int, stripe_chunk: int = 0) -> int:
    """The chunk of a new bitmap over *sync_size* sectors that may take *space* bytes.

    64 MiB as in mdadm, but for arrays so small that fewer than 256 chunks would be left: there a 256th of the array or
    up to twice that, yet not less than 64 KiB and one chunk of the array (*stripe_chunk*, bytes).  A resync after a cut
    then touches little, and writing to all of the array sets at most 256 bits.  Doubled until the bitmap fits.
    """
    share = 1 << max(-(-sync_size * SECTOR // _CHUNKS) - 1, 0).bit_length()
    chunk = max(min(max(share, stripe_chunk), LARGEST_CHUNK), _SMALLEST_CHUNK, _LEAST_CHUNK)
    while length_of(sync_size, chunk) > space:
        chunk *= 2
    return chunk


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """*numbers*, which rise, as ranges [low, high)."""
    low = high = -1
    for number in numbers:
        if number != high:
            if high > low:
                yield low, high
            low = number
        high = number + 1
    if high > low:
        yield low, high


def _damaged(message: str) -> DamagedBitmap:
    return DamagedBitmap(message, hint="everything is resynced if the array was not closed properly")
