"""Where mounts register, so that ``orionctl`` finds the daemon behind a mount point.

One folder per user, 0700.  In it each mount has ``ID.json`` (this record) and ``ID.sock`` (its control socket), where
ID is a hash of the mount point.  A daemon that was killed leaves both behind: a record without its process is *stale*.
Standard library only; everything here blocks, but never touches what is beneath a mount point.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orionfs.errors import AccessRefused, InUse, NoDaemon, NotFound, UsageError
from orionfs.hostfs import SystemHostFs

_MAX_RECORD = 1 << 20
_MAX_ADDRESS = 107  # bytes of sun_path, less its terminating zero


@dataclass(frozen=True, slots=True)
class Registration:
    """One registered mount.  ``started`` is RFC 3339; ``birth`` tells the process from a later one with its pid."""

    mount_id: str
    mountpoint: Path
    spec: Path
    arrays: tuple[str, ...]
    socket: Path
    pid: int
    birth: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether the process that registered still runs."""
        return process_birth(self.pid) == self.birth


def runtime_folder() -> Path:
    """``$ORIONFS_RUNTIME_DIR``; else for root ``/run/orionfs``, for others ``$XDG_RUNTIME_DIR/orionfs``.

    Without a session it is ``/tmp/orionfs-UID``.  It need not exist.
    """
    chosen = os.environ.get("ORIONFS_RUNTIME_DIR")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/run/orionfs")
    session = os.environ.get("XDG_RUNTIME_DIR")
    return Path(session, "orionfs") if session else Path(f"/tmp/orionfs-{os.geteuid()}")


def ensure_runtime_folder() -> Path:
    """:func:`runtime_folder`, made if need be.

    Raises :class:`~orionfs.errors.AccessRefused` if it belongs to someone else or others may write in it: whoever
    prepared such a folder in ``/tmp`` could pose as a daemon.
    """
    folder = runtime_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        hint = "set ORIONFS_RUNTIME_DIR to a folder of yours"
        raise AccessRefused(f"cannot make the runtime folder {folder}: {error.strerror}", hint=hint) from error
    _check_folder(folder, status)
    return folder


def _check_folder(folder: Path, status: os.stat_result) -> None:
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        message = f"the runtime folder {folder} is not a folder that only this user can write in"
        raise AccessRefused(message, hint=f"remove it, or: chmod 700 {folder}")


def mount_id(mountpoint: Path) -> str:
    """The ID of a mount: 16 hexadecimal digits that depend on nothing but *mountpoint*."""
    import hashlib  # here, because only daemons need it and it loads OpenSSL

    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def socket_path(mountpoint: Path) -> Path:
    """Where the daemon of *mountpoint* listens."""
    return runtime_folder() / f"{mount_id(mountpoint)}.sock"


def register(mountpoint: Path, spec: Path, arrays: tuple[str, ...], started: str) -> Registration:
    """Record that this process serves *mountpoint* (absolute, links resolved).  Replaces a stale record.

    Raises :class:`~orionfs.errors.InUse` if another living process is registered there.
    """
    folder = ensure_runtime_folder()
    identity = mount_id(mountpoint)
    record = folder / f"{identity}.json"
    if record.exists():
        previous = _read_or_none(record)
        if previous is not None and previous.alive and previous.pid != os.getpid():
            hint = f"orionctl unmount {mountpoint}"
            raise InUse(f"{mountpoint} is already served by process {previous.pid}", hint=hint)
    pid = os.getpid()
    birth = process_birth(pid)
    registration = Registration(identity, mountpoint, spec, arrays, folder / f"{identity}.sock", pid, birth, started)
    SystemHostFs().replace(record, _to_json(registration))
    return registration


def unregister(registration: Registration) -> None:
    """Take the record and the socket of *registration* away, unless another process has registered there since."""
    record = registration.socket.with_suffix(".json")
    current = _read_or_none(record)
    if current is not None and (current.pid, current.birth) != (registration.pid, registration.birth):
        return
    registration.socket.unlink(missing_ok=True)
    record.unlink(missing_ok=True)


def all_mounts() -> list[Registration]:
    """Every readable record of this user, stale ones included, by mount point."""
    return sorted(
        (registration for record in _records() if (registration := _read_or_none(record)) is not None),
        key=lambda registration: registration.mountpoint,
    )


def living_mounts() -> list[Registration]:
    """The mounts whose daemon runs."""
    return [registration for registration in all_mounts() if registration.alive]


