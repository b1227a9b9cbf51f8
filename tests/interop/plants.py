"""Plants: single bytes of members that are made wrong on purpose, to see later which of them somebody has rewritten."""

from __future__ import annotations

from pathlib import Path

from orionfs.array.superblock import OFFSET, SIZE, Superblock
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


def redundancy(shape: Shape, row: int) -> tuple[int, int]:
    """The member (slot) that holds nothing but redundancy in chunk *row*, and the byte at which that chunk begins.

    P of the default layouts, by the formulas of the format; the second copy at the levels that copy (near layouts on an
    even number of members).  RAID 1 counts chunks of 64 KiB.
    """
    width = len(shape.sizes)
    assert shape.layout in ("", "left-symmetric", "n2")
    assert shape.level != "raid10" or width % 2 == 0
    slots = {"raid4": width - 1, "raid5": width - 1 - row % width, "raid6": width - 1 - row % width}
    return slots.get(shape.level, 1), row * shape.chunk << 10


def row_of(shape: Shape, block: int) -> int:
    """The row of chunks that block *block* (4 KiB) of the array lies in."""
    width = len(shape.sizes)
    data = {"raid1": 1, "raid6": width - 2, "raid10": width // 2}.get(shape.level, width - 1)
    return block * 4096 // (shape.chunk << 10) // data
