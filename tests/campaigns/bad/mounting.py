"""Places on which nothing can be mounted, members that are in use, and rights that the user does not have."""

from __future__ import annotations

from pathlib import Path

from orionfs.errors import AccessRefused, InUse, NotFound, Refused, UsageError
from tests.campaigns import stage
from tests.campaigns.bad.ledger import Ledger

NOBODY = "65534"
#: Another user, who may look into the folders of this one: the interpreter may lie in root's.
AS_NOBODY = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--inh-caps=+dac_read_search",
             "--ambient-caps=+dac_read_search", "--")  # fmt: skip

#: What a mount namespace of its own may lack, as a script that then runs the program.
_SPARE_SHM = "mkdir /dev/shm && mount -c --bind /proc/self/fd/3 /dev/shm"
_EMPTY_DEV = f"exec 3</dev/shm && mount -t tmpfs -o nodev none /dev && {_SPARE_SHM}"
NO_DEVICE = f'{_EMPTY_DEV} && : >/dev/null && exec "$@"'
FORBIDDEN_DEVICE = f'{_EMPTY_DEV} && mknod /dev/fuse c 10 229 && : >/dev/null && exec "$@"'
WRONG_DEVICE = 'mount --bind /dev/null /dev/fuse && exec "$@"'
NO_PERMISSION_FOR_OTHERS = '[ ! -e /etc/fuse.conf ] || mount --bind /dev/null /etc/fuse.conf; exec "$@"'


def run(ledger: Ledger) -> None:
    ledger.chapter("Mount: the place")
    places(ledger)
    ledger.chapter("Mount: in use")
    in_use(ledger)
    ledger.chapter("Mount: not permitted, or not possible here")
    not_permitted(ledger)


def places(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    with ledger.case("a folder that is not there") as case:
        case.refused("mount.orionfs", store, ledger.folder / "none", error=NotFound, words=["none", "mkdir"])
    with ledger.case("a file instead of a folder") as case:
        file = store / "orionfs.toml"
        case.refused("mount.orionfs", store, file, error=UsageError, words=[f"{file} is not a folder"])
    (mnt / "letter").touch()
    with ledger.case("a folder that is not empty") as case:
        case.refused("mount.orionfs", store, mnt, error=Refused, words=[f"{mnt} is not empty"])
    (mnt / "letter").unlink()
    stage.run("mount", "-t", "tmpfs", "none", mnt)
    try:
        with ledger.case("a folder where another filesystem is mounted") as case:
            case.refused("mount.orionfs", store, mnt, error=InUse, words=[f"{mnt} is already mounted", "tmpfs"])
    finally:
        stage.run("umount", mnt)


def in_use(ledger: Ledger) -> None:
    store, other, mnt, second = ledger.store(), ledger.store("other", "raid1"), ledger.mnt, ledger.folder / "second"
    second.mkdir()
    with stage.mounted(store, mnt):
        with ledger.case("a folder where an OrionFS is mounted already") as case:
            case.refused("mount.orionfs", other, mnt, error=InUse, words=[f"{mnt} is already mounted"])
            case.refused("mount.orionfs", store, mnt, error=InUse, words=[f"{mnt} is already mounted"])
        with ledger.case("a second mount of the same members, elsewhere") as case:
            case.refused("mount.orionfs", store, second, error=InUse, words=["members/d0.img is locked"])
            case.refused("mount.orionfs", "-o", "ro", store, second, error=InUse, words=["members/d0.img is locked"])
        borrowed = other / "members" / "d2.img"
        borrowed.unlink()
        borrowed.hardlink_to(store / "members" / "d2.img")
        with ledger.case("a second mount of one member, in another array under another name") as case:
            case.refused("mount.orionfs", other, second, error=InUse, words=["other/members/d2.img is locked"])
    second.rmdir()


def not_permitted(ledger: Ledger) -> None:
    store, mnt = ledger.store(), ledger.mnt
    with ledger.case("allow_other, for a user and without user_allow_other in /etc/fuse.conf") as case:
        command = ["mount.orionfs", store, mnt, "-o", "allow_other"]
        case.refused(*apart(NO_PERMISSION_FOR_OTHERS), *AS_NOBODY, *command, error=AccessRefused, words=["allow_other"])
    (store / "orionfs.toml").write_text((store / "orionfs.toml").read_text() + "\n[mount]\nallow_other = true\n")
    with ledger.case("the same, with allow_other in the configuration") as case:
        command = ["mount.orionfs", store, mnt]
        case.refused(*apart(NO_PERMISSION_FOR_OTHERS), *AS_NOBODY, *command, error=AccessRefused, words=["allow_other"])
    for title, script, words in (
        ("no /dev/fuse", NO_DEVICE, "/dev/fuse is not there"),
        ("a /dev/fuse that may not be opened", FORBIDDEN_DEVICE, "/dev/fuse cannot be opened"),
        ("a /dev/fuse that is something else", WRONG_DEVICE, "/dev/fuse is something else"),
    ):
        with ledger.case(title) as case:
            case.refused(*apart(script), "mount.orionfs", store, mnt, error=AccessRefused, words=[words])


def apart(script: str) -> list[str | Path]:
    """The beginning of a command that runs in a mount namespace of its own, after *script*."""
    return ["unshare", "-m", "sh", "-c", script, "sh"]
