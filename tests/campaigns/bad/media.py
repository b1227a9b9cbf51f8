"""Members that are damaged, from the future, or of several arrays: what starts without them, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from orionfs.array.superblock import OFFSET, SIZE, Superblock
from orionfs.errors import IntegrityError, NotFound, OrionError, Refused
from tests.campaigns.bad.ledger import Ledger

#: A bit of the feature map that no MD has given a meaning to.
FUTURE = 1 << 30


def run(ledger: Ledger) -> None:
    ledger.chapter("Media")
    damage(ledger, "garbage", garbage, NotFound, "no MD superblock")
    damage(ledger, "truncated", truncated, IntegrityError, "truncated")
    damage(ledger, "future feature bits", future_feature, Refused, f"{FUTURE:#x}")
    damage(ledger, "wrong checksum", wrong_checksum, IntegrityError, "checksum")
    mixed(ledger)


def damage(ledger: Ledger, what: str, act: Callable[[Path], None], error: type[OrionError], words: str) -> None:
    """One such member in a RAID 0 and in a RAID 5, then two, then all."""
    store = ledger.store(level="raid0")
    act(store / "members" / "d1.img")
    with ledger.case(f"{what}: one member of a RAID 0") as case:
        case.refused("mount.orionfs", store, ledger.mnt, error=error, words=["members/d1.img", words])
    store = ledger.store()
    act(store / "members" / "d1.img")
    with ledger.case(f"{what}: one member of a RAID 5, which starts without it and says so") as case:
        case.noted("mount.orionfs", store, ledger.mnt, words=["degraded", "[U_UU]", "members/d1.img", words])
        case.works("umount.orionfs", ledger.mnt)
    act(store / "members" / "d3.img")
    with ledger.case(f"{what}: two members of a RAID 5") as case:
        for options in ([], ["-o", "ro"], ["-o", "force"]):
            names = ["members/d1.img", "members/d3.img", words]
            case.refused("mount.orionfs", store, ledger.mnt, *options, error=error, words=names)
        case.refused("orionctl", "init", store, error=Refused, words=["members/d1.img"])
    act(store / "members" / "d0.img")
    act(store / "members" / "d2.img")
    with ledger.case(f"{what}: all members of a RAID 5") as case:
        case.refused("mount.orionfs", store, ledger.mnt, error=error, words=["members/d0.img", words])
        case.refused("orionctl", "init", store, error=Refused, words=["members/d0.img"])


def garbage(member: Path) -> None:
    size = member.stat().st_size
    member.write_bytes(Random(member.name).randbytes(size))


def truncated(member: Path) -> None:
    os.truncate(member, member.stat().st_size // 2)


def future_feature(member: Path) -> None:
    superblock = read(member)
    superblock.feature_map |= FUTURE
    write(member, superblock.encode())


def wrong_checksum(member: Path) -> None:
    block = bytearray(read(member).encode())
    block[160] ^= 1
    write(member, block)


def mixed(ledger: Ledger) -> None:
    store, other = ledger.store(), ledger.store("other", "raid1")
    for name in ("d0.img", "d1.img"):
        (other / "members" / name).replace(store / "members" / name)
    with ledger.case("two arrays mixed, two members of each") as case:
        for options in ([], ["-o", "ro"], ["-o", "force"]):
            names = ["members/d0.img and members/d1.img", "members/d2.img and members/d3.img"]
            case.refused("mount.orionfs", store, ledger.mnt, *options, error=Refused, words=names)
    store = ledger.store()
    copy = store / "members" / "d1.img"
    copy.write_bytes((store / "members" / "d0.img").read_bytes())
    with ledger.case("a copy of a member in the place of another") as case:
        case.refused("mount.orionfs", store, ledger.mnt, error=Refused, words=["members/d0.img and members/d1.img"])


def read(member: Path) -> Superblock:
    return Superblock.parse(member.read_bytes()[OFFSET : OFFSET + SIZE])


def write(member: Path, block: bytes | bytearray) -> None:
    with member.open("r+b") as file:
        file.seek(OFFSET)
        file.write(block)
