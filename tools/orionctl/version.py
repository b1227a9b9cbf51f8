"""Shows the version of this program, and of every daemon that runs."""

from __future__ import annotations

import argparse
import platform

from orionfs import __version__
from orionfs.control.runtime import living_mounts
from orionfs.tools.orionctl.mounts import ask
from orionfs.tools.orionctl.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass  # the common options are all it takes


def run(arguments: argparse.Namespace, output: Output) -> int:
    daemons = [ask(mount, "ping") for mount in living_mounts()]
    values = {"version": __version__, "python": platform.python_version(), "daemons": daemons}
    lines = [f"orionctl {__version__}"]
    lines += [f"daemon of {daemon['mountpoint']}: {daemon['version']} (process {daemon['pid']})" for daemon in daemons]
    output.result("version", values, "\n".join(lines))
    return 0
