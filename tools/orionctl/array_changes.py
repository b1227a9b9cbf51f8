"""The verbs of ``orionctl array`` that stop and start arrays, and change their members and policies."""

from __future__ import annotations

import argparse
from typing import Any

from orionfs.control.runtime import Registration
from orionfs.errors import MediaError, NotFound
from orionfs.tools.orionctl.confirm import confirm
from orionfs.tools.orionctl.devices import label_of, member_name
from orionfs.tools.orionctl.mounts import ask_patiently, chosen_mount, mount_of_object
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Actions, add_dry_run, add_yes
from orionfs.tools.orionctl.progress import Array, add_wait, wait_until


def _add_array(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("array", metavar="ARRAY", help="its name, or the path of its file")


def _add_member(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    parser.add_argument("member", metavar="MEMBER", help="as the configuration has it, its last part, or its slot")


def _carry_out(
    arguments: argparse.Namespace, output: Output, mount: Registration, verb: str, **values: Any
) -> dict[str, Any]:
    """Ask the daemon for *verb*, and tell what it did."""
    answer: dict[str, Any] = ask_patiently(mount, f"array.{verb}", dry_run=arguments.dry_run, **values)
    if not output.json:
        for sentence in answer["done"]:
            print(f"would be done: {sentence}" if arguments.dry_run else sentence)
        if answer["next"] and not getattr(arguments, "wait", False):
            print(f"next: {answer['next']}")
    return answer


def _finish(output: Output, verb: str, answer: dict[str, Any], **more: Any) -> int:
    if output.json:
        values = {key: value for key, value in answer.items() if key != "schema"}
        output.result(f"array.{verb}", {**values, **more}, "")
    return 0


# --- arrays ----------------------------------------------------------------------------------------------------------


def _add_assemble(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    parser.add_argument("--force", action="store_true", help="start it dirty and degraded: some data may be wrong")
    add_dry_run(parser)


def _assemble(arguments: argparse.Namespace, output: Output) -> int:
    try:
        mount, name = mount_of_object(arguments, arguments.array)
    except NotFound:  # it may have been added to the configuration by hand: the daemon reads that anew
        mount, name = chosen_mount(arguments), arguments.array
    answer = _carry_out(arguments, output, mount, "assemble", array=name, force=arguments.force)
    return _finish(output, "assemble", answer)


def _add_stop(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    parser.add_argument("--force", action="store_true", help="also if it is open; its users get ENODEV")
    parser.add_argument("--forget", action="store_true", help="take it out of the configuration, too")
    add_yes(parser)


def _stop(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    confirm(arguments, f"stop {name}{' and take it out of the configuration' if arguments.forget else ''}?")
    answer = _carry_out(arguments, output, mount, "stop", array=name, force=arguments.force, forget=arguments.forget)
    return _finish(output, "stop", answer)


# --- members ---------------------------------------------------------------------------------------------------------


def _add_add(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    parser.add_argument("devices", metavar="DEVICE", nargs="+", help="a file or block device that is there")
    parser.add_argument("--force", action="store_true", help="also if it holds something, which is lost then")
    add_dry_run(parser)
    add_wait(parser)


def _add(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    labels = [label_of(device, mount.spec.parent) for device in arguments.devices]
    answer = _carry_out(arguments, output, mount, "add", array=name, devices=labels, force=arguments.force)
    if arguments.wait and not arguments.dry_run:
        _await_members(arguments, mount, name, labels)
    return _finish(output, "add", answer)


def _await_members(arguments: argparse.Namespace, mount: Registration, name: str, labels: list[str]) -> None:
    """Until each of *labels* is in sync, or a spare that nobody needs.  Raises MediaError if one failed."""

    def settled(arrays: list[Array]) -> bool:
        busy = any(
            member["name"] in labels and member["state"] in ("rebuilding", "replacing")
            for array in arrays
            for member in array["members"]
        )
        return not busy and not any(_takes_over(array, labels) for array in arrays)

    arrays = wait_until(mount, name, settled, arguments.progress)
    for array in arrays:
        for member in array["members"]:
            if member["name"] in labels and member["state"] not in ("active", "spare"):
                raise MediaError(f"{member['name']} is {member['state']}", hint=f"orionctl status {array['name']}")


def _takes_over(array: Array, labels: list[str]) -> bool:
    """Whether one of *labels* is a spare that is about to fill an empty slot."""
    vacant = any(member["slot"] >= 0 and member["state"] in ("missing", "failed") for member in array["members"])
    automatic = array["policies"].get("spare_policy") == "auto" and array["state"] != "failed"
    waiting = any(member["name"] in labels and member["state"] == "spare" for member in array["members"])
    return vacant and automatic and waiting


def _add_fail(parser: argparse.ArgumentParser) -> None:
    _add_member(parser)
    add_yes(parser)


def _fail(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    confirm(arguments, f"take {arguments.member} of {name} out of service?")
    member = member_name(arguments.member, mount.spec.parent)
    return _finish(output, "fail", _carry_out(arguments, output, mount, "fail", array=name, member=member))


def _remove(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    confirm(arguments, f"have {name} forget {arguments.member}?")
    member = member_name(arguments.member, mount.spec.parent)
    return _finish(output, "remove", _carry_out(arguments, output, mount, "remove", array=name, member=member))


def _add_replace(parser: argparse.ArgumentParser) -> None:
    _add_member(parser)
    parser.add_argument("by", metavar="NEW", nargs="?", help="a new device, or a spare (default: any spare)")
    parser.add_argument("--force", action="store_true", help="also if NEW holds something, which is lost then")
    add_yes(parser)
    add_wait(parser)


def _replace(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    confirm(arguments, f"replace {arguments.member} of {name} by {arguments.by or 'a spare'}?")
    folder = mount.spec.parent
    values = {"array": name, "member": member_name(arguments.member, folder), "force": arguments.force}
    if arguments.by:
        values["by"] = label_of(arguments.by, folder)
    answer = _carry_out(arguments, output, mount, "replace", **values)
    if arguments.wait and not arguments.dry_run:
        wait_until(mount, name, lambda arrays: not any(_is_filling(array) for array in arrays), arguments.progress)
    return _finish(output, "replace", answer)


def _is_filling(array: Array) -> bool:
    return any(member["state"] in ("rebuilding", "replacing") for member in array["members"])


def _add_readd(parser: argparse.ArgumentParser) -> None:
    _add_member(parser)
    add_dry_run(parser)
    add_wait(parser)


def _readd(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    member = member_name(arguments.member, mount.spec.parent)
    answer = _carry_out(arguments, output, mount, "readd", array=name, member=member)
    if arguments.wait and not arguments.dry_run:
        wait_until(mount, name, lambda arrays: not any(_is_filling(array) for array in arrays), arguments.progress)
    return _finish(output, "readd", answer)


def _add_clear(parser: argparse.ArgumentParser) -> None:
    _add_array(parser)
    parser.add_argument("member", metavar="MEMBER", nargs="?", default="", help="only this one's")
    add_dry_run(parser)


def _clear(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    member = member_name(arguments.member, mount.spec.parent)
    return _finish(output, "clear", _carry_out(arguments, output, mount, "clear", array=name, member=member))


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _POLICIES
    _add_array(parser)
    parser.add_argument("policies", metavar="NAME=VALUE", nargs="+", help="as in the configuration")
    add_dry_run(parser)


def _set(arguments: argparse.Namespace, output: Output) -> int:
    mount, name = mount_of_object(arguments, arguments.array)
    answer = _carry_out(arguments, output, mount, "set", array=name, policies=arguments.policies)
    return _finish(output, "set", answer)


_POLICIES = """\
policies, as in the configuration:
  read_policy=adaptive|round-robin|nearest     which copy of a mirror serves a read
  write_policy=back|through                    return when the journal has it, or when the members have it too
  whole_stripes=in-place|journal               whether the journal takes whole stripes, too
  spare_policy=auto|manual                     whether spares take over by themselves
  stripe_cache=SIZE                            what the journal may keep in memory
  rebuild_floor=SIZE rebuild_ceiling=SIZE      per second of member data, beside other requests (0: no ceiling)
  max_read_errors=N                            a member with more within an hour is failed
"""

VERBS: dict[str, Actions] = {
    "assemble": (_add_assemble, _assemble),
    "stop": (_add_stop, _stop),
    "add": (_add_add, _add),
    "fail": (_add_fail, _fail),
    "remove": (_add_fail, _remove),
    "replace": (_add_replace, _replace),
    "re-add": (_add_readd, _readd),
    "clear": (_add_clear, _clear),
    "set": (_add_set, _set),
}
