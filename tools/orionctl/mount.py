"""Mounts a configuration on a folder: the same as mount.orionfs, which it runs."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess

from orionfs.control.runtime import resolve_mountpoint
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.programs import sibling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", help="the configuration, or the folder that holds orionfs.toml")
    parser.add_argument("folder", metavar="DIR", help="an empty folder")
    parser.add_argument("-o", metavar="OPTION,...", action="append", default=[], help="see mount.orionfs --help")
    parser.add_argument("--read-only", action="store_true", help="the same as -o ro")
    parser.add_argument("--dry-run", action="store_true", help="only check, and print the command that would be run")


def run(arguments: argparse.Namespace, output: Output) -> int:
    command = [*sibling("mount.orionfs", "orionfs.tools.mount_orionfs"), arguments.spec, arguments.folder]
    options = [*arguments.o, *(["ro"] if arguments.read_only else [])]
    if options:
        command += ["-o", ",".join(options)]
    mountpoint = resolve_mountpoint(arguments.folder)
    values = {"mountpoint": str(mountpoint), "spec": os.path.abspath(arguments.spec), "command": command}  # noqa: PTH100
    if arguments.dry_run:
        code = subprocess.run([*command, "-f"]).returncode
        if code == 0:
            output.result("mount", {**values, "mounted": False}, f"would run: {shlex.join(command)}")
        return code
    if not output.json:
        os.execv(command[0], command)
    code = subprocess.run(command).returncode
    output.result("mount", {**values, "mounted": code == 0, "exit_code": code}, "")
    return code
