"""Configurations that are wrong, and members that are not what they say: found by check, init and mount alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from orionfs.errors import AccessRefused, ConfigError, IntegrityError, NotFound, OrionError, Refused
from tests.campaigns import stage
from tests.campaigns.bad.ledger import Case, Ledger

#: Root without the right to pass over permissions, as root is inside of many containers.
WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
NOBODY = 65534


class Mistake(NamedTuple):
    """One edit of a good configuration, and the line and the words with which it is refused."""

    title: str
    old: str
    new: str
    line: int
    words: tuple[str, ...]


MISTAKES = (
    Mistake("syntax error", '"raid5"', '"raid5', 3, ("not TOML",)),
    Mistake("unknown key", "member_size", "membersize", 5, ("membersize", "member_size")),
    Mistake("member used twice: the same path", "members/d1.img", "members/d0.img", 4, ("d0.img", "already")),
    Mistake("member used twice: the same path, written differently", "members/d1", "./members/../members/d0", 4,
            ("d0.img", "already")),
    Mistake("cycle: an array that is made of itself", "members/d1.img", "vault", 4, ("vault -> vault",)),
    Mistake("too small: member_size", '"4MiB"', '"1MiB"', 5, ("member_size 1 MiB", "too small")),
    Mistake("not a multiple: member_size", '"4MiB"', "5000001", 5, ("not a multiple of 4096",)),
    Mistake("too small: chunk", '"4MiB"', '"4MiB"\nchunk = "2KiB"', 6, ("chunk 2 KiB", "too small")),
    Mistake("not a multiple: chunk", '"4MiB"', '"4MiB"\nchunk = "65KiB"', 6, ("power of two",)),
    Mistake("too few members", ', "members/d1.img", "members/d2.img", "members/d3.img"', "", 4, ("at least 2",)),
)  # fmt: skip


def run(ledger: Ledger) -> None:
    ledger.chapter("Configuration: mistakes in the file")
    for mistake in MISTAKES:
        store = ledger.store()
        file = store / "orionfs.toml"
        file.write_text(file.read_text().replace(mistake.old, mistake.new, 1))
        with ledger.case(mistake.title) as case:
            everywhere(case, ledger, store, ConfigError, mistake.line, mistake.words)
    cycle_of_two(ledger)
    no_configuration(ledger)
    ledger.chapter("Configuration: members that are not what it says")
    missing_members(ledger)
    aliases(ledger)
    wrong_kinds(ledger)
    wrong_sizes(ledger)
    ledger.chapter("Configuration: no permission")
    unreadable(ledger)


def everywhere(
    case: Case, ledger: Ledger, store: Path, error: type[OrionError], line: int, words: tuple[str, ...]
) -> None:
    """check, init and mount all say it."""
    where = f"orionfs.toml:{line}: " if line else ""
    case.found(store, error=error, line=line, words=words)
    case.refused("orionctl", "init", store, error=error, words=[where, *words])
    case.refused("mount.orionfs", store, ledger.mnt, error=error, words=[where, *words])


def cycle_of_two(ledger: Ledger) -> None:
    store = ledger.store()
    text = "".join(
        f'[[array]]\nname = "{name}"\nlevel = "raid1"\nmembers = ["{other}", "members/{member}.img"]\n'
        for name, other, member in (("a", "b", "d0"), ("b", "a", "d1"))
    )
    (store / "orionfs.toml").write_text(text)
    with ledger.case("cycle: two arrays that are made of each other") as case:
        everywhere(case, ledger, store, ConfigError, 4, ("a -> b -> a",))


def no_configuration(ledger: Ledger) -> None:
    store = ledger.store()
    (store / "orionfs.toml").unlink()
    with ledger.case("no configuration in the folder") as case:
        case.refused("orionctl", "config", "check", store, error=NotFound, words=["orionfs.toml"])
        case.refused("mount.orionfs", store, ledger.mnt, error=NotFound, words=["orionfs.toml"])
    os.mkfifo(store / "orionfs.toml")
    with ledger.case("a pipe as the configuration") as case:
        everywhere(case, ledger, store, ConfigError, 0, ("not a regular file",))
    (store / "orionfs.toml").unlink()
    (store / "orionfs.toml").write_bytes(bytes(1 << 16))
    with ledger.case("garbage as the configuration") as case:
        everywhere(case, ledger, store, ConfigError, 1, ("not TOML",))


def missing_members(ledger: Ledger) -> None:
    words = ["members/d2.img"]
    store = ledger.store(level="raid0")
    (store / "members" / "d2.img").unlink()
    with ledger.case("missing member: a RAID 0 cannot do without it") as case:
        case.found(store, error=NotFound, line=4, words=words)
        case.refused("orionctl", "init", store, error=Refused, words=words)
        case.refused("mount.orionfs", store, ledger.mnt, error=NotFound, words=words)
    store = ledger.store()
    (store / "members" / "d2.img").unlink()
    with ledger.case("missing member: a RAID 5 starts without it, and says so") as case:
        case.noted("mount.orionfs", store, ledger.mnt, words=["degraded", "[UU_U]", *words])
        case.works("umount.orionfs", ledger.mnt)
    (store / "members" / "d1.img").unlink()
    with ledger.case("missing members: a RAID 5 cannot do without two") as case:
        case.refused("orionctl", "init", store, error=Refused, words=["members/d1.img"])
        case.refused("mount.orionfs", store, ledger.mnt, error=NotFound, words=["members/d1.img", *words])


def aliases(ledger: Ledger) -> None:
    def link(make: Callable[[Path, Path], None]) -> Path:
        store = ledger.store()
        first, second = (store / "members" / name for name in ("d0.img", "d1.img"))
        second.unlink()
        make(first, second)
        return store

    words = ("d0.img", "d1.img")
    store = link(lambda first, second: second.hardlink_to(first))
    with ledger.case("member used twice: a hard link") as case:
        everywhere(case, ledger, store, ConfigError, 4, words)
    store = link(lambda first, second: second.symlink_to(first))
    with ledger.case("member used twice: a symbolic link") as case:
        everywhere(case, ledger, store, ConfigError, 4, words)
    store = link(lambda first, second: second.touch())
    bound = store / "members" / "d1.img"
    stage.run("mount", "--bind", store / "members" / "d0.img", bound)
    try:
        with ledger.case("member used twice: a bind mount") as case:
            everywhere(case, ledger, store, ConfigError, 4, words)
    finally:
        stage.run("umount", bound)


def wrong_kinds(ledger: Ledger) -> None:
    store = ledger.store()
    member = store / "members" / "d1.img"
    member.unlink()
    member.mkdir()
    with ledger.case("a directory as a member") as case:
        everywhere(case, ledger, store, ConfigError, 4, ("d1.img is a directory",))
    member.rmdir()
    os.mkfifo(member)
    with ledger.case("a pipe as a member") as case:
        everywhere(case, ledger, store, ConfigError, 4, ("d1.img", "pipe"))


def wrong_sizes(ledger: Ledger) -> None:
    for level, started in (("raid0", False), ("raid5", True)):
        store = ledger.store(level=level)
        os.truncate(store / "members" / "d1.img", 512 << 10)
        with ledger.case(f"too small: a member of 512 KiB in a {level}") as case:
            case.found(store, error=ConfigError, line=4, words=["d1.img", "too small"])
            if started:
                case.noted("mount.orionfs", store, ledger.mnt, words=["degraded", "[U_UU]", "d1.img"])
                case.works("umount.orionfs", ledger.mnt)
            else:
                case.refused("mount.orionfs", store, ledger.mnt, error=IntegrityError, words=["d1.img"])
    for level, started in (("raid0", False), ("raid5", True)):
        store = ledger.store(level=level)
        for size, title, found, words in (
            (0, "too small: an empty member", "too small", "is empty"),
            ((4 << 20) - 1, "not a multiple: a member that lacks one byte", "multiple of 512", "multiple of 512"),
        ):
            os.truncate(store / "members" / "d1.img", size)
            with ledger.case(f"{title}, in a {level}") as case:
                case.found(store, error=ConfigError, line=4, words=["d1.img", found])
                case.refused("orionctl", "init", store, error=ConfigError, words=["orionfs.toml:4: ", "d1.img", words])
                if started:
                    case.noted("mount.orionfs", store, ledger.mnt, words=["degraded", "[U_UU]", "d1.img"])
                    case.works("umount.orionfs", ledger.mnt)
                else:
                    case.refused("mount.orionfs", store, ledger.mnt, error=IntegrityError, words=["d1.img", words])


def unreadable(ledger: Ledger) -> None:
    store = ledger.store()
    for path, title in (
        (store / "orionfs.toml", "unreadable file: the configuration"),
        (store / "members" / "d1.img", "unreadable file: a member"),
    ):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o600)
        with ledger.case(f"{title} (it belongs to another user, and this one may not override that)") as case:
            for command in (["mount.orionfs", store, ledger.mnt], ["orionctl", "init", store]):
                case.refused(*WITHOUT_OVERRIDE, *command, error=AccessRefused, words=[path.name])
        os.chown(path, 0, 0)
