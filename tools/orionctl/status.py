"""Shows the state of every mount, why it is so, what that means and what to do next.

The exit status tells the same: 0 healthy, 1 degraded or rebuilding, 4 failed, 6 a daemon is gone.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from orionfs.control.client import ControlClient
from orionfs.control.runtime import Registration, all_mounts, find
from orionfs.control.schema import MAX_WAIT_S
from orionfs.errors import NoDaemon, OrionError
from orionfs.monitor.health import exit_code, narrow
from orionfs.monitor.status_text import render
from orionfs.tools.orionctl.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", metavar="ARRAY|DIR", help="only this array or mount")
    parser.add_argument(
        "--watch", type=_interval, metavar="N", help="show it again after each event, at least every N s"
    )


def run(arguments: argparse.Namespace, output: Output) -> int:
    if arguments.watch is None:
        report, code = survey(arguments)
        show(report, output)
        return code
    while True:
        report, _code = survey(arguments)
        if output.json:
            output.line("status", report, "")
        else:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            print(clear + render(report, output.color), flush=True)
        _wait(arguments)


def survey(arguments: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The report of the mounts that were asked for, and the exit status that goes with it.

    Raises :class:`~orionfs.errors.NoDaemon` if there is none.
    """
    mounts = _mounts(arguments)
    found: list[dict[str, Any]] = []
    unreachable: list[dict[str, Any]] = []
    codes = []
    for mount in mounts:
        try:
            report = narrow(_ask(mount, "status"), arguments.target)
            found += report["mounts"]
            codes.append(exit_code(report))
        except OrionError as error:
            if len(mounts) == 1:
                raise
            unreachable.append({"mountpoint": str(mount.mountpoint), "spec": str(mount.spec), "error": str(error)})
            codes.append(error.exit_code)
    return {"mounts": found, "unreachable": unreachable}, max(codes)


def show(report: dict[str, Any], output: Output) -> None:
    """Print *report*."""
    output.result("status", report, render(report, output.color))
    for mount in report["unreachable"]:
        output.note(f"{mount['mountpoint']}: {mount['error']}")


def _mounts(arguments: argparse.Namespace) -> list[Registration]:
    if arguments.mount is not None:
        return [find(arguments.mount)]
    if arguments.target is not None:
        return [find(arguments.target)]
    mounts = all_mounts()
    return mounts if mounts else [find(None)]  # raises, with the sentence for "nothing is mounted"


def _ask(mount: Registration, verb: str) -> Any:
    if not mount.alive:
        message = f"the daemon of {mount.mountpoint} (process {mount.pid}) is gone"
        raise NoDaemon(message, hint=f"orionctl mount {mount.spec} {mount.mountpoint}")
    with ControlClient.to(mount) as client:
        return client.call(verb)


def _wait(arguments: argparse.Namespace) -> None:
    """Until something happens on the first mount, but no longer than the interval."""
    mount = _mounts(arguments)[0]
    with ControlClient.to(mount) as client:
        last = client.call("events", since=2**62)["last"]
        left = arguments.watch
        while left > 0:
            wait_s = min(left, MAX_WAIT_S)
            if client.call("events", timeout_s=wait_s + 10.0, since=last, wait_s=wait_s)["last"] > last:
                return
            left -= wait_s


def _interval(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 1 to 86400")
    return int(text)
