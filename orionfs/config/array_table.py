"""Reading one ``[[array]]`` table: every key, and what the keys mean for each other."""

from __future__ import annotations

import re
from typing import cast

from orionfs.array.policies import CHOICES, COUNTS, SIZES, Consistency
from orionfs.config.expand import DEFAULT_GROUPS, parts_of
from orionfs.config.levels import (
    NESTED,
    base_of,
    comes_later,
    fixed_layout,
    has_parity,
    layouts_of,
    level_names,
    minimum_members,
    normal_level,
    redundant,
)
from orionfs.config.member_list import read_members, read_spares, read_write_mostly
from orionfs.config.spec import (
    MAX_CHUNK,
    MAX_MEMBERS,
    MAX_NAME,
    MEMBER_SIZE_UNIT,
    MIN_CHUNK,
    MIN_MEMBER_SIZE,
    TRUNCATE,
    ArraySpec,
    Truncate,
)
from orionfs.config.table import Table, choose_hint, show_value
from orionfs.units import format_size

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONSISTENCY: tuple[Consistency, ...] = ("journal", "ppl", "resync")


def read_array(table: Table) -> ArraySpec | None:
    """The array that *table* declares, as it is written; None if a problem keeps it from being one."""
    problems_before = len(table.document.problems)
    name = _read_name(table)
    level = _read_level(table)
    members = read_members(table, level)
    groups = _read_groups(table, level, len(members))
    spares = read_spares(table, level)
    array = ArraySpec(
        name=name or "",
        level=level or "",
        members=members,
        chunk=_read_chunk(table, level),
        layout=_read_layout(table, level, len(members)),
        member_size=_read_member_size(table),
        spares=spares,
        write_mostly=read_write_mostly(table, level, (*members, *spares)),
        consistency=_read_consistency(table, level),
        bitmap=_read_bitmap(table, level),
        policies=_read_policies(table, level),
        groups=groups,
        mode=table.mode("mode"),
        uid=table.uid(),
        gid=table.gid(),
        truncate=cast("Truncate", table.choice("truncate", TRUNCATE) or "refuse"),
        read_only=table.boolean("read_only"),
        direct=table.boolean("direct"),
        line=table.line,
        member_lines=tuple(table.line_of("members", position) for position in range(len(members))),
        spare_lines=tuple(table.line_of("spares", position) for position in range(len(spares))),
    )
    table.later("member_layers", "layers behind members are")
    table.finish()
    if name is not None and level is not None:
        _check_together(table, array)
    return None if len(table.document.problems) > problems_before or name is None or level is None else array


def _read_name(table: Table) -> str | None:
    name = table.required("name", 'add a line like name = "vault"')
    if name is None:
        return None
    problem = name_problem(name)
    if problem:
        table.problem("name", problem, "choose a name of letters, digits, dots, dashes and underscores")
        return None
    return str(name)


def name_problem(name: object) -> str:
    """Why *name* cannot be the name of an array; empty if it can."""
    if not isinstance(name, str):
        return f"the name is {show_value(name)}, not a text"
    if not _NAME.fullmatch(name):
        return f"{show_value(name)} cannot be a name"
    if len(name) > MAX_NAME:
        return f"the name {show_value(name)} has more than {MAX_NAME} characters, which a superblock cannot hold"
    return ""


def _read_level(table: Table) -> str | None:
    known = level_names()
    value = table.required("level", f'add a line like level = "raid5" ({", ".join(known)})')
    if value is None:
        return None
    level = normal_level(value)
    if level is None:
        later = comes_later(str(value))
        message = (
            f"level {show_value(value)} is not in this release" if later else f"there is no level {show_value(value)}"
        )
        hint = f"it can be {', '.join(known)}" if later else choose_hint(str(value), known)
        table.problem("level", message, hint)
    return level


def _read_groups(table: Table, level: str | None, members: int) -> int | None:
    groups = table.count("groups", 1)
    if level is None:
        return groups
    if level not in NESTED:
        if groups is not None:
            table.problem("groups", f"{level} has no groups", f"remove this line; {' and '.join(NESTED)} have")
        return None
    count = DEFAULT_GROUPS if groups is None else groups
    if count < 2:
        message = f"{level} with {count} group would be {NESTED[level]}"
        table.problem("groups", message, "write groups = 2 or more")
    elif members and members % count:
        _groups_problem(table, groups, f"{members} members cannot be divided into {count} groups of the same size")
    elif members and members // count < minimum_members(level):
        least = minimum_members(level)
        message = f"each group of a {level} needs at least {least} members, and {members // count} are left for each"
        _groups_problem(table, groups, message)
    elif members // count > MAX_MEMBERS:
        _groups_problem(table, groups, f"a group can have no more than {MAX_MEMBERS} members")
    return groups


def _groups_problem(table: Table, groups: int | None, message: str) -> None:
    hint = "add or remove members, or choose another number of groups"
    table.problem("members" if groups is None else "groups", message, hint)


