"""Mounting and unmounting as people and fstab do it, at once and again, also over a dead daemon and while in use."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orionfs.array.superblock import RESYNC_DONE
from orionfs.errors import InUse
from orionfs.tools.mountinfo import TYPE, Mount, read_mounts
from tests.campaigns import stage
from tests.campaigns.bad.ledger import Case, Ledger, daemons
from tests.campaigns.bad.media import read as superblock_of

ROUNDS = 20
LINKS = {
    Path("/sbin/mount.orionfs"): "mount.orionfs",
    Path("/sbin/mount.fuse.orionfs"): "mount.orionfs",
    Path("/sbin/umount.orionfs"): "umount.orionfs",
    Path("/sbin/umount.fuse.orionfs"): "umount.orionfs",
}


def run(ledger: Ledger) -> None:
    ledger.chapter("Mount and unmount")
    with linked():
        at_once(ledger)
        by_type(ledger)
        fstab(ledger)
        killed(ledger)
        busy(ledger)


@contextmanager
def linked() -> Iterator[None]:
    """The helpers as mount(8) and umount(8) look for them; afterwards only what was there before."""
    made = []
    for link, program in LINKS.items():
        target = stage.PROGRAMS / program
        if link.is_symlink() and link.readlink() == target:
            continue
        if link.is_symlink() or link.exists():
            raise RuntimeError(f"{link} belongs to another installation: take it away first")
        link.symlink_to(target)
        made.append(link)
    try:
        yield
    finally:
        for link in made:
            link.unlink(missing_ok=True)


def at_once(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    with ledger.case(f"a plain umount, then an immediate mount, {ROUNDS} times", changes=True) as case:
        watch = stage.Stopwatch()
        print(f"  $ for round in $(seq {ROUNDS}); do mount -t orionfs {store} {mnt}; …write…; umount {mnt}; done")
        for number in range(ROUNDS):
            mounted = stage.run("mount", "-t", "orionfs", store, mnt, check=False)
            case.check((mounted.returncode, mounted.stderr) == (0, ""), f"mount {number}: {mounted.stderr}")
            with (mnt / "arrays" / "vault").open("r+b") as file:
                case.check(file.read(1) == bytes([number]), f"round {number - 1} is not what was read")
                file.seek(0)
                file.write(bytes([number + 1]))
            unmounted = stage.run("umount", mnt, check=False)
            case.check((unmounted.returncode, unmounted.stderr) == (0, ""), f"umount {number}: {unmounted.stderr}")
            gone(case, ledger, store)
        print(f"    {ROUNDS} rounds in {watch.lap():.1f} s")


def gone(case: Case, ledger: Ledger, store: Path) -> None:
    """Nothing is mounted, no daemon is left, and the members say that they were closed."""
    case.check(not mounts(ledger), "it is still mounted")
    case.check(not daemons(ledger.folder), "a daemon is left")
    blocks = [superblock_of(member) for member in sorted((store / "members").iterdir())]
    case.check(all(block.resync_offset == RESYNC_DONE for block in blocks), "the members are not clean")


def mounts(ledger: Ledger) -> list[Mount]:
    return [mount for mount in read_mounts() if mount.mountpoint == str(ledger.mnt)]


def by_type(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    for name in ("orionfs", "fuse.orionfs"):
        with ledger.case(f"mount -t {name}, and a plain umount") as case:
            case.works("mount", "-t", name, store, mnt)
            case.check([mount.type for mount in mounts(ledger)] == [TYPE], "it is not mounted")
            case.works("umount", mnt)
            gone(case, ledger, store)


def fstab(ledger: Ledger) -> None:
    store, mnt, table = ledger.store(), ledger.mnt, ledger.folder / "fstab"
    table.write_text(
        f"{store}/orionfs.toml  {mnt}  orionfs  nofail,_netdev,x-systemd.mount-timeout=30,mode=0640  0 0\n"
    )
    with ledger.case("a line in fstab, mount -a, and mount -a again, which does nothing") as case:
        case.works("cat", table)
        case.works("mount", "-a", "-T", table)
        first = mounts(ledger), daemons(ledger.folder)
        case.check(len(first[0]) == 1, "it is not mounted once")
        case.check((mnt / "arrays" / "vault").stat().st_mode & 0o777 == 0o640, "its mode is not that of fstab")
        again = case.works("mount", "-a", "-T", table)
        case.check(not again.stderr, "it complains")
        case.check((mounts(ledger), daemons(ledger.folder)) == first, "the second one did something")
        case.works("umount", mnt)
        gone(case, ledger, store)
    table.unlink()


def killed(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    data = os.urandom(1 << 20)
    with ledger.case("a daemon that was killed with -9, and mounted over", changes=True) as case:
        case.works("mount", "-t", "orionfs", store, mnt)
        with (mnt / "arrays" / "vault").open("r+b") as file:
            file.write(data)
        print("  $ kill -9 …its daemon, while it is dirty or not yet marked clean")
        stage.kill_daemon(mnt)
        case.fails("ls", mnt, code=2, words=["Transport endpoint is not connected"])
        done = case.run("mount", "-t", "orionfs", store, mnt)
        case.check(done.returncode == 0 and done.stderr.count("\n") <= 1, "it is not mounted over")
        case.check(len(mounts(ledger)) == 1, "the dead mount is still there")
        case.check(stage.read_direct(mnt / "arrays" / "vault")[: len(data)] == data, "what was written is lost")
        ledger.settle()
        case.works("umount", mnt)
        gone(case, ledger, store)


def busy(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    file = mnt / "arrays" / "vault"
    stage.run(stage.MOUNT, store, mnt)
    with file.open("rb") as opened, subprocess.Popen(["sleep", "600"], stdin=opened) as holder:
        opened.close()
        try:
            with ledger.case("umount while a program has a file open") as case:
                words = [f"sleep[{holder.pid}] ({file})", f"umount -l {mnt}"]
                case.refused("umount", mnt, error=InUse, words=words)
                case.refused("umount.orionfs", mnt, error=InUse, words=words)
        finally:
            holder.kill()
    with stage.attached(file) as device, ledger.case("umount while a loop device has a file open") as case:
        words = [f"{device} ({file})"]
        case.refused("umount", mnt, error=InUse, words=words)
        case.refused("umount.orionfs", mnt, error=InUse, words=words)
    with ledger.case("umount when nobody uses it any more", changes=True) as case:
        case.works("umount", mnt)
        gone(case, ledger, store)
