"""Shows what happened on a mount, oldest first.  With --json and --follow, one JSON object per line."""

from __future__ import annotations

import argparse
from typing import Any

from orionfs.control.client import ControlClient
from orionfs.control.schema import MAX_WAIT_S
from orionfs.monitor.status_text import plain
from orionfs.tools.orionctl.mounts import chosen_mount
from orionfs.tools.orionctl.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="?", metavar="ARRAY|DIR", help="whose events; an array has those of its mount")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what happens, until interrupted")
    parser.add_argument("--since", type=int, default=0, metavar="N", help="only those after event number N")


def run(arguments: argparse.Namespace, output: Output) -> int:
    since = max(arguments.since, 0)
    with ControlClient.to(chosen_mount(arguments, arguments.target)) as client:
        answer = client.call("events", since=since)
        if not arguments.follow:
            lines = [line(event) for event in answer["events"]]
            output.result("events", {"last": answer["last"], "events": answer["events"]}, "\n".join(lines))
            return 0
        while True:
            for event in answer["events"]:
                output.line("event", event, line(event))
            since = answer["last"]
            answer = client.call("events", timeout_s=MAX_WAIT_S + 10.0, since=since, wait_s=MAX_WAIT_S)


def line(event: dict[str, Any]) -> str:
    """One event for people."""
    return f"{event['time']}  {event['kind']:<20}  {plain(event['subject'])}: {plain(event['message'])}"
