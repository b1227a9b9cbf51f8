"""The filesystem of the members is full: the writer gets ENOSPC, and the array loses nothing and stays up."""

from __future__ import annotations

import errno
import os
import struct
import threading
from pathlib import Path
from random import Random

from orionfs.array.superblock import RESYNC_DONE
from orionfs.errors import MediaError
from tests.campaigns import stage
from tests.campaigns.bad.ledger import Case, Ledger, array_status
from tests.campaigns.bad.media import read as superblock_of

BLOCK = 4096
SECTOR = 512
#: Blocks that one writer writes to and the other does not: one chunk.
UNIT = 16
MIB = 1 << 20
MEMBERS = 4
#: What is written to takes 12 MiB of the members, a little less without one of them.  There is room for 8 MiB at first,
#: and for all of it when a file beside them has gone.
REGION = {"raid0": 12 * MIB, "raid1": 3 * MIB, "raid5": 9 * MIB}
ROOM, BALLAST = 16 * MIB, 8 * MIB


class Writer(threading.Thread):
    """Writes at random places of its half of the first *region* bytes, and notes what each block may hold.

    Ends a while after the first ENOSPC: some places can still be written then.
    """

    def __init__(self, file: Path, region: int, half: int, *, attempts_when_full: int) -> None:
        super().__init__()
        self._file = file
        self._units = region // (UNIT * BLOCK)
        self._half = half
        self._left = attempts_when_full
        self._random = Random(half)
        self._number = 0
        #: By block: the numbers of the writes that it may hold; 0 is what was there before all of them.
        self.allowed: dict[int, set[int]] = {}
        self.acknowledged = self.refused = 0
        self.other_errors: list[str] = []

    def run(self) -> None:
        descriptor = os.open(self._file, os.O_WRONLY)
        try:
            while self._left > 0 and not self.other_errors:
                self.write(descriptor, self._place())
            os.fsync(descriptor)
        except OSError as error:
            self.other_errors.append(f"fsync: {error}")
        finally:
            os.close(descriptor)

    def _place(self) -> range:
        """Units belong to one half and to the other by turns; a write does not leave its unit."""
        unit = self._random.randrange(self._units // 2) * 2 + self._half
        length = self._random.choice((1, 1, 2, 4, UNIT))
        start = unit * UNIT + self._random.randrange(UNIT - length + 1)
        return range(start, start + length)

    def write(self, descriptor: int, blocks: range) -> None:
        self._number += 1
        data = b"".join(pattern(block, self._number) for block in blocks)
        try:
            stored = os.pwrite(descriptor, data, blocks.start * BLOCK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                self.other_errors.append(f"write: {error}")
            stored = 0
            self.refused += 1
            self._left -= 1
        done = stored // BLOCK
        for block in blocks[:done]:
            self.allowed[block] = {self._number}
            self.acknowledged += 1
        for block in blocks[done:]:
            self.allowed.setdefault(block, {0}).add(self._number)

    def again(self) -> None:
        """Write once more all that was refused."""
        descriptor = os.open(self._file, os.O_WRONLY)
        for block in sorted(block for block, numbers in self.allowed.items() if len(numbers) > 1):
            self.write(descriptor, range(block, block + 1))
        os.fsync(descriptor)
        os.close(descriptor)

    def wrong(self, data: bytes) -> list[int]:
        """The blocks of *data* (the whole array) that hold something that they may not."""
        return [
            block
            for block, numbers in self.allowed.items()
            if any(
                data[at : at + SECTOR] not in {sector(block, number) for number in numbers}
                for at in range(block * BLOCK, (block + 1) * BLOCK, SECTOR)
            )
        ]


def sector(block: int, number: int) -> bytes:
    return struct.pack("<QQ", block, number) * (SECTOR // 16) if number else bytes(SECTOR)


def pattern(block: int, number: int) -> bytes:
    return sector(block, number) * (BLOCK // SECTOR)


def run(ledger: Ledger) -> None:
    ledger.chapter("File: the members' filesystem is full")
    for level, lost in (("raid0", ""), ("raid1", ""), ("raid5", ""), ("raid5", "d1.img")):
        disk = ledger.folder / "disk"
        disk.mkdir()
        stage.run("mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", disk)
        try:
            one(ledger, disk, level, lost)
        finally:
            stage.run("umount", disk)
        disk.rmdir()


def one(ledger: Ledger, disk: Path, level: str, lost: str) -> None:
    store, mnt = stage.make_store(disk / "store", level, members=MEMBERS, size="8MiB"), ledger.mnt
    (disk / "ballast").write_bytes(bytes(BALLAST))
    title = f"a degraded {level}" if lost else f"a {level}"
    if lost:
        (store / "members" / lost).unlink()
    stage.run(stage.MOUNT, store, mnt)
    slots = array_status(mnt)["slots"]
    file = mnt / "arrays" / "vault"
    region = REGION[level]
    writers = [Writer(file, region, half, attempts_when_full=150) for half in (0, 1)]
    with ledger.case(f"{title}: two writers until it is full and beyond", changes=True) as case:
        fill(case, writers)
        behind = f"seek={region // MIB}"
        case.fails("dd", "if=/dev/urandom", f"of={file}", "bs=1M", behind, "oflag=direct", "conv=notrunc", code=1,
                   words=["No space left on device"])  # fmt: skip
        case.works("grep", "io.no-space", mnt / ".orionfs" / "events")
        whole(case, mnt, slots)
        intact(case, file, writers)
    with ledger.case(f"{title}: unmounted while full, and mounted again", changes=True) as case:
        case.refused("umount.orionfs", mnt, error=MediaError, words=["No space left on device", "no data is affected"])
        again = case.run("mount.orionfs", store, mnt)
        case.check(again.returncode == 0 and again.stderr.count("\n") <= 1, "it cannot be mounted again")
        whole(case, mnt, slots)
        intact(case, file, writers)
    with ledger.case(f"{title}: space is freed, and what was refused is written again", changes=True) as case:
        (disk / "ballast").unlink()
        for writer in writers:
            writer.again()
            case.check(not any(len(numbers) > 1 for numbers in writer.allowed.values()), "something was refused again")
        intact(case, file, writers)
        whole(case, mnt, slots)
        ledger.settle()
        case.run("orionctl", "status", mnt)
        case.works("umount.orionfs", mnt)
        clean(case, store, level)
        case.run("mount.orionfs", store, mnt)
        intact(case, file, writers)
        case.works("umount.orionfs", mnt)


def fill(case: Case, writers: list[Writer]) -> None:
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        case.check(not writer.other_errors, "; ".join(writer.other_errors))
        case.check(writer.acknowledged > 0 and writer.refused > 0, "it was not filled")
        print(f"    a writer: {writer.acknowledged} blocks acknowledged, {writer.refused} writes got ENOSPC")


def whole(case: Case, mnt: Path, slots: str) -> None:
    status = array_status(mnt)
    case.check(status["slots"] == slots, f"its members are {status['slots']} now")
    case.check(status["state"] != "failed", "the array is down")


def intact(case: Case, file: Path, writers: list[Writer]) -> None:
    data = stage.read_direct(file)
    for writer in writers:
        wrong = writer.wrong(data)
        case.check(not wrong, f"{len(wrong)} blocks hold what they may not, such as {wrong[:4]}")
    case.check(file.read_bytes() == data, "buffered reads return something else than direct ones")


def clean(case: Case, store: Path, level: str) -> None:
    """The superblocks say that all is well, and it is: mirrors are equal, stripes add up to nothing."""
    members = sorted((store / "members").iterdir())
    superblocks = [superblock_of(member) for member in members]
    case.check(all(block.resync_offset == RESYNC_DONE for block in superblocks), "it is not marked clean")
    start, end = superblocks[0].data_offset * SECTOR, (superblocks[0].data_offset + superblocks[0].size) * SECTOR
    parts = [member.read_bytes()[start:end] for member in members]
    if level == "raid1":
        case.check(len(set(parts)) == 1, "the mirrors differ")
    if level == "raid5" and len(members) == MEMBERS:
        total = 0
        for part in parts:
            total ^= int.from_bytes(part, "little")
        case.check(total == 0, "the parity is not that of the data")
