"""``orionctl array list`` and ``show``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from orionfs.control.runtime import living_mounts
from orionfs.errors import NoDaemon
from orionfs.monitor.status_text import job_name
from orionfs.tools.orionctl import show
from orionfs.tools.orionctl.mounts import ask, chosen_mount
from orionfs.tools.orionctl.output import Output, table
from orionfs.tools.orionctl.parsing import Actions, no_arguments
from orionfs.units import format_size


def _list(arguments: argparse.Namespace, output: Output) -> int:
    mounts = [chosen_mount(arguments)] if arguments.mount is not None else living_mounts()
    if not mounts:
        raise NoDaemon("nothing is mounted", hint="orionctl mount SPEC DIR")
    arrays = []
    for mount in mounts:
        for report in ask(mount, "status")["mounts"]:
            arrays += [{"mountpoint": report["mountpoint"], **_line(array)} for array in report["arrays"]]
    rows = [
        [
            *(array[key] for key in ("name", "level", "state", "slots")),
            *(str(array["spares"]), format_size(array["size"])),
            *(array[key] for key in ("log", "job")),
        ]
        for array in arrays
    ]
    header = ["NAME", "LEVEL", "STATE", "MEMBERS", "SPARES", "SIZE", "LOG", "JOB"]
    output.result("array.list", {"arrays": arrays}, table(header, rows, frozenset({4, 5})))
    return 0


def _line(array: Mapping[str, Any]) -> dict[str, Any]:
    job = array["job"]
    percent = f" {100 * job['done'] / job['total']:.1f}%" if job and job["total"] else ""
    return {
        "name": array["name"],
        "level": array["declared_level"] or array["level"],
        "part_of": array["part_of"],
        "state": array["state"],
        "slots": array["slots"],
        "spares": sum(1 for member in array["members"] if member["state"] == "spare"),
        "size": array["size"],
        "log": array["consistency"] if array["consistency"] in ("journal", "ppl") else "",
        "bitmap": bool(array["bitmap"]),
        "job": f"{job_name(job)}{percent}" if job else "",
    }


VERBS: dict[str, Actions] = {
    "list": (no_arguments, _list),
    "show": (show.add_arguments, show.run),
}
