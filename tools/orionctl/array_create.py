"""``orionctl array create``: in a mount that is there, or in a configuration that is mounted later."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from orionfs.config.spec import SPEC_NAME
from orionfs.control.runtime import Registration, find, living_mounts
from orionfs.errors import UsageError
from orionfs.tools.orionctl.devices import label_of
from orionfs.tools.orionctl.mounts import ask_patiently
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Actions, add_dry_run, size

_EPILOG = """\
Relative names are relative to the configuration, as in the file. Devices that are there have to be empty; files that
are not there are made if --size says how large. In a mounted configuration the array is assembled at once.

examples:
  orionctl array create vault --level raid6 --size 1G members/d{0,1,2,3,4,5}.img --spare members/s0.img
  orionctl array create fast --level raid50 --groups 2 --size 256M members/e{0,1,2,3,4,5}.img
  orionctl array create both --level raid0 left right            over two arrays that are there
"""

#: What the daemon takes, and whether it is in the file if it was not said.
_CHOICES = ("chunk", "layout", "member_size", "groups", "consistency", "bitmap")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument("name", metavar="NAME", help="of the new array")
    parser.add_argument("members", metavar="MEMBER", nargs="+", help="files, block devices, or arrays")
    parser.add_argument("--level", required=True, help="linear, jbod, raid0, raid1, raid5, raid6, raid10, raid50 ...")
    parser.add_argument("--spec", metavar="SPEC", help="the configuration (that of the mount, else this folder)")
    parser.add_argument("--size", dest="member_size", type=size, metavar="SIZE", help="of each file that is made")
    parser.add_argument("--chunk", type=size, metavar="SIZE", help="bytes that one member holds in a row (64KiB)")
    parser.add_argument("--layout", help="of levels that have several")
    parser.add_argument("--groups", type=int, metavar="N", help="of raid50 and raid60 (2)")
    parser.add_argument(
        "--spare", "--spares", dest="spares", action="append", default=[], metavar="DEVICE", help="again for more"
    )
    parser.add_argument(
        "--write-mostly", action="append", default=[], metavar="MEMBER", help="read only if no other can be"
    )
    parser.add_argument("--consistency", help="of levels with parity: journal, ppl or resync (journal)")
    parser.add_argument("--bitmap", action=argparse.BooleanOptionalAction, help="a write-intent bitmap (yes)")
    parser.add_argument(
        "--policy", dest="policies", action="append", default=[], metavar="NAME=VALUE", help="as for set"
    )
    add_dry_run(parser)


def _create(arguments: argparse.Namespace, output: Output) -> int:
    mount = _mount(arguments)
    file = mount.spec if mount is not None else _file(arguments.spec)
    request = _request(arguments, file.parent)
    if mount is not None:
        done = ask_patiently(mount, "array.create", **request)["done"]
    else:
        done = _create_unmounted(file, request)
    values = {"array": arguments.name, "path": str(file), "mounted": mount is not None, "done": done}
    output.result("array.create", {**values, "dry_run": arguments.dry_run}, "\n".join(done))
    return 0


def _mount(arguments: argparse.Namespace) -> Registration | None:
    """The mount whose configuration gets the array; None if that is not mounted."""
    if arguments.mount is not None:
        if arguments.spec is not None:
            raise UsageError("--mount and --spec both say which configuration is meant", hint="leave one of them out")
        return find(arguments.mount)
    living = living_mounts()
    if arguments.spec is not None:
        file = _file(arguments.spec)
        return next((mount for mount in living if mount.spec == file), None)
    if len(living) > 1:
        listed = ", ".join(str(mount.mountpoint) for mount in living)
        raise UsageError(f"there are several mounts ({listed})", hint="choose one with --mount DIR, or say --spec SPEC")
    return living[0] if living else None


def _file(spec: str | None) -> Path:
    path = Path(os.path.abspath(spec or "."))  # noqa: PTH100 (symbolic links stay)
    return path if path.is_file() or path.suffix == ".toml" else path / SPEC_NAME


def _request(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The arguments of the daemon's verb."""
    request: dict[str, Any] = {
        "name": arguments.name,
        "level": arguments.level,
        "members": [label_of(member, folder) for member in arguments.members],
        "spares": [label_of(spare, folder) for spare in arguments.spares],
        "write_mostly": [label_of(member, folder) for member in arguments.write_mostly],
        "policies": arguments.policies,
        "dry_run": arguments.dry_run,
    }
    for key in _CHOICES:
        if getattr(arguments, key) is not None:
            request[key] = getattr(arguments, key)
    return request


def _create_unmounted(file: Path, request: dict[str, Any]) -> list[str]:
    """Do the daemon's part: nobody has the configuration mounted."""
    import trio  # heavy, and only here a daemon's work is done

    from orionfs.tools.offline import create_array

    return trio.run(create_array, file, request)


VERBS: dict[str, Actions] = {"create": (_add_arguments, _create)}
