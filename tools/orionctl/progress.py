"""Waiting for background jobs, with a bar for people and lines of JSON for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal

from orionfs.control.client import ControlClient
from orionfs.control.runtime import Registration
from orionfs.errors import NotFound
from orionfs.monitor.status_text import job_line

#: How often the bar moves; an event moves it at once.
_INTERVAL_S = 1
_ANSWER_S = 30.0

Mode = Literal["bar", "json", "none"]
Array = Mapping[str, Any]


def add_wait(parser: argparse.ArgumentParser) -> None:
    """``--wait`` and ``--progress``."""
    parser.add_argument("--wait", action="store_true", help="return when it is done")
    parser.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        help="with --wait, on standard error: a bar (on a terminal), or one JSON object per line",
    )


class Progress:
    """Shows jobs on standard error."""

    def __init__(self, mode: Mode | None) -> None:
        self._mode = mode or ("bar" if sys.stderr.isatty() else "none")
        self._drawn = 0

    def show(self, array: Array, job: Mapping[str, Any]) -> None:
        """*job* of *array* as of now."""
        if self._mode == "json":
            total = job["total"]
            share = min(job["done"] / total, 1.0) if total else 0.0
            facts = {"schema": "orionfs.progress/1", "array": array["name"], **job, "percent": round(100 * share, 1)}
            print(json.dumps(facts), file=sys.stderr, flush=True)
        elif self._mode == "bar":
            text = f"{array['name']}: {job_line(job)}"
            print(f"\r{text:<{self._drawn}}", end="", file=sys.stderr, flush=True)
            self._drawn = len(text)

    def end(self) -> None:
        """Nothing more is shown."""
        if self._drawn:
            print(f"\r{'':<{self._drawn}}\r", end="", file=sys.stderr, flush=True)
            self._drawn = 0


def wait_until(mount: Registration, name: str, done: Callable[[list[Array]], bool], mode: Mode | None) -> list[Array]:
    """Wait until *done* is true of the arrays that *name* stands for; what they are then.  Interrupt it to give up.

    Raises :class:`~orionfs.errors.NotFound` if they are stopped meanwhile.
    """
    progress = Progress(mode)
    last = 0
    try:
        with ControlClient.to(mount, timeout_s=_ANSWER_S) as client:
            while True:
                arrays = arrays_called(client.call("status"), name)
                for array in arrays:
                    if array["job"]:
                        progress.show(array, array["job"])
                if done(arrays):
                    return arrays
                last = client.call("events", since=last, wait_s=_INTERVAL_S)["last"]
    finally:
        progress.end()


def arrays_called(report: Mapping[str, Any], name: str) -> list[Array]:
    """The arrays with members of their own that *name* stands for: its groups, if it has any.

    Raises :class:`~orionfs.errors.NotFound` if there is none that runs.
    """
    arrays: list[Array] = report["mounts"][0]["arrays"]
    found = [array for array in arrays if array["part_of"] == name]
    found = found or [array for array in arrays if array["name"] == name]
    running = [array for array in found if array["state"] != "stopped"]
    if not running:
        raise NotFound(f"{name} is stopped", hint=f"orionctl array assemble {name}")
    return running
