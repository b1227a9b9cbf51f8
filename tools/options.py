"""The ``-o`` options of ``mount.orionfs``: a pure parser.

mount(8) hands a helper everything that stands in the options field of fstab, also what is meant for itself or for
systemd.  Those words are known here and accepted; a word that nobody knows is a usage error unless mount(8) asked for
sloppiness (``-s``).
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orionfs.errors import UsageError


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What ``-o`` says.  ``uid``, ``gid`` and ``mode`` are None where it says nothing."""

    read_only: bool = False
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None
    force: bool = False
    lock: bool = True
    direct: bool = False
    foreground: bool = False
    nofail: bool = False
    xattrs: bool = True
    #: What the kernel itself enforces on the mount (``nosuid``, ``noatime`` …), in the order given.
    kernel: tuple[str, ...] = field(default=())


#: Mount flags, each with the word that takes it back.
_KERNEL_FLAGS = {
    "nosuid": "suid",
    "nodev": "dev",
    "noexec": "exec",
    "noatime": "atime",
    "nodiratime": "diratime",
    "sync": "async",
    "dirsync": "",
    "relatime": "norelatime",
    "strictatime": "nostrictatime",
    "lazytime": "nolazytime",
}
_TAKEN_BACK = {opposite: flag for flag, opposite in _KERNEL_FLAGS.items() if opposite}

#: For mount(8), systemd or nobody: nothing that this program would do differently.
_NOT_FOR_US = frozenset(
    (
        *("defaults", "auto", "noauto", "_netdev", "_rnetdev", "silent", "loud"),
        *("user", "nouser", "users", "group", "nogroup", "owner", "noowner"),
        *("iversion", "noiversion", "mand", "nomand", "default_permissions"),
    )
)
_NOT_FOR_US_PREFIXES = ("x-", "X-", "comment=", "user=", "uhelper=", "helper=")

_SWITCHES: dict[str, tuple[str, bool]] = {
    "ro": ("read_only", True),
    "rw": ("read_only", False),
    "allow_other": ("allow_other", True),
    "force": ("force", True),
    "no_lock": ("lock", False),
    "direct": ("direct", True),
    "foreground": ("foreground", True),
    "nofail": ("nofail", True),
    "noxattr": ("xattrs", False),
}

#: Options that people know from elsewhere and that cannot mean anything here, each with the reason.
_REFUSED = {
    "remount": "a mounted OrionFS cannot be remounted with other options: unmount it and mount it again",
    "bind": "to bind a folder use mount --bind, without a type",
    "fsname": "the name in the mount table is always the SPEC as it was given",
    "subtype": "the type is always orionfs",
    "allow_root": "use allow_other, or mount as root",
}


def parse_options(text: str, *, sloppy: bool = False) -> MountOptions:
    """The options in the comma-separated *text*; the last of two that disagree wins.

    Raises UsageError for a word that is not known (ignored if *sloppy*) and for a value that does not fit.
    """
    options = MountOptions()
    kernel: dict[str, None] = {}
    for word in (part.strip() for part in text.split(",")):
        name, equals, value = word.partition("=")
        if word in _SWITCHES:
            setting, switched = _SWITCHES[word]
            options = _set(options, setting, switched)
        elif equals and name in _VALUES:
            options = _set(options, name, _VALUES[name](value))
        elif word in _KERNEL_FLAGS:
            kernel[word] = None
        elif word in _TAKEN_BACK:
            kernel.pop(_TAKEN_BACK[word], None)
        elif name in _REFUSED:
            raise UsageError(f"option {word} is not possible: {_REFUSED[name]}")
        elif not (word == "" or word in _NOT_FOR_US or word.startswith(_NOT_FOR_US_PREFIXES) or sloppy):
            raise UsageError(f"unknown option {word!r}", hint="mount.orionfs --help lists the options")
    return replace(options, kernel=tuple(kernel))


def _set(options: MountOptions, setting: str, value: object) -> MountOptions:
    return replace(options, **{setting: value})  # type: ignore[arg-type]


def _uid(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageError(f"uid={text}: there is no such user", hint="give a user name or a number") from None


def _gid(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise UsageError(f"gid={text}: there is no such group", hint="give a group name or a number") from None


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise UsageError(f"mode={text} is not a file mode", hint="write it in octal, like mode=0660")
    return mode


_VALUES: dict[str, Callable[[str], int]] = {"uid": _uid, "gid": _gid, "mode": _mode}
