"""Shows one object in full: its geometry, its members, its counters and all else that the daemon knows of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from orionfs.monitor.status_text import plain
from orionfs.tools.orionctl.mounts import ask, mount_of_object
from orionfs.tools.orionctl.output import Output
from orionfs.units import format_size

_SIZES = frozenset(
    {"size", "chunk", "done", "total", "rate", "checked", "stripe_cache", "rebuild_floor", "rebuild_ceiling"}
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("object", metavar="OBJ", help="an array, or the path of its file")


def run(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.object)
    answer = ask(mount, "show", object=name)
    values = {key: value for key, value in answer.items() if key != "schema"}
    output.result("show", values, "\n".join(_lines(answer["object"])))
    return 0


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """*values* as ``key: value`` lines; tables and lists of tables are indented below their key."""
    shown = {key: value for key, value in values.items() if value not in (None, "", [])}
    width = max((len(key) for key, value in shown.items() if not isinstance(value, dict)), default=0) + 1
    for key, value in shown.items():
        if isinstance(value, dict):
            if value:
                yield f"{indent}{key}:"
                yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for position, entry in enumerate(value):
                yield f"{indent}{key}[{position}]:"
                yield from _lines(entry, indent + "  ")
        else:
            yield f"{indent}{key + ':':<{width}} {_text(key, value)}"


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(entry) for entry in value)
    if isinstance(value, int) and key in _SIZES:
        return f"{value} ({format_size(value)})"
    return plain(value)
