"""The lists of a configuration that name devices: members and spares."""

from __future__ import annotations

from orionfs.backends import SCHEMES, parse_url
from orionfs.config.levels import NESTED, minimum_members, redundant
from orionfs.config.spec import MAX_MEMBERS, MISSING
from orionfs.config.table import Table, show_value
from orionfs.errors import ConfigError

_LATER_SCHEMES = frozenset({"nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nvme", "nvme+tcp"})


def read_members(table: Table, level: str | None) -> tuple[str, ...]:
    """The members of an array of *level*, in slot order."""
    value = table.required("members", 'add a line like members = ["members/d0.img", "members/d1.img"]')
    if value is None:
        return ()
    if not isinstance(value, list):
        table.problem("members", f"members is {show_value(value)}, not a list", 'write members = ["PATH", "PATH"]')
        return ()
    for position, member in enumerate(value):
        _check_device(table, "members", position, member)
    _check_count(table, level, len(value))
    if MISSING in value and level is not None and not redundant(level):
        message = f"{level} cannot do without a member, so none can be {MISSING}"
        table.problem("members", message, "name every member", value.index(MISSING))
    return tuple(str(member) for member in value)


def _check_count(table: Table, level: str | None, count: int) -> None:
    at_least = minimum_members(level) if level else 1
    if count < at_least:
        message = f"{level or 'an array'} needs at least {at_least} members and this one has {count}"
        table.problem("members", message, "add members, or choose another level")
    elif count > MAX_MEMBERS and level not in NESTED:
        message = f"{count} members are more than the {MAX_MEMBERS} that a superblock has room for"
        table.problem("members", message, "make several arrays, and one over them")
    elif level == "raid1e" and count % 2 == 0:
        message = f"raid1e is for an odd number of members and this one has {count}"
        table.problem("members", message, 'add or remove one, or write level = "raid10"')


def read_spares(table: Table, level: str | None) -> tuple[str, ...]:
    """The spares that the table lists.  *level* is None where they are for arrays of any level."""
    value = table.take("spares")
    if value is None:
        return ()
    if not isinstance(value, list):
        table.problem("spares", f"spares is {show_value(value)}, not a list", 'write spares = ["PATH", "PATH"]')
        return ()
    for position, spare in enumerate(value):
        if spare == MISSING:
            table.problem("spares", f"a spare cannot be {MISSING}", "take it out of the list", position)
        else:
            _check_device(table, "spares", position, spare)
    if value and level is not None and not redundant(level):
        message = f"{level} has no redundancy, so that no spare could ever take over"
        table.problem("spares", message, "remove this line, or choose another level")
    elif len(value) > MAX_MEMBERS:
        table.problem("spares", f"{len(value)} spares are more than {MAX_MEMBERS}", "list fewer")
    return tuple(str(spare) for spare in value)


def read_write_mostly(table: Table, level: str | None, devices: tuple[str, ...]) -> tuple[str, ...]:
    """Which of *devices* (members and spares) are only to be read when no other can be."""
    value = table.take("write_mostly")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        hint = 'write write_mostly = ["PATH"], each as it is among the members'
        table.problem("write_mostly", f"write_mostly is {show_value(value)}, not a list of members", hint)
        return ()
    if value and level is not None and level not in _WITH_COPIES:
        message = f"write_mostly is for levels that keep copies, and {level} is none"
        table.problem("write_mostly", message, "remove this line")
        return ()
    for position, name in enumerate(value):
        if name not in devices or name == MISSING:
            message = f"{show_value(name)} is write_mostly, and no member is called that"
            table.problem("write_mostly", message, f"it can be {', '.join(devices)}", position)
        elif name in value[:position]:
            table.problem("write_mostly", f"{show_value(name)} is listed twice", "list it once", position)
    return tuple(value)


_WITH_COPIES = frozenset({"raid1", "raid10", "raid1e"})


def _check_device(table: Table, key: str, position: int, member: object) -> None:
    noun = key.removesuffix("s")
    if not isinstance(member, str):
        table.problem(key, f"{noun} {show_value(member)} is not a text", 'write a path or URL in "quotes"', position)
    elif not member.strip() or "\0" in member:
        message = f"{noun} {position + 1} is {show_value(member)}, which names nothing"
        hint = "write a path or a URL" if key == "spares" else "write a path, a URL or the name of another array"
        table.problem(key, message, hint, position)
    else:
        _check_url(table, key, position, member)


def _check_url(table: Table, key: str, position: int, member: str) -> None:
    noun = key.removesuffix("s")
    try:
        scheme = parse_url(member).scheme
    except ConfigError as error:
        table.problem(key, error.message, error.hint, position)
        return
    if scheme in _LATER_SCHEMES:
        message = f"{noun} {show_value(member)}: remote {key} ({scheme}) are not in this release"
        table.problem(key, message, "name a file or a block device of this machine", position)
    elif scheme not in SCHEMES:
        message = f"{noun} {show_value(member)}: there is no backend {scheme}"
        hint = f"the backends are {', '.join(SCHEMES)}; a file of that name is written ./{member}"
        table.problem(key, message, hint, position)
