"""Plants: single bytes of members that are made wrong on purpose, to see later which of them somebody has rewritten."""

from __future__ import annotations

from pathlib import Path

from orionfs.array.superblock import OFFSET, SIZE, Superblock
from tests.interop.pattern import BLOCK
from tests.interop.shapes import Shape

SECTOR = 512


class Plant:
    """The byte at *offset* of the data area of the member *path*, inverted until :meth:`revert`."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._at = data_offset(path) + offset
        self._right = self._byte()
        self._store(self._right ^ 0xFF)

    @property
    def is_there(self) -> bool:
        """Whether nobody has written what belongs there."""
        return self._byte() == self._right ^ 0xFF

    def revert(self) -> None:
        """Make it right.  It must still be wrong."""
        assert self.is_there, "somebody has written to a place that nobody had reason to touch"
        self._store(self._right)

    def _byte(self) -> int:
        with self._path.open("rb") as file:
            file.seek(self._at)
            return file.read(1)[0]

    def _store(self, value: int) -> None:
        with self._path.open("r+b") as file:
            file.seek(self._at)
            file.write(bytes([value]))


def data_offset(path: Path) -> int:
    """The byte at which the data area of the member *path* begins."""
    with path.open("rb") as file:
        file.seek(OFFSET)
        return Superblock.parse(file.read(SIZE)).data_offset * SECTOR


def redundancy(shape: Shape, block: int) -> tuple[int, int]:
    """The member (slot) and the byte of its data area that hold nothing but redundancy of *block* (4 KiB) of the array.

    By the formulas of the format: P of the default layouts, and the second copy at the levels that copy.
    """
    chunk, within = divmod(block * BLOCK, shape.chunk << 10)
    width = len(shape.sizes)
    match shape.level:
        case "raid1":
            return 1, block * BLOCK
        case "raid10":
            slot, row = _second_copy(shape, chunk)
        case _:
            assert shape.layout in ("", "left-symmetric")
            row = chunk // _data_members(shape)
            slot = width - 1 if shape.level == "raid4" else width - 1 - row % width
    return slot, (row * shape.chunk << 10) + within


def _second_copy(shape: Shape, chunk: int) -> tuple[int, int]:
    """The slot and the row of the second copy of *chunk* of a RAID 10."""
    width = len(shape.sizes)
    copies = int(shape.layout[1:])
    kind = shape.layout[0]
    if kind == "n":
        row, slot = divmod(chunk * copies + 1, width)
        return slot, row
    row, slot = divmod(chunk, width)
    if kind == "o":
        return (slot + 1) % width, row * copies + 1
    rows = ((min(shape.sizes) - 1) << 10) // shape.chunk  # behind a data offset of 1 MiB
    return (slot + 1) % width, row + rows // copies


def _data_members(shape: Shape) -> int:
    return len(shape.sizes) - {"raid6": 2}.get(shape.level, 1)


def sync_address(shape: Shape, block: int) -> int:
    """What a resync and a bitmap call *block* of the array: a byte of the members, but of the array at RAID 10."""
    if shape.level in ("raid1", "raid10"):
        return block * BLOCK
    chunk, within = divmod(block * BLOCK, shape.chunk << 10)
    return (chunk // _data_members(shape) * shape.chunk << 10) + within


def block_at(shape: Shape, address: int) -> int:
    """The first block of the array with that sync address (bytes)."""
    if shape.level in ("raid1", "raid10"):
        return address // BLOCK
    return address * _data_members(shape) // BLOCK
