"""Whether this machine is fit for OrionFS, and what dead daemons left behind, with the command that mends each.

Exit status 0 if nothing is wrong, else 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from orionfs import __version__
from orionfs.control.runtime import all_mounts, runtime_folder, unreadable_records
from orionfs.errors import AccessRefused, OrionError
from orionfs.monitor.status_text import plain
from orionfs.tools.mountinfo import TYPE, read_mounts
from orionfs.tools.orionctl.mounts import ask
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.programs import capture, sibling, which

State = Literal["ok", "note", "problem"]


class Finding(NamedTuple):
    """One thing that was looked at.  ``mend`` is a command or an action, for notes and problems."""

    topic: str
    state: State
    message: str
    mend: str = ""


#: What umount(8) and mount(8) look for, each with the program of ours that it must be.
HELPERS = {
    "/sbin/mount.orionfs": "mount.orionfs",
    "/sbin/mount.fuse.orionfs": "mount.orionfs",
    "/sbin/umount.orionfs": "umount.orionfs",
    "/sbin/umount.fuse.orionfs": "umount.orionfs",
}
_PROBE_TIMEOUT_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass  # the common options are all it takes


def run(_arguments: argparse.Namespace, output: Output) -> int:
    findings = [finding for check in CHECKS for finding in check()]
    healthy = all(finding.state != "problem" for finding in findings)
    values = {"healthy": healthy, "findings": [finding._asdict() for finding in findings]}
    output.result("doctor", values, "\n".join(_lines(findings)))
    return 0 if healthy else 1


def _lines(findings: list[Finding]) -> Iterator[str]:
    width = max(len(finding.topic) for finding in findings)
    for topic, state, message, mend in findings:
        yield f"{state:<7}  {topic:<{width}}  {plain(message)}"
        if mend:
            yield f"{'':<7}  {'':<{width}}  mend: {plain(mend)}"


# --- the machine ------------------------------------------------------------------------------------------------------


def check_versions() -> Iterator[Finding]:
    yield Finding("orionfs", "ok", f"{__version__}, kernel {platform.release()}")
    yield Finding("python", "ok", platform.python_version())
    for package in ("trio", "numpy", "tomlkit"):
        try:
            yield Finding(package, "ok", importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "problem", "it is not installed", f"{sys.executable} -m pip install {package}")


def check_pyfuse3() -> Iterator[Finding]:
    """In a process of its own: a broken library must not take this program with it."""
    code, text = capture([sys.executable, "-c", "import pyfuse3; print(pyfuse3.__version__)"], 30.0)
    if code == 0:
        yield Finding("pyfuse3", "ok", text)
    else:
        reason = text.splitlines()[-1] if text else f"exit status {code}"
        yield Finding("pyfuse3", "problem", f"it cannot be used: {reason}", f"{sys.executable} -m pip install pyfuse3")


def check_fuse() -> Iterator[Finding]:
    device = Path("/dev/fuse")
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield Finding("/dev/fuse", "problem", "it does not exist", "modprobe fuse; in a container: --device /dev/fuse")
    except OSError as error:
        yield Finding("/dev/fuse", "problem", f"it cannot be opened: {error.strerror}", "chmod 666 /dev/fuse")
    else:
        os.close(descriptor)
        yield Finding("/dev/fuse", "ok", "it can be opened")
    yield _fusermount()


def _fusermount() -> Finding:
    path = which("fusermount3")
    if path is None:
        state: State = "note" if os.geteuid() == 0 else "problem"
        return Finding("fusermount3", state, "it is not installed; users other than root need it", "apt install fuse3")
    _code, text = capture([path, "--version"])
    version = text.rpartition(" ")[2]
    if not os.stat(path).st_mode & stat.S_ISUID and os.geteuid() != 0:
        return Finding("fusermount3", "problem", f"{path} is not setuid root", f"chmod u+s {path}")
    return Finding("fusermount3", "ok", f"libfuse {version}")


def check_allow_other() -> Iterator[Finding]:
    if os.geteuid() == 0:
        return
    try:
        lines = Path("/etc/fuse.conf").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    if not any(line.strip() == "user_allow_other" for line in lines):
        mend = "as root: echo user_allow_other >> /etc/fuse.conf"
        yield Finding("allow_other", "note", "users cannot let others into their mounts", mend)


def check_helpers() -> Iterator[Finding]:
    for link, program in HELPERS.items():
        target = sibling(program, f"orionfs.tools.{program.replace('.', '_')}")[0]
        if not os.path.lexists(link):
            what = "umount waits for clean members" if "umount" in link else "mount -t orionfs and fstab work"
            mend = f"as root: ln -s {target} {link}"
            yield Finding(link, "note", f"it is not there; with it {what}", mend)
        elif not os.access(link, os.X_OK):
            yield Finding(link, "problem", "it leads nowhere", f"as root: ln -sfn {target} {link}")
        else:
            yield Finding(link, "ok", os.path.realpath(link))


def check_loops() -> Iterator[Finding]:
    if not Path("/dev/loop-control").exists():
        yield Finding("loop", "note", "there are no loop devices, so orionctl attach cannot work", "modprobe loop")
    elif which("losetup") is None:
        yield Finding("loop", "note", "losetup is missing, so orionctl attach cannot work", "apt install mount")
    elif os.geteuid() != 0:
        yield Finding("loop", "note", "orionctl attach needs root", "sudo orionctl attach OBJ")
    else:
        yield Finding("loop", "ok", "orionctl attach can work")


# --- what runs, and what was left behind ------------------------------------------------------------------------------


def check_registrations() -> Iterator[Finding]:
    try:
        mounts = all_mounts()
    except AccessRefused as error:
        yield Finding("runtime folder", "problem", error.message, error.hint)
        return
    yield Finding("runtime folder", "ok", str(runtime_folder()))
    mounted = {mount.mountpoint for mount in read_mounts() if mount.type == TYPE}
    for mount in mounts:
        topic = str(mount.mountpoint)
        if not mount.alive:
            message = f"its daemon (process {mount.pid}) is gone"
            again = f"orionctl mount {mount.spec} {mount.mountpoint}"
            yield Finding(
                topic, "problem", message, f"orionctl unmount {mount.mountpoint}; or to use it again: {again}"
            )
            continue
        if topic not in mounted:
            message = f"process {mount.pid} still ends, or serves a mount that cannot be seen from here"
            yield Finding(topic, "note", message, f"orionctl status --mount {mount.mountpoint}")
        try:
            ask(mount, "ping")
            yield Finding(topic, "ok", f"served by process {mount.pid}")
        except OrionError as error:
            yield Finding(topic, "problem", error.message, f"orionctl unmount {mount.mountpoint}")
    for record, reason in unreadable_records():
        yield Finding(str(record), "problem", f"this record is unreadable: {reason}", f"rm {record}")


def check_dead_mounts() -> Iterator[Finding]:
    """OrionFS mounts that no daemon of this user has registered: dead ones, and those of others."""
    try:
        known = {str(mount.mountpoint) for mount in all_mounts()}
    except AccessRefused:
        known = set()  # the check of the registrations has said why
    for mount in read_mounts():
        if mount.type != TYPE or mount.mountpoint in known:
            continue
        try:
            code, text = capture(["stat", "--file-system", mount.mountpoint], _PROBE_TIMEOUT_S)
        except OrionError:
            code, text = 1, "it does not answer"
        if code != 0 and "ermission denied" not in text:
            message = f"a dead mount: {text.rpartition(': ')[2]}"
            yield Finding(mount.mountpoint, "problem", message, f"orionctl unmount {mount.mountpoint}")
        else:
            folder = runtime_folder()
            yield Finding(mount.mountpoint, "note", f"served by a daemon that is not registered in {folder}")


CHECKS = (
    check_versions,
    check_pyfuse3,
    check_fuse,
    check_allow_other,
    check_helpers,
    check_loops,
    check_registrations,
    check_dead_mounts,
)
