"""Takes the loop device of an object away again.  Needs root."""

from __future__ import annotations

import argparse
import os
import shlex

from orionfs.errors import AccessRefused, InUse, MediaError, NotFound
from orionfs.tools.mountinfo import read_mounts
from orionfs.tools.orionctl.loops import all_loops, loops_over
from orionfs.tools.orionctl.mounts import ask, mount_of_object
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.programs import capture, required


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="OBJ|LOOP", help="an array, the path of its file, or /dev/loopN")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands that would be run")


def run(arguments: argparse.Namespace, output: Output) -> int:
    devices = _devices(arguments)
    losetup = required("losetup", "mount")
    commands = [[losetup, "--detach", device] for device in devices]
    if arguments.dry_run:
        text = "\n".join(f"would run: {shlex.join(command)}" for command in commands)
        output.result("detach", {"devices": devices, "detached": False}, text)
        return 0
    for device in devices:
        _check_unused(device)
    for device, command in zip(devices, commands, strict=True):
        _detach(device, command)
    output.result("detach", {"devices": devices, "detached": True}, "")
    return 0


def _devices(arguments: argparse.Namespace) -> list[str]:
    target: str = arguments.target
    if target.startswith("/dev/"):
        if any(loop.device == target for loop in all_loops()):
            return [target]
        raise NotFound(f"{target} is not a loop device that is set up", hint="losetup --list shows those that are")
    mount, name = mount_of_object(arguments, target)
    path = ask(mount, "show", object=name)["object"]["path"]
    devices = [loop.device for loop in loops_over(path)]
    if not devices:
        raise NotFound(f"{name} is not attached", hint=f"orionctl attach {name}")
    return devices


def _check_unused(device: str) -> None:
    """Detaching a mounted device succeeds, and comes true at its unmount only: better to say so before."""
    for mount in read_mounts():
        if mount.source == device or mount.source.startswith(f"{device}p"):
            raise InUse(f"{device} is mounted on {mount.mountpoint}", hint=f"umount {mount.mountpoint}")


def _detach(device: str, command: list[str]) -> None:
    code, text = capture(command, timeout_s=60.0)
    if code != 0 and os.geteuid() != 0:
        raise AccessRefused(f"{device} cannot be detached: loop devices need root", hint="run it with sudo")
    if code != 0:
        raise MediaError(f"{device} cannot be detached: {' '.join(text.split())}", hint=f"lsof {device}")
    if any(loop.device == device for loop in all_loops()):
        message = f"{device} is in use and goes away when its last user does"
        raise InUse(message, hint=f"lsof {device} names the users")