def unreadable_records() -> list[tuple[Path, str]]:
    """The records that are not what :func:`register` writes, with the reason."""
    found = []
    for record in _records():
        try:
            read_registration(record)
        except ValueError as error:
            found.append((record, str(error)))
    return found


def find(target: str | Path | None = None) -> Registration:
    """The living mount that *target* names: a mount point, a configuration (or its folder), or an array.

    None stands for the only mount there is.  Raises :class:`~orionfs.errors.NoDaemon` if no mount matches because
    none runs, :class:`~orionfs.errors.NotFound` if others do, :class:`~orionfs.errors.UsageError` if several match.
    """
    mounts = all_mounts()
    living = [mount for mount in mounts if mount.alive]
    matching = living if target is None else [mount for mount in living if _matches(mount, str(target))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = ", ".join(str(mount.mountpoint) for mount in matching)
        raise UsageError(f"several mounts match ({listed})", hint="choose one with --mount DIR")
    stale = [mount for mount in mounts if target is None or _matches(mount, str(target))]
    if stale:
        message = f"the daemon of {stale[0].mountpoint} (process {stale[0].pid}) is gone"
        raise NoDaemon(message, hint=f"orionctl mount {stale[0].spec} {stale[0].mountpoint}")
    if living:
        listed = ", ".join(str(mount.mountpoint) for mount in living)
        raise NotFound(f"no mount is called {target}", hint=f"there is: {listed}")
    what = f"nothing is mounted at or from {target}" if target is not None else "nothing is mounted"
    raise NoDaemon(what, hint="orionctl mount SPEC DIR")


def resolve_mountpoint(path: str | Path) -> Path:
    """*path* as the kernel's mount table has it: absolute, symbolic links resolved.

    Looks at its parents and, if it is one, at the link; never asks whatever is mounted there, which may hang.
    """
    resolved = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would ask the mount)
    for _ in range(40):
        resolved = Path(os.path.realpath(resolved.parent), resolved.name)
        try:
            link = os.readlink(resolved)  # noqa: PTH115
        except OSError:
            return resolved  # not a link: the usual case
        resolved = Path(os.path.abspath(resolved.parent / link))  # noqa: PTH100
    return resolved


def process_birth(pid: int) -> int:
    """When process *pid* started, in clock ticks since boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(")") + 2 :].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address for the Unix socket *path* that fits in 107 bytes, valid inside the context."""
    if len(os.fsencode(path)) <= _MAX_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _matches(mount: Registration, target: str) -> bool:
    if target in mount.arrays:
        return True
    path = Path(os.path.abspath(target))  # noqa: PTH100
    if mount.mountpoint in (path, resolve_mountpoint(path)):
        return True
    return mount.spec in (path, path / mount.spec.name)


def _records() -> list[Path]:
    folder = runtime_folder()
    try:
        _check_folder(folder, folder.lstat())
    except FileNotFoundError:
        return []
    return sorted(folder.glob("*.json"))


def _read_or_none(record: Path) -> Registration | None:
    """The registration in *record*; None if it is gone or broken (:func:`unreadable_records` says why)."""
    try:
        return read_registration(record)
    except ValueError:
        return None


def read_registration(record: Path) -> Registration:
    """Parse the file *record*.  Raises ValueError, with a reason, if it is not a registration."""
    try:
        with record.open("rb") as stream:
            raw = stream.read(_MAX_RECORD)
    except OSError as error:
        raise ValueError(error.strerror) from error
    values = json.loads(raw)
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    texts: dict[str, str] = {}
    for key in ("mountpoint", "spec", "socket", "started"):
        text = values.get(key)
        if not isinstance(text, str):
            raise ValueError(f"it has no {key}")
        texts[key] = text
    pid, birth, arrays = values.get("pid"), values.get("birth"), values.get("arrays")
    if not isinstance(pid, int) or not isinstance(birth, int) or pid <= 0:
        raise ValueError("it names no process")
    if not isinstance(arrays, list) or not all(isinstance(array, str) for array in arrays):
        raise ValueError("it lists no arrays")
    mountpoint, spec, socket = Path(texts["mountpoint"]), Path(texts["spec"]), Path(texts["socket"])
    return Registration(record.stem, mountpoint, spec, tuple(arrays), socket, pid, birth, texts["started"])


def _to_json(registration: Registration) -> bytes:
    values = {
        "mountpoint": str(registration.mountpoint),
        "spec": str(registration.spec),
        "arrays": list(registration.arrays),
        "socket": str(registration.socket),
        "pid": registration.pid,
        "birth": registration.birth,
        "started": registration.started,
    }
    return json.dumps(values, indent=1).encode() + b"\n"
