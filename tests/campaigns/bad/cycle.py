"""Members that need the mount that they are to serve."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from orionfs.errors import Refused
from tests.campaigns import stage
from tests.campaigns.bad.ledger import Ledger


def run(ledger: Ledger) -> None:
    ledger.chapter("Cycle")
    beneath(ledger)
    on_a_filesystem_over_it(ledger)


def beneath(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    rename(store, "members/d1.img", f"{mnt}/d1.img")
    words = ["d1.img", f"beneath the mount point {mnt}"]
    with ledger.case("a member beneath the mount") as case:
        case.refused("mount.orionfs", store, mnt, error=Refused, words=words)
    store = ledger.store()
    (store / "members" / "d1.img").unlink()
    (store / "members" / "d1.img").symlink_to(mnt / "arrays" / "d1.img")
    with ledger.case("a member that is a symbolic link to a place beneath the mount") as case:
        case.refused("mount.orionfs", store, mnt, error=Refused, words=words)


def on_a_filesystem_over_it(ledger: Ledger) -> None:
    """An array carries an ext4 on a loop device, and on that ext4 lie members of the array to be mounted there."""
    outer, store, mnt, inner = ledger.store("outer"), ledger.store(), ledger.mnt, ledger.folder / "inner"
    inner.mkdir()
    stage.run(stage.MOUNT, outer, mnt)
    device = stage.run(stage.ORIONCTL, "attach", "vault").stdout.strip()
    try:
        stage.run("mkfs.ext4", "-q", device)
        stage.run("mount", device, inner)
        shutil.move(store / "members" / "d1.img", inner)
        rename(store, "members/d1.img", f"{inner}/d1.img")
        elsewhere(ledger, store)
        stage.kill_daemon(mnt)
        with ledger.case("a member on an ext4 on a loop device on the mount, whose daemon was killed") as case:
            words = [f"{inner}/d1.img is on {mnt}/arrays/vault", "wait for itself"]
            case.refused("mount.orionfs", store, mnt, error=Refused, words=words)
        rename(store, f"{inner}/d1.img", device)
        with ledger.case("that loop device itself as a member") as case:
            words = [f"{device} is on {mnt}/arrays/vault", "wait for itself"]
            case.refused("mount.orionfs", store, mnt, error=Refused, words=words)
    finally:
        for command in (["umount", "-l", inner], ["losetup", "-d", device], ["umount.orionfs", mnt]):
            subprocess.run(command, check=True)
        inner.rmdir()


def elsewhere(ledger: Ledger, store: Path) -> None:
    """While the outer array lives, the inner one may well be mounted, just not in its place."""
    other = ledger.folder / "second"
    other.mkdir()
    with ledger.case("no cycle: the same array mounted elsewhere", changes=True) as case:
        case.works("mount.orionfs", store, other)
        case.works("umount.orionfs", other)
    other.rmdir()


def rename(store: Path, member: str, new: str) -> None:
    file = store / "orionfs.toml"
    file.write_text(file.read_text().replace(f'"{member}"', f'"{new}"'))
