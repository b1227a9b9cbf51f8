"""Changing a configuration in place: comments, order and spacing stay as the user wrote them.

A change that would make the file invalid is refused and nothing is written.  All of it blocks.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import tomlkit
from tomlkit.items import AoT, Table

from orionfs.config.load import examine_text, load_spec, spec_path
from orionfs.config.spec import ArraySpec
from orionfs.errors import ConfigError, NotFound, OrionError, Refused
from orionfs.hostfs import HostFs
from orionfs.units import format_size, parse_size

Value = str | int | bool | list[str]


def add_array(path: Path, array: ArraySpec, hostfs: HostFs) -> None:
    """Declare *array* after those that the configuration *path* has.

    Raises :class:`~orionfs.errors.ConfigError` if the whole would not be valid (a second array of that name, a member
    that is used already), and what :func:`~orionfs.config.load.load_spec` raises.
    """
    document = _open(path)
    _arrays(document, path).append(array_table(array))
    _write(path, document, hostfs)


def remove_array(path: Path, name: str, hostfs: HostFs) -> None:
    """Take the array *name* out of the configuration; its members stay as they are.

    Raises :class:`~orionfs.errors.NotFound` if it is not declared, :class:`~orionfs.errors.Refused` if it is a member
    of another or the last one.
    """
    spec = load_spec(path)
    for array in spec.arrays:
        if name in array.members:
            raise Refused(f"{name} is a member of {array.name}", hint=f"remove {array.name} first")
    document = _open(path)
    arrays, position = _find(document, path, name)
    if len(arrays) == 1:
        raise Refused(f"{name} is the only array of {spec.path}", hint="remove the file instead")
    del arrays[position]
    _write(path, document, hostfs)


def set_key(path: Path, name: str, key: str, value: Value | None, hostfs: HostFs) -> None:
    """Give *key* of the array *name* a value, or take the key away if *value* is None.

    Raises as :func:`add_array` and :func:`remove_array` do.
    """
    document = _open(path)
    arrays, position = _find(document, path, name)
    table = arrays[position]
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
    _write(path, document, hostfs)


def array_table(array: ArraySpec) -> Table:
    """*array* as a TOML table, with the keys that say more than the defaults."""
    table = tomlkit.table()
    table["name"] = array.name
    table["level"] = array.level
    if array.chunk is not None:
        table["chunk"] = size_text(array.chunk)
    if array.layout is not None:
        table["layout"] = array.layout
    table["members"] = list(array.members)
    if array.member_size is not None:
        table["member_size"] = size_text(array.member_size)
    if array.mode is not None:
        table["mode"] = f"{array.mode:04o}"
    for key in ("uid", "gid"):
        if getattr(array, key) is not None:
            table[key] = getattr(array, key)
    if array.truncate != "refuse":
        table["truncate"] = array.truncate
    for key in ("read_only", "direct"):
        if getattr(array, key):
            table[key] = True
    return table


def size_text(size: int) -> str | int:
    """*size* bytes as a configuration should say it: ``"64KiB"`` if that is exact, else the plain number."""
    text = format_size(size).replace(" ", "")
    return text if "." not in text and parse_size(text) == size else size


def _open(path: Path) -> tomlkit.TOMLDocument:
    file = load_spec(path).path
    return tomlkit.parse(file.read_bytes().decode())


def _arrays(document: tomlkit.TOMLDocument, path: Path) -> AoT:
    arrays = document["array"]
    if not isinstance(arrays, AoT):
        hint = "begin each array with a line [[array]]"
        raise ConfigError("array is an inline list, which cannot be edited", hint=hint, path=str(spec_path(path)))
    return arrays


def _find(document: tomlkit.TOMLDocument, path: Path, name: str) -> tuple[AoT, int]:
    arrays = _arrays(document, path)
    for position, table in enumerate(arrays):
        if table["name"] == name:
            return arrays, position
    listed = ", ".join(str(table["name"]) for table in arrays)
    raise NotFound(f"there is no array {name} in {spec_path(path)}", hint=f"there is: {listed}")


def _write(path: Path, document: tomlkit.TOMLDocument, hostfs: HostFs) -> None:
    file = spec_path(path)
    text = tomlkit.dumps(document)
    _spec, problems = examine_text(text, file)
    if problems:
        first: OrionError = problems[0]
        raise ConfigError(f"{file} is left as it is: {first.message}", hint=first.hint)
    real = Path(os.path.realpath(file))  # a symbolic link to the file stays one
    before = real.stat()
    hostfs.replace(real, text.encode(), stat.S_IMODE(before.st_mode))
    if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(real, before.st_uid, before.st_gid)  # root edits for the owner
