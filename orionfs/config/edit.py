"""Changing a configuration in place: comments, order and spacing stay as the user wrote them.

A change that would make the file invalid is refused and nothing is written.  All of it blocks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import AoT, Array, Table

from orionfs.array.policies import SIZES
from orionfs.config.load import examine_text, load_spec, spec_path
from orionfs.config.spec import MISSING, ArraySpec, Spec
from orionfs.errors import ConfigError, NotFound, Refused
from orionfs.hostfs import HostFs
from orionfs.units import format_size, parse_size

Value = str | int | bool | list[str]


class Edit:
    """Some changes of the configuration *path*, which happen together in :meth:`write`, or not at all."""

    def __init__(self, path: Path) -> None:
        """Raises what :func:`~orionfs.config.load.load_spec` raises."""
        self.file = spec_path(path)
        self.spec = load_spec(path)
        self._before = self.file.read_bytes()
        self._document = tomlkit.parse(self._before.decode())

    # --- arrays ----------------------------------------------------------------------------------------------------

    def add_array(self, array: ArraySpec) -> None:
        """Declare *array*, as it is to be written, after those that there are."""
        arrays = self._arrays()
        if not self.text.endswith(("\n\n", "\r\n\r\n")):
            arrays[-1].add(tomlkit.nl())
        arrays.append(array_table(array))

    def remove_array(self, name: str) -> None:
        """Take the table *name* out; its members stay as they are.

        Raises :class:`~orionfs.errors.NotFound` if it is not declared, :class:`~orionfs.errors.Refused` if it is a
        member of another or the last one.
        """
        for array in self.spec.arrays:
            if name in array.members and array.name != name:
                raise Refused(f"{name} is a member of {array.name}", hint=f"remove {array.name} first")
        arrays, position = self._find(name)
        if len(arrays) == 1:
            raise Refused(f"{name} is the only array of {self.file}", hint="remove the file instead")
        del arrays[position]

    def set_key(self, name: str, key: str, value: Value | None) -> None:
        """Give *key* of the array *name* a value, or take the key away if *value* is None."""
        table = self._table(name)
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value

    # --- members and spares ----------------------------------------------------------------------------------------

    def add_spare(self, name: str, label: str) -> None:
        """Make *label* a spare of the array *name*; of all arrays if *name* is empty."""
        if name:
            table: Any = self._table(name)
        else:
            table = self._document.setdefault("mount", tomlkit.table())
        if "spares" in table:
            table["spares"].append(label)
        else:
            table["spares"] = [label]

    def remove_spare(self, label: str) -> bool:
        """Take *label* out of the list of spares that has it; whether one had."""
        tables: list[Any] = [*self._arrays(), self._document.get("mount", {})]
        for table in tables:
            spares = table.get("spares", [])
            if label in spares:
                _take(spares, label)
                if not spares:
                    del table["spares"]
                return True
        return False

    def put_member(self, name: str, label: str, instead: str = MISSING) -> bool:
        """Write *instead* where *label* is a member of the array *name*, and nowhere else; whether *label* was one."""
        members = self._table(name)["members"]
        if label not in members:
            return False
        if instead != MISSING:
            self.remove_spare(instead)
            if instead in members:
                members[members.index(instead)] = MISSING
        members[members.index(label)] = instead
        return True

    # --- the end ---------------------------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The configuration with the changes."""
        return tomlkit.dumps(self._document)

    def check(self) -> Spec:
        """What the configuration would be.  Raises :class:`~orionfs.errors.ConfigError` if it would not be valid."""
        spec, problems = examine_text(self.text, self.file)
        if spec is None:
            raise ConfigError(f"{self.file} is left as it is: {problems[0].message}", hint=problems[0].hint)
        return spec

    def write(self, hostfs: HostFs) -> Spec:
        """Make the changes durable; what the configuration is then.

        Raises as :meth:`check`, and :class:`~orionfs.errors.Refused` if somebody else has changed the file meanwhile.
        """
        spec = self.check()
        text = self.text.encode()
        real = Path(os.path.realpath(self.file))  # a symbolic link to the file stays one
        before = real.stat()
        if real.read_bytes() != self._before:
            raise Refused(f"{self.file} was changed by somebody else meanwhile", hint="try again")
        if text != self._before:
            hostfs.replace(real, text, stat.S_IMODE(before.st_mode))
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(real, before.st_uid, before.st_gid)  # root edits for the owner
        return spec

    # --- inside ----------------------------------------------------------------------------------------------------

    def _arrays(self) -> AoT:
        arrays = self._document["array"]
        if not isinstance(arrays, AoT):
            hint = "begin each array with a line [[array]]"
            raise ConfigError("array is an inline list, which cannot be edited", hint=hint, path=str(self.file))
        return arrays

    def _find(self, name: str) -> tuple[AoT, int]:
        arrays = self._arrays()
        for position, table in enumerate(arrays):
            if table["name"] == name:
                return arrays, position
        listed = ", ".join(str(table["name"]) for table in arrays)
        raise NotFound(f"there is no array {name} in {self.file}", hint=f"there is: {listed}")

    def _table(self, name: str) -> Table:
        """The table that declares the array *name*, be it only a part of what that stands for."""
        array = self.spec.array(name)
        arrays, position = self._find(array.part_of if array is not None and array.part_of else name)
        return arrays[position]


def _take(items: Array, value: str) -> None:
    del items[items.index(value)]


def array_table(array: ArraySpec) -> Table:
    """*array*, as it is to be written, as a TOML table with the keys that say more than the defaults."""
    table = tomlkit.table()
    table["name"] = array.name
    table["level"] = array.declared_level or array.level
    if array.groups is not None:
        table["groups"] = array.groups
    if array.chunk is not None:
        table["chunk"] = size_text(array.chunk)
    if array.layout is not None:
        table["layout"] = array.layout
    table["members"] = _list(array.members)
    for key, names in (("spares", array.spares), ("write_mostly", array.write_mostly)):
        if names:
            table[key] = _list(names)
    if array.member_size is not None:
        table["member_size"] = size_text(array.member_size)
    for key in ("consistency", "bitmap"):
        if getattr(array, key) is not None:
            table[key] = getattr(array, key)
    for key, value in array.policies.items():
        table[key] = size_text(value) if key in SIZES and isinstance(value, int) else value
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


def _list(names: Sequence[str]) -> Array:
    """*names* as a list, one on each line if that is what fits."""
    items = tomlkit.array()
    items.extend(names)
    return items.multiline(sum(len(name) + 4 for name in names) > 80)


def size_text(size: int) -> str | int:
    """*size* bytes as a configuration should say it: ``"64KiB"`` if that is exact, else the plain number."""
    text = format_size(size).replace(" ", "")
    return text if "." not in text and parse_size(text) == size else size


def new_text(array: ArraySpec) -> str:
    """The text of a new configuration that declares *array*."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment(
            "One mount of OrionFS. Paths are relative to this file; arrays appear below arrays/ of the mount."
        )
    )
    table = array_table(array)
    if array.member_size is not None:
        table["member_size"].comment("of the files that orionctl init makes")
    arrays = tomlkit.aot()
    arrays.append(table)
    document.add("array", arrays)
    return tomlkit.dumps(document)
