"""Lists the objects of every mount: what it is, where its file is, how large."""

from __future__ import annotations

import argparse

from orionfs.control.runtime import living_mounts
from orionfs.errors import NoDaemon
from orionfs.tools.orionctl.mounts import ask, chosen_mount
from orionfs.tools.orionctl.output import Output, table
from orionfs.units import format_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pass  # the common options are all it takes


def run(arguments: argparse.Namespace, output: Output) -> int:
    mounts = [chosen_mount(arguments)] if arguments.mount is not None else living_mounts()
    if not mounts:
        raise NoDaemon("nothing is mounted", hint="orionctl mount SPEC DIR")
    objects = []
    for mount in mounts:
        answer = ask(mount, "list")
        objects += [{"mountpoint": answer["mountpoint"], **entry} for entry in answer["objects"]]
    rows = [
        [entry["kind"], entry["name"], entry["level"], entry["state"], format_size(entry["size"]), entry["path"]]
        for entry in objects
    ]
    text = table(["KIND", "NAME", "LEVEL", "STATE", "SIZE", "PATH"], rows, frozenset({4}))
    output.result("list", {"objects": objects}, text)
    return 0
