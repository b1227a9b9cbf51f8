"""``mount.orionfs SPEC DIR``: by hand, and as the helper that mount(8) calls for the type ``orionfs``.

Returns when the mount is usable, or prints one line that says why it is not.  mount(8) passes that exit code on.
"""

from __future__ import annotations

import getopt
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from orionfs import __version__
from orionfs.config.load import load_spec
from orionfs.control.runtime import resolve_mountpoint
from orionfs.errors import NotFound, OrionError, UsageError
from orionfs.tools.background import PipeHerald, await_daemon, fork_daemon, leave_caller
from orionfs.tools.mountpoint import check_fuse, check_mountpoint, take_away_dead_mounts
from orionfs.tools.options import parse_options
from orionfs.tools.request import MountRequest
from orionfs.tools.syscalls import enter_mount_namespace

HELP = """\
usage: mount.orionfs SPEC DIR [-o OPTION,...] [-v]

Mounts the arrays that SPEC (a file, or a folder that holds orionfs.toml) describes on the empty folder DIR.
Returns when the mount is usable. As root also: mount -t orionfs SPEC DIR, and a line in /etc/fstab:

    /srv/store/orionfs.toml  /mnt/o  orionfs  nofail,allow_other  0 0

options after -o, separated by commas:
  ro, rw           read-only or not
  allow_other      let other users in, by mode and owner (users need user_allow_other in /etc/fuse.conf)
  uid=, gid=       owner and group of the device files, as name or number
  mode=            their mode, in octal (0600)
  force            start what is refused otherwise: a dirty and degraded array may hold wrong bytes
  no_lock          use members on a filesystem that has no locks; make sure yourself that nobody else does
  direct           bypass the page cache of the members (O_DIRECT)
  foreground       stay in front and log to standard error
  nofail           succeed if SPEC or a member is not there
  nosuid, nodev, noexec, noatime, nodiratime, sync, dirsync, relatime, strictatime, lazytime    as in mount(8)
  auto, noauto, user, users, owner, group, defaults, _netdev, x-*    accepted, for mount(8) and systemd

for mount(8):
  -f               check only, mount nothing
  -s               ignore options that are not known
  -n               accepted
  -v               log more, and say what was mounted
  -N NAMESPACE     mount in that mount namespace
  -t TYPE          accepted
  -r, -w           the same as -o ro and -o rw

exit status: 0 mounted, 2 usage or configuration, 3 not found, 5 refused (in use, dirty and degraded, a cycle ...),
7 permission, 8 I/O
"""

_HINT = "mount.orionfs --help"


def run(arguments: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except OrionError as error:
        print(f"mount.orionfs: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mount.orionfs: interrupted", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    command = _Command(arguments)
    if command.answer:
        sys.stdout.write(command.answer)
        return 0
    if command.namespace:
        _enter(command.namespace)
    try:
        return _mount(command)
    except NotFound as error:
        if not command.request.options.nofail:
            raise
        print(f"mount.orionfs: {error}", file=sys.stderr)
        return 0


def _mount(command: _Command) -> int:
    request = command.request
    spec = load_spec(request.spec)
    check_fuse(request.options.allow_other or spec.mount.allow_other)
    check_mountpoint(request.mountpoint)
    if command.fake:
        return 0
    take_away_dead_mounts(request.mountpoint)
    check_mountpoint(request.mountpoint)  # what the dead mount had covered
    if request.options.foreground:
        return _serve_in_front(request)
    return _serve_behind(request)


def _serve_in_front(request: MountRequest) -> int:
    from orionfs.tools import daemon, logs  # heavy: trio, numpy, the FUSE library

    logs.log_to_stderr(request.verbose)
    return daemon.serve(request, _Terminal())


def _serve_behind(request: MountRequest) -> int:
    pid, end = fork_daemon()
    if pid == 0:
        leave_caller(keep=end)
        from orionfs.tools import daemon

        return daemon.serve_logged(request, PipeHerald(end))
    start = await_daemon(pid, end)
    if start.error:
        if start.exit_code == NotFound("").exit_code and request.options.nofail:
            raise NotFound(start.error)
        print(f"mount.orionfs: {start.error}", file=sys.stderr)
        return start.exit_code
    for note in start.notes:
        print(f"mount.orionfs: {note}", file=sys.stderr)
    if request.verbose:
        print(f"mount.orionfs: {request.source} mounted on {request.mountpoint}")
    return 0


class _Terminal:
    """The herald in the foreground: whoever started the program reads its standard error."""

    def ready(self, notes: Sequence[str]) -> None:
        for note in notes:
            print(f"mount.orionfs: {note}", file=sys.stderr)

    def failed(self, message: str, exit_code: int) -> None:
        print(f"mount.orionfs: {message}", file=sys.stderr)


class _Command:
    """A parsed command line.  Raises UsageError."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.answer = ""
        self.fake = False
        self.namespace = ""
        words: list[str] = []
        sloppy = verbose = False
        try:
            flags, operands = getopt.gnu_getopt(list(arguments), "sfnvrwhN:o:t:", ["help", "version"])
        except getopt.GetoptError as error:
            raise UsageError(error.msg, hint=_HINT) from None
        for flag, value in flags:
            if flag in ("-h", "--help"):
                self.answer = HELP
            elif flag == "--version":
                self.answer = f"mount.orionfs {__version__}\n"
            elif flag == "-o":
                words.append(value)
            elif flag in ("-r", "-w"):
                words.append("ro" if flag == "-r" else "rw")
            self.fake |= flag == "-f"
            self.namespace = value if flag == "-N" else self.namespace
            sloppy |= flag == "-s"
            verbose |= flag == "-v"
        if self.answer:
            return
        if len(operands) != 2:
            raise UsageError("it takes two arguments, SPEC and DIR", hint=_HINT)
        source, target = operands
        if not source or not target:
            raise UsageError("SPEC and DIR must not be empty", hint=_HINT)
        options = parse_options(",".join(words), sloppy=sloppy)
        spec = Path(os.path.abspath(source))  # noqa: PTH100 - "store/.." is what the user sees, not where links lead
        self.request = MountRequest(source, spec, str(resolve_mountpoint(target)), options, verbose)


def _enter(namespace: str) -> None:
    try:
        enter_mount_namespace(namespace)
    except OSError as error:
        raise UsageError(f"cannot enter the mount namespace {namespace}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(run())
