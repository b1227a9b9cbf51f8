"""Makes a loop device of an object's file, so that mkfs and mount work on it.  Needs root.

losetup runs here, in the client: the daemon never looks beneath its own mount.
"""

from __future__ import annotations

import argparse
import os
import shlex

from orionfs.errors import AccessRefused, InUse, MediaError
from orionfs.tools.orionctl.loops import loops_over
from orionfs.tools.orionctl.mounts import ask, mount_of_object
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.programs import capture, required

EPILOG = "prints the device: DEV=$(orionctl attach vault) && mkfs.ext4 $DEV"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("object", metavar="OBJ", help="an array, or the path of its file")
    parser.add_argument("--read-only", action="store_true", help="the device takes no writes")
    parser.add_argument("--direct-io", choices=("on", "off"), help="whether the loop device bypasses the page cache")
    parser.add_argument(
        "--sector-size", type=_sector_size, metavar="N", help="its logical sector: 512, 1024, 2048, 4096"
    )
    parser.add_argument("--partscan", action="store_true", help="look for partitions on it")
    parser.add_argument("--dry-run", action="store_true", help="only print the command that would be run")


def run(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.object)
    shown = ask(mount, "show", object=name)["object"]
    path = shown["path"]
    command = [required("losetup", "mount"), "--find", "--show", *_options(arguments, shown["read_only"]), path]
    if arguments.dry_run:
        output.result("attach", {"path": path, "device": None, "command": command}, f"would run: {shlex.join(command)}")
        return 0
    attached = loops_over(path)
    if attached:
        device = attached[0].device
        raise InUse(f"{name} is attached already, as {device}", hint=f"use that, or: orionctl detach {device}")
    code, text = capture(command, timeout_s=60.0)
    if code != 0:
        raise _failure(name, text)
    output.result("attach", {"path": path, "device": text, "command": command}, text)
    return 0


def _options(arguments: argparse.Namespace, read_only: bool) -> list[str]:
    options = ["--read-only"] if arguments.read_only or read_only else []
    if arguments.direct_io:
        options.append(f"--direct-io={arguments.direct_io}")
    if arguments.sector_size:
        options += ["--sector-size", str(arguments.sector_size)]
    return [*options, *(["--partscan"] if arguments.partscan else [])]


def _failure(name: str, text: str) -> AccessRefused | MediaError:
    if os.geteuid() != 0:
        return AccessRefused(f"{name} cannot be attached: loop devices need root", hint="run it with sudo")
    hint = "orionctl doctor checks the loop devices of this machine"
    return MediaError(f"{name} cannot be attached: {' '.join(text.split())}", hint=hint)


def _sector_size(text: str) -> int:
    if text not in ("512", "1024", "2048", "4096"):
        raise argparse.ArgumentTypeError(f"{text} is not a sector size (512, 1024, 2048 or 4096)")
    return int(text)