def _read_chunk(table: Table, level: str | None) -> int | None:
    chunk = table.size("chunk")
    if chunk is None:
        return None
    hint = 'write a power of two such as chunk = "64KiB"'
    base = base_of(level) if level is not None else None
    if level is not None and (base is None or not base.chunked):
        table.problem("chunk", f"{level} has no chunks", "remove this line")
    elif chunk < MIN_CHUNK:
        table.problem("chunk", f"chunk {format_size(chunk)} is too small, the least is {format_size(MIN_CHUNK)}", hint)
    elif chunk > MAX_CHUNK:
        table.problem("chunk", f"chunk {format_size(chunk)} is too large, the most is {format_size(MAX_CHUNK)}", hint)
    elif chunk & (chunk - 1):
        table.problem("chunk", f"chunk {format_size(chunk)} ({chunk} bytes) is not a power of two", hint)
    return chunk


def _read_layout(table: Table, level: str | None, members: int) -> str | None:
    if level is None:
        table.take("layout")
        return None
    layouts = layouts_of(level)
    if not layouts:
        if table.take("layout") is not None:
            table.problem("layout", f"{level} has no layouts", "remove this line")
        return fixed_layout(level)
    layout = table.choice("layout", layouts)
    base = base_of(level)
    if layout is not None and base is not None and level not in NESTED:
        least = base.fewest(base.layouts[layout])
        if base.minimum_members <= members < least:
            message = f"layout {layout} keeps {least} copies and so needs {least} members, and this array has {members}"
            table.problem("layout", message, "add members, or choose a layout of fewer copies")
    return layout


def _read_member_size(table: Table) -> int | None:
    size = table.size("member_size")
    if size is None:
        return None
    if size < MIN_MEMBER_SIZE:
        message = f"member_size {format_size(size)} is too small, the least is {format_size(MIN_MEMBER_SIZE)}"
        table.problem("member_size", message, 'write a larger one, such as member_size = "256MiB"')
    elif size % MEMBER_SIZE_UNIT:
        message = f"member_size {size} is not a multiple of {MEMBER_SIZE_UNIT} bytes"
        nearest = size - size % MEMBER_SIZE_UNIT
        table.problem("member_size", message, f'write member_size = {nearest}, or a size like "256MiB"')
    return size


def _read_consistency(table: Table, level: str | None) -> Consistency | None:
    chosen = cast("Consistency | None", table.choice("consistency", _CONSISTENCY))
    if chosen is None or level is None:
        return chosen
    if not has_parity(level):
        message = f"consistency is for levels with parity, and {level} has none"
        table.problem("consistency", message, "remove this line")
    elif chosen == "ppl" and NESTED.get(level, level) != "raid5":
        message = f"{level} cannot have a partial-parity log, which exists for raid5 only"
        table.problem("consistency", message, 'write consistency = "journal", or remove this line')
    return chosen


def _read_bitmap(table: Table, level: str | None) -> bool | None:
    value = table.take("bitmap")
    if value is None:
        return None
    bitmap = table.boolean("bitmap")
    if bitmap and level is not None and not redundant(level):
        message = f"{level} has no redundancy, so that a bitmap would be of no use"
        table.problem("bitmap", message, "remove this line")
    return bitmap


def _read_policies(table: Table, level: str | None) -> dict[str, str | int]:
    """The policies that the table sets."""
    found: dict[str, str | int] = {}
    for name, choices in CHOICES.items():
        choice = table.choice(name, choices)
        if choice is not None:
            found[name] = choice
    for name, least in SIZES.items():
        size = table.size(name)
        if size is not None and size < least:
            message = f"{name} {format_size(size)} is too small, the least is {format_size(least)}"
            table.problem(name, message, f'write {name} = "64MiB"')
        elif size is not None:
            found[name] = size
    for name, least in COUNTS.items():
        count = table.count(name, least)
        if count is not None:
            found[name] = count
    if found and level is not None and not redundant(level):
        name = next(iter(found))
        table.problem(name, f"{level} has no redundancy, so that {name} has no effect", "remove this line")
    return found


def _check_together(table: Table, array: ArraySpec) -> None:
    """What single keys cannot tell: values that exclude each other."""
    if array.consistency == "ppl" and array.bitmap:
        message = "a partial-parity log and a bitmap exclude each other, as their places on the members are the same"
        table.problem("bitmap", message, 'write bitmap = false, or consistency = "journal"')
    if array.policies.get("write_policy") == "back" and array.consistency in ("ppl", "resync"):
        message = f'write_policy "back" needs a journal, and consistency is "{array.consistency}"'
        table.problem("write_policy", message, 'write consistency = "journal", or write_policy = "through"')
    floor, ceiling = array.policies.get("rebuild_floor"), array.policies.get("rebuild_ceiling")
    if isinstance(floor, int) and isinstance(ceiling, int) and 0 < ceiling < floor:
        message = f"rebuild_ceiling {format_size(ceiling)} is below rebuild_floor {format_size(floor)}"
        table.problem("rebuild_ceiling", message, "write a larger one, or 0 for none")
    parts = parts_of(array)
    longest = len(array.name) + len(f".{parts - 1}")
    if parts and longest > MAX_NAME:
        message = (
            f"the name {show_value(array.name)} is too long for its parts, which are called {array.name}.0 and so on"
        )
        table.problem("name", message, f"choose one of at most {MAX_NAME - len(f'.{parts - 1}')} characters")
