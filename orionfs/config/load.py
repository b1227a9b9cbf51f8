"""From a file to a :class:`~orionfs.config.spec.Spec`, or to errors that name file, line and the mend."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from orionfs.config.array_table import read_array
from orionfs.config.expand import expand
from orionfs.config.graph import check_graph
from orionfs.config.member_list import read_spares
from orionfs.config.nesting import too_deep
from orionfs.config.spec import MAX_ARRAYS, SPEC_NAME, ArraySpec, MountSpec, Spec
from orionfs.config.table import Document, Table, show_value
from orionfs.config.toml_lines import LineIndex
from orionfs.errors import AccessRefused, ConfigError, NotFound, OrionError, from_oserror
from orionfs.units import format_size

#: Nobody writes a configuration of this size by hand: it is some other file.
MAX_FILE_SIZE = 256 << 10

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
    declared = [read_array(table) for table in _tables(top, "array")]
    mount = _read_mount(top)
    top.later("pool", "pools are")
    top.later("controller", "NVMe controllers are")
    top.finish()
    if "array" not in values:
        document.problem((), "it declares no [[array]]", "add one: [[array]] with name, level and members")
    arrays: list[ArraySpec] = []
    for position, array in enumerate(declared):
        if array is not None and len(arrays) <= MAX_ARRAYS:
            arrays += expand(array)
            if len(arrays) > MAX_ARRAYS:
                message = f"it declares more than {MAX_ARRAYS} arrays"
                document.problem(("array", position), message, "split it into several mounts")
    _check_names(document, declared, arrays)
    return Spec(file, file.parent, tuple(arrays), mount)


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
    spares = read_spares(table, None)
    spec = MountSpec(
        allow_other=table.boolean("allow_other"),
        read_only=table.boolean("read_only"),
        mode=table.mode("mode"),
        uid=table.uid(),
        gid=table.gid(),
        spares=spares,
        spare_lines=tuple(table.line_of("spares", position) for position in range(len(spares))),
    )
    table.finish()
    return spec


def _check_names(document: Document, declared: list[ArraySpec | None], arrays: list[ArraySpec]) -> None:
    """Every array has a name of its own, those that a table stands for included."""
    positions = {array.line: position for position, array in enumerate(declared) if array is not None}
    first: dict[str, int] = {}
    for array in arrays:
        if array.name in first:
            message = f"there is another array {show_value(array.name)} on line {first[array.name]}"
            document.problem(("array", positions[array.line], "name"), message, "give each array a name of its own")
        first.setdefault(array.name, array.line)
