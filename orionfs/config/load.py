"""From a file to a :class:`~orionfs.config.spec.Spec`, or to errors that name file, line and the mend."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, cast

from orionfs.array.levels import LEVELS
from orionfs.backends import SCHEMES, parse_url
from orionfs.config.graph import check_graph
from orionfs.config.nesting import too_deep
from orionfs.config.spec import (
    LATER_LEVELS,
    LEVEL_ALIASES,
    MAX_ARRAYS,
    MAX_CHUNK,
    MAX_MEMBERS,
    MAX_NAME,
    MEMBER_SIZE_UNIT,
    MIN_CHUNK,
    MIN_MEMBER_SIZE,
    SPEC_NAME,
    TRUNCATE,
    ArraySpec,
    MountSpec,
    Spec,
    Truncate,
)
from orionfs.config.table import Document, Table, choose_hint, show_value
from orionfs.config.toml_lines import LineIndex
from orionfs.errors import AccessRefused, ConfigError, NotFound, OrionError, from_oserror
from orionfs.units import format_size

#: Nobody writes a configuration of this size by hand: it is some other file.
MAX_FILE_SIZE = 256 << 10

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LATER_SCHEMES = frozenset({"nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nvme", "nvme+tcp"})
_TOMLLIB_PLACE = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)")


def load_spec(path: Path) -> Spec:
    """The configuration in *path*, a file or a folder that holds ``orionfs.toml``.  Blocks; opens no member.

    Raises :class:`~orionfs.errors.ConfigError` for the first problem by line, :class:`~orionfs.errors.NotFound` and
    :class:`~orionfs.errors.AccessRefused` if there is no such file or it cannot be read.
    """
    spec, problems = examine_spec(path)
    if spec is None:
        raise problems[0]
    return spec


def examine_spec(path: Path) -> tuple[Spec | None, list[ConfigError]]:
    """As :func:`load_spec`, but with all the problems of the configuration, by line.  One of the two is empty."""
    file = spec_path(path)
    try:
        text = _read_text(file)
    except ConfigError as error:
        return None, [error]
    return examine_text(text, file)


def examine_text(text: str, file: Path) -> tuple[Spec | None, list[ConfigError]]:
    """As :func:`examine_spec`, for *text* as the contents of *file* (absolute), which need not exist."""
    try:
        line = too_deep(text)
        if line:
            hint = "write plain tables and lists"
            raise ConfigError("this line is nested too deeply", hint=hint, path=str(file), line=line)
        values = _parse(text, file)
        index = LineIndex(text)
    except ConfigError as error:
        return None, [error]
    document = Document(str(file), index)
    spec = _read_document(document, values, file)
    if not document.problems:
        document.problems.extend(check_graph(spec))
    document.problems.sort(key=lambda problem: problem.line)
    return (None, document.problems) if document.problems else (spec, [])


def spec_path(path: Path) -> Path:
    """The configuration file that *path* (a file, or a folder that holds one) stands for, absolute.

    Raises :class:`~orionfs.errors.NotFound` for a folder without one.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (symbolic links stay: paths in the file are relative to this one)
    try:
        is_folder = path.is_dir()
    except OSError as error:
        raise _cannot_read(path, error) from error
    if not is_folder:
        return path
    file = path / SPEC_NAME
    if not os.path.lexists(file):
        raise NotFound(f"there is no {SPEC_NAME} in {path}", hint=f"orionctl init {path} makes one")
    return file


