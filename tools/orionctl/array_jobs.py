"""The verbs of ``orionctl array`` about background jobs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from orionfs.monitor.status_text import place_line, scrub_line
from orionfs.tools.orionctl.mounts import ask, mount_of_object
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Actions, add_dry_run
from orionfs.tools.orionctl.progress import Array, add_wait, wait_until

#: The exit status of a scrub that has found what does not agree and is not repaired; 1 says that it did not finish.
_DATA_ERRORS = 4


def _add_array(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("array", metavar="ARRAY", help="its name, or the path of its file")
    add_dry_run(parser)


def _add_scrub(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    add_wait(parser)


def _scrub(kind: str) -> Callable[[argparse.Namespace, Output], int]:
    def run(arguments: argparse.Namespace, output: Output) -> int:
        mount, name = mount_of_object(arguments, arguments.array)
        answer = ask(mount, "array.scrub", array=name, kind=kind, dry_run=arguments.dry_run)
        if arguments.dry_run or not arguments.wait:
            output.result(f"array.{kind}", {"array": name, "done": answer["done"]}, "\n".join(answer["done"]))
            return 0
        arrays = wait_until(mount, name, lambda arrays: not _have_job(arrays, kind), arguments.progress)
        return _tell(kind, name, arrays, output)

    return run


def _have_job(arrays: list[Array], kind: str) -> bool:
    return any(job["kind"] == kind for array in arrays for job in [array["job"], *array["jobs"]] if job)


def _tell(kind: str, name: str, arrays: list[Array], output: Output) -> int:
    """Print what the scrubs have found; the exit status."""
    scrubs: list[dict[str, Any]] = []
    lines = []
    left, unfinished = 0, False
    for array in arrays:
        found = array["scrub"]
        scrubs.append({"array": array["name"], "scrub": found})
        if found:
            lines.append(f"{array['name']}: {scrub_line(found)}")
            lines += [f"  {place_line(place)}" for place in found["places"]]
            left += found["mismatches"] - found["repaired"] + found["unreadable"]
        unfinished |= not (found and found["finished"])
    output.result(f"array.{kind}", {"array": name, "scrubs": scrubs}, "\n".join(lines))
    return _DATA_ERRORS if left else int(unfinished)


def _simple(verb: str) -> Callable[[argparse.Namespace, Output], int]:
    def run(arguments: argparse.Namespace, output: Output) -> int:
        mount, name = mount_of_object(arguments, arguments.array)
        answer = ask(mount, f"array.{verb}", array=name, dry_run=arguments.dry_run)
        output.result(f"array.{verb}", {"array": name, "done": answer["done"]}, "\n".join(answer["done"]))
        return 0

    return run


VERBS: dict[str, Actions] = {
    "check": (_add_scrub, _scrub("check")),
    "repair": (_add_scrub, _scrub("repair")),
    "pause": (_add_array, _simple("pause")),
    "resume": (_add_array, _simple("resume")),
    "cancel": (_add_array, _simple("cancel")),
}
