"""The verbs of ``orionctl spare``."""

from __future__ import annotations

import argparse
from typing import Any

from orionfs.tools.orionctl.confirm import confirm
from orionfs.tools.orionctl.devices import label_of, member_name
from orionfs.tools.orionctl.mounts import ask, ask_patiently, chosen_mount
from orionfs.tools.orionctl.output import Output, table
from orionfs.tools.orionctl.parsing import Actions, add_dry_run, add_yes, no_arguments
from orionfs.units import format_size


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("devices", metavar="DEVICE", nargs="+", help="a file or block device that is there, and empty")
    add_dry_run(parser)


def _add(arguments: argparse.Namespace, output: Output) -> int:
    mount = chosen_mount(arguments)
    labels = [label_of(device, mount.spec.parent) for device in arguments.devices]
    return _tell(output, "add", ask_patiently(mount, "spare.add", devices=labels, dry_run=arguments.dry_run))


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("device", metavar="DEVICE", help="as the configuration has it, or its last part")
    add_yes(parser)


def _remove(arguments: argparse.Namespace, output: Output) -> int:
    mount = chosen_mount(arguments)
    confirm(arguments, f"take {arguments.device} out of the spares?")
    device = member_name(arguments.device, mount.spec.parent)
    return _tell(output, "remove", ask_patiently(mount, "spare.remove", device=device, dry_run=arguments.dry_run))


def _tell(output: Output, verb: str, answer: dict[str, Any]) -> int:
    output.result(f"spare.{verb}", {"done": answer["done"]}, "\n".join(answer["done"]))
    return 0


def _list(arguments: argparse.Namespace, output: Output) -> int:
    spares = ask(chosen_mount(arguments), "status")["mounts"][0]["spares"]
    rows = [
        [spare["name"], spare["state"], format_size(spare["size"]), ", ".join(spare["serves"]), spare["why"]]
        for spare in spares
    ]
    text = table(["SPARE", "STATE", "SIZE", "FOR", "WHY"], rows, frozenset({2})) if rows else "no spare is free"
    output.result("spare.list", {"spares": spares}, text)
    return 0


VERBS: dict[str, Actions] = {
    "add": (_add_devices, _add),
    "remove": (_add_device, _remove),
    "list": (no_arguments, _list),
}