def _read_text(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold us up
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError("it is not a regular file", hint="name a TOML file, or its folder", path=str(file))
            raw = stream.read(MAX_FILE_SIZE + 1)
    except OSError as error:
        raise _cannot_read(file, error) from error
    if len(raw) > MAX_FILE_SIZE:
        limit = format_size(MAX_FILE_SIZE)
        raise ConfigError(
            f"it is larger than {limit}, so it is no configuration", hint="name a TOML file", path=str(file)
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = "save the file as UTF-8, or name a TOML file"
        raise ConfigError("this line is not UTF-8 text", hint=hint, path=str(file), line=line) from error


def _cannot_read(file: Path, error: OSError) -> OrionError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return NotFound(f"there is no configuration {file}", hint=f"orionctl init {file} makes one")
    if isinstance(error, PermissionError):
        return AccessRefused(f"{file} may not be read by this user", hint=f"become its owner, or: chmod u+r {file}")
    return from_oserror(error, f"read the configuration {file}")


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        match = _TOMLLIB_PLACE.fullmatch(str(error))
        reason = match[1] if match else str(error)
        line = int(match[2]) if match and match[2] else text.rstrip().count("\n") + 1 if match else 0
        reason = reason[:1].lower() + reason[1:]
        hint = 'mend this line: texts stand in "quotes", tables begin with [name]'
        raise ConfigError(f"this is not TOML: {reason}", hint=hint, path=str(file), line=line) from error


def _read_document(document: Document, values: dict[str, Any], file: Path) -> Spec:
    top = Table(document, (), values, "the configuration")
    arrays = [_read_array(table) for table in _tables(top, "array")]
    mount = _read_mount(top)
    top.later("pool", "pools are")
    top.later("controller", "NVMe controllers are")
    top.finish()
    if "array" not in values:
        document.problem((), "it declares no [[array]]", "add one: [[array]] with name, level and members")
    if len(arrays) > MAX_ARRAYS:
        document.problem(
            ("array", MAX_ARRAYS), f"it declares more than {MAX_ARRAYS} arrays", "split it into several mounts"
        )
    _check_names(document, arrays)
    return Spec(file, file.parent, tuple(array for array in arrays if array is not None), mount)


def _tables(top: Table, key: str) -> list[Table]:
    """The tables of the array of tables *key*."""
    value = top.take(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value) or not value:
        top.problem(key, f"{key} is not a list of tables", f"begin each one with a line [[{key}]]")
        return []
    return [Table(top.document, (key, position), entry, f"[[{key}]]") for position, entry in enumerate(value)]


def _read_mount(top: Table) -> MountSpec:
    value = top.take("mount")
    if value is None:
        return MountSpec()
    if not isinstance(value, dict):
        top.problem("mount", "mount is not a table", "begin it with a line [mount]")
        return MountSpec()
    table = Table(top.document, ("mount",), value, "[mount]")
    spec = MountSpec(
        allow_other=table.boolean("allow_other"),
        read_only=table.boolean("read_only"),
        mode=table.mode("mode"),
        uid=table.uid(),
        gid=table.gid(),
    )
    table.finish()
    return spec


def _read_array(table: Table) -> ArraySpec | None:
    """The array that *table* declares; None if a problem keeps it from being one."""
    problems_before = len(table.document.problems)
    name = _read_name(table)
    level = _read_level(table)
    members = _read_members(table, level)
    chunk = _read_chunk(table, level)
    layout = _read_layout(table, level)
    member_size = _read_member_size(table)
    mode, uid, gid = table.mode("mode"), table.uid(), table.gid()
    truncate = cast("Truncate", table.choice("truncate", TRUNCATE) or "refuse")
    read_only, direct = table.boolean("read_only"), table.boolean("direct")
    table.later("member_layers", "layers behind members are")
    table.later("spares", "spare members are")
    table.finish()
    if len(table.document.problems) > problems_before or name is None or level is None:
        return None
    return ArraySpec(
        name=name,
        level=level,
        members=members,
        chunk=chunk,
        layout=layout,
        member_size=member_size,
        mode=mode,
        uid=uid,
        gid=gid,
        truncate=truncate,
        read_only=read_only,
        direct=direct,
        line=table.line,
        member_lines=tuple(table.line_of("members", position) for position in range(len(members))),
    )


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
    value = table.required("level", f'add a line like level = "raid5" ({", ".join(LEVELS)})')
    if value is None:
        return None
    level = normal_level(value)
    if level is None:
        later = str(value).lower() in LATER_LEVELS
        message = (
            f"level {show_value(value)} is not in this release" if later else f"there is no level {show_value(value)}"
        )
        hint = f"it can be {', '.join(LEVELS)}" if later else choose_hint(str(value), list(LEVELS))
        table.problem("level", message, hint)
    return level


def normal_level(value: object) -> str | None:
    """The level that *value* (``"raid5"``, ``"5"``, ``5``, ``"mirror"``) means; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).lower()
    text = LEVEL_ALIASES.get(text, text)
    return text if text in LEVELS else None


def _read_members(table: Table, level: str | None) -> tuple[str, ...]:
    value = table.required("members", 'add a line like members = ["members/d0.img", "members/d1.img"]')
    if value is None:
        return ()
    if not isinstance(value, list):
        table.problem("members", f"members is {show_value(value)}, not a list", 'write members = ["PATH", "PATH"]')
        return ()
    for position, member in enumerate(value):
        _check_member(table, position, member)
    at_least = LEVELS[level].minimum_members if level else 1
    if len(value) < at_least:
        message = f"{level or 'an array'} needs at least {at_least} members and this one has {len(value)}"
        table.problem("members", message, "add members, or choose another level")
    elif len(value) > MAX_MEMBERS:
        message = f"{len(value)} members are more than the {MAX_MEMBERS} that a superblock has room for"
        table.problem("members", message, "make several arrays, and one over them")
    return tuple(str(member) for member in value)


def _check_member(table: Table, position: int, member: object) -> None:
    if not isinstance(member, str):
        table.problem(
            "members", f"member {show_value(member)} is not a text", 'write a path or URL in "quotes"', position
        )
    elif not member.strip() or "\0" in member:
        message = f"member {position + 1} is {show_value(member)}, which names nothing"
        table.problem("members", message, "write a path, a URL or the name of another array", position)
    else:
        _check_url(table, position, member)


def _check_url(table: Table, position: int, member: str) -> None:
    try:
        scheme = parse_url(member).scheme
    except ConfigError as error:
        table.problem("members", error.message, error.hint, position)
        return
    if scheme in _LATER_SCHEMES:
        message = f"member {show_value(member)}: remote members ({scheme}) are not in this release"
        table.problem("members", message, "name a file or a block device of this machine", position)
    elif scheme not in SCHEMES:
        message = f"member {show_value(member)}: there is no backend {scheme}"
        hint = f"the backends are {', '.join(SCHEMES)}; a file of that name is written ./{member}"
        table.problem("members", message, hint, position)


def _read_chunk(table: Table, level: str | None) -> int | None:
    chunk = table.size("chunk")
    if chunk is None:
        return None
    hint = 'write a power of two such as chunk = "64KiB"'
    if level is not None and not LEVELS[level].chunked:
        table.problem("chunk", f"{level} has no chunks", "remove this line")
    elif chunk < MIN_CHUNK:
        table.problem("chunk", f"chunk {format_size(chunk)} is too small, the least is {format_size(MIN_CHUNK)}", hint)
    elif chunk > MAX_CHUNK:
        table.problem("chunk", f"chunk {format_size(chunk)} is too large, the most is {format_size(MAX_CHUNK)}", hint)
    elif chunk & (chunk - 1):
        table.problem("chunk", f"chunk {format_size(chunk)} ({chunk} bytes) is not a power of two", hint)
    return chunk


def _read_layout(table: Table, level: str | None) -> str | None:
    layouts = [name for name in LEVELS[level].layouts if name] if level else []
    if level is not None and not layouts:
        if table.take("layout") is not None:
            table.problem("layout", f"{level} has no layouts", "remove this line")
        return None
    if level is None:
        table.take("layout")
        return None
    return table.choice("layout", layouts)


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


def _check_names(document: Document, arrays: list[ArraySpec | None]) -> None:
    first: dict[str, int] = {}
    for position, array in enumerate(arrays):
        if array is None:
            continue
        if array.name in first:
            message = f"there is another array {show_value(array.name)} on line {first[array.name]}"
            document.problem(("array", position, "name"), message, "give each array a name of its own")
        first.setdefault(array.name, array.line)
