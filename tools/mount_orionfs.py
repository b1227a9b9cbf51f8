"""``mount.orionfs SPEC DIR``: by hand, and as the helper that mount(8) calls for the type ``orionfs``.

Returns when the mount is usable, or prints one line that says why it is not.  mount(8) passes that exit code on.
"""

from __future__ import annotations

import getopt
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from orionfs import __version__
from orionfs.config.load import load_spec
from orionfs.control.runtime import ensure_runtime_folder, resolve_mountpoint, socket_path
from orionfs.errors import NotFound, OrionError, UsageError, from_oserror
from orionfs.fuse.mounting import MountOptions as FuseOptions
from orionfs.fuse.mounting import check_permitted
from orionfs.tools.background import Herald, PipeHerald, await_daemon, fork_daemon, leave_caller
from orionfs.tools.cycles import refuse_cycles
from orionfs.tools.logs import log_to_file, log_to_stderr
from orionfs.tools.mountpoint import check_mountpoint, take_away_dead_mounts
from orionfs.tools.options import parse_options
from orionfs.tools.request import MountRequest
from orionfs.tools.syscalls import enter_mount_namespace, set_io_flusher

logger = logging.getLogger("orionfs.daemon")

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
  noxattr          no extended attributes; small buffered writes cost half as much then
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
        if not command.options.nofail:
            raise
        print(f"mount.orionfs: {error}", file=sys.stderr)
        return 0


def _mount(command: _Command) -> int:
    """Check all that can be checked without opening a member, then serve."""
    request = _read(command)
    allow_other = request.options.allow_other or request.spec.mount.allow_other
    check_permitted(FuseOptions(request.source, allow_other=allow_other))
    check_mountpoint(request.mountpoint)
    refuse_cycles(request.spec, request.mountpoint)
    if command.fake:
        return 0
    take_away_dead_mounts(request.mountpoint)
    check_mountpoint(request.mountpoint)  # the folder that the dead mount covered
    return _serve_in_front(request) if request.options.foreground else _serve_behind(request)


def _read(command: _Command) -> MountRequest:
    # As the user sees it, not where links lead: "store/.." is relative to what was typed.
    spec = load_spec(Path(os.path.abspath(command.source)))  # noqa: PTH100
    try:
        text = spec.path.read_text()
    except OSError as error:
        raise from_oserror(error, f"read {spec.path}") from error
    mountpoint = str(resolve_mountpoint(command.target))
    return MountRequest(command.source, spec, text, mountpoint, command.options, command.verbose)


def _serve_in_front(request: MountRequest) -> int:
    log_to_stderr(request.verbose)
    return _serve(request, _Terminal())


def _serve_behind(request: MountRequest) -> int:
    pid, end = fork_daemon()
    if pid == 0:
        leave_caller(keep=end)
        return _serve_logged(request, PipeHerald(end))
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


def _serve_logged(request: MountRequest, herald: Herald) -> int:
    """In the child: log to a file beside the control socket, and serve."""
    try:
        ensure_runtime_folder()
        log_to_file(socket_path(Path(request.mountpoint)).with_suffix(".log"), request.verbose)
    except OrionError as error:
        failure = error
    except OSError as error:
        failure = from_oserror(error, f"write the log {error.filename}")
    else:
        return _serve(request, herald)
    herald.failed(str(failure), failure.exit_code)
    return failure.exit_code


def _serve(request: MountRequest, herald: Herald) -> int:
    """What has to be set before the first thread; then the heavy imports, of which numpy starts threads."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # parity does no linear algebra: spare the memory
    try:
        set_io_flusher()
    except OSError as error:
        # Users may not, and old kernels cannot: a mount under extreme memory pressure may then wait for itself.
        logger.debug("not marked as an I/O flusher: %s", error.strerror)
    from orionfs.tools import daemon

    return daemon.serve(request, herald)


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
        self.fake = self.verbose = False
        self.namespace = ""
        words: list[str] = []
        sloppy = False
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
            self.verbose |= flag == "-v"
            sloppy |= flag == "-s"
        if self.answer:
            return
        if len(operands) != 2 or not all(operands):
            raise UsageError("it takes two arguments, SPEC and DIR", hint=_HINT)
        self.source, self.target = operands
        self.options = parse_options(",".join(words), sloppy=sloppy)


def _enter(namespace: str) -> None:
    try:
        enter_mount_namespace(namespace)
    except OSError as error:
        raise UsageError(f"cannot enter the mount namespace {namespace}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(run())
