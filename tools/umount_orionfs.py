"""``umount.orionfs DIR``: by hand, and as the helper that umount(8) calls for the type ``fuse.orionfs``.

Returns when the members are clean and unlocked, so that they can be mounted again at once.
"""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence

from orionfs import __version__
from orionfs.errors import OrionError, UsageError
from orionfs.tools.syscalls import enter_mount_namespace
from orionfs.tools.unmounting import unmount

HELP = """\
usage: umount.orionfs DIR [-l] [-f] [-v]

Unmounts the OrionFS at DIR and returns when its members are clean and unlocked. A plain umount does the same once
tools/quickstart or a package has linked this program as /sbin/umount.fuse.orionfs.

  -l               detach now; the daemon ends when nobody uses it any more
  -f               fail the requests that are under way
  -v               say what was done
  -N NAMESPACE     unmount in that mount namespace
  -n, -r, -t TYPE  accepted, for umount(8); nothing is ever remounted read-only instead

exit status: 0 done, 2 usage, 3 not an OrionFS, 5 in use (the message names who), 7 permission, 8 not everything could
be written
"""

_HINT = "umount.orionfs --help"


def run(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except OrionError as error:
        print(f"umount.orionfs: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("umount.orionfs: interrupted; the unmount itself goes on", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    try:
        flags, operands = getopt.gnu_getopt(list(arguments), "nlfvrhN:t:", ["help", "version"])
    except getopt.GetoptError as error:
        raise UsageError(error.msg, hint=_HINT) from None
    given = dict(flags)
    if given.keys() & {"-h", "--help"}:
        sys.stdout.write(HELP)
        return 0
    if "--version" in given:
        print(f"umount.orionfs {__version__}")
        return 0
    if len(operands) != 1:
        raise UsageError("it takes one argument, DIR", hint=_HINT)
    if "-N" in given:
        try:
            enter_mount_namespace(given["-N"])
        except OSError as error:
            raise UsageError(f"cannot enter the mount namespace {given['-N']}: {error.strerror}") from error
    note = unmount(operands[0], lazy="-l" in given, force="-f" in given, progress=_tell)
    if note:
        _tell(note)
    elif "-v" in given:
        print(f"umount.orionfs: {operands[0]} unmounted")
    return 0


def _tell(note: str) -> None:
    print(f"umount.orionfs: {note}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run())
