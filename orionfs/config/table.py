"""Reading one TOML table key by key: types are checked, every key is accounted for, every problem has its line.

Problems are collected, not raised, so that ``orionctl config check`` shows all of them at once.
"""

from __future__ import annotations

import difflib
import grp
import pwd
from collections.abc import Mapping, Sequence
from typing import Any

from orionfs.config.toml_lines import LineIndex, Path
from orionfs.errors import ConfigError
from orionfs.units import parse_size

_PERMISSIONS = 0o777


class Document:
    """One parsed file and the problems that were found in it."""

    def __init__(self, path: str, index: LineIndex) -> None:
        self.path = path
        self.index = index
        self.problems: list[ConfigError] = []

    def problem(self, place: Path, message: str, hint: str) -> None:
        """Note that what is written at *place* is wrong."""
        self.problems.append(ConfigError(message, hint=hint, path=self.path, line=self.index.line(*place)))


class Table:
    """One table of the document.  Each method takes one key; :meth:`finish` complains about what is left.

    A value of the wrong type is a problem and then counts as absent.
    """

    def __init__(self, document: Document, place: Path, values: Mapping[str, Any], label: str) -> None:
        self.document = document
        self.place = place
        self.label = label  # how messages call the table: [[array]] or [mount]
        self._values = values
        self._known: set[str] = set()

    @property
    def line(self) -> int:
        """Where the table begins in the file."""
        return self.document.index.line(*self.place)

    def line_of(self, *keys: str | int) -> int:
        """The line of the value under *keys*."""
        return self.document.index.line(*self.place, *keys)

    def problem(self, key: str | int | None, message: str, hint: str, *rest: int) -> None:
        """Note a problem with *key* (or with the whole table, if None)."""
        place = self.place if key is None else (*self.place, key, *rest)
        self.document.problem(place, message, hint)

    def take(self, key: str) -> Any:
        """The value of *key* as it is, None if it is absent."""
        self._known.add(key)
        return self._values.get(key)

    def required(self, key: str, hint: str) -> Any:
        """The value of *key*; a problem if it is absent."""
        value = self.take(key)
        if value is None:
            self.problem(None, f"this {self.label} has no {key}", hint)
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        """True or false; *default* if it is absent, or is neither, which is a problem."""
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.problem(key, f"{key} is {show_value(value)}, not true or false", f"write {key} = true or {key} = false")
        return default

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of *choices*; None if it is absent, or is none of them, which is a problem."""
        value = self.take(key)
        if value is None or (isinstance(value, str) and value in choices):
            return value
        self.problem(key, f"{key} cannot be {show_value(value)}", choose_hint(str(value), choices))
        return None

    def size(self, key: str) -> int | None:
        """Bytes, written as a number or like ``"64KiB"``."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            try:
                return parse_size(value)
            except ValueError as error:
                self.problem(key, f"{key}: {error}", f'write a whole number of bytes, or a size like {key} = "64KiB"')
                return None
        self.problem(key, f"{key} is {show_value(value)}, not a size", f'write {key} = "64KiB"')
        return None

    def count(self, key: str, least: int) -> int | None:
        """A whole number of at least *least*."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        hint = f"write {key} = {max(least, 2)}"
        self.problem(key, f"{key} is {show_value(value)}, not a whole number of at least {least}", hint)
        return None

    def mode(self, key: str) -> int | None:
        """Permission bits, written as ``"0640"`` or ``0o640``; a plain ``640`` is refused, for it means 0o1200."""
        value = self.take(key)
        if value is None:
            return None
        hint = f'write {key} = "0640" or {key} = 0o640'
        if isinstance(value, str):
            digits = value.removeprefix("0o")
            if digits and all(digit in "01234567" for digit in digits) and len(digits) <= 4:
                value = int(digits, 8)
            else:
                self.problem(key, f"{key} is {show_value(value)}, which are not octal permission bits", hint)
                return None
        elif not isinstance(value, int) or isinstance(value, bool) or not self._is_octal(key):
            self.problem(key, f"{key} is {show_value(value)}, which is not written in octal", hint)
            return None
        if value & ~_PERMISSIONS:
            self.problem(key, f"{key} {value:#o} has bits beside the permissions of user, group and others", hint)
            return None
        return int(value)

    def _is_octal(self, key: str) -> bool:
        return self.document.index.text(*self.place, key).startswith("0o")

    def uid(self, key: str = "uid") -> int | None:
        """A user: a number or a name of this machine."""
        return self._account(key, "user", lambda name: pwd.getpwnam(name).pw_uid)

    def gid(self, key: str = "gid") -> int | None:
        """A group: a number or a name of this machine."""
        return self._account(key, "group", lambda name: grp.getgrnam(name).gr_gid)

    def _account(self, key: str, noun: str, look_up: Any) -> int | None:
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 0xFFFFFFFF:
            return value
        if isinstance(value, str) and value.isascii() and value.isdigit() and int(value) < 0xFFFFFFFF:
            return int(value)
        if isinstance(value, str) and value:
            try:
                found: int = look_up(value)
            except (KeyError, ValueError):
                self.problem(
                    key,
                    f"there is no {noun} {show_value(value)} on this machine",
                    f"write a number, or a {noun} that exists",
                )
                return None
            return found
        self.problem(key, f"{key} is {show_value(value)}, not a {noun}", f"write the number or the name of a {noun}")
        return None

    def later(self, key: str, what: str) -> None:
        """A key that is known and not built yet; *what* is the subject of the sentence, with its verb."""
        if self.take(key) is not None:
            self.problem(key, f"{what} not in this release", f"remove {key}, or wait for a release that has it")

    def finish(self) -> None:
        """Complain about every key that nobody took."""
        for key in self._values:
            if key not in self._known:
                self.problem(
                    key, f"unknown key {show_value(key)} in {self.label}", choose_hint(key, sorted(self._known))
                )


def choose_hint(wrong: str, choices: Sequence[str]) -> str:
    """A hint: the nearest of *choices* if one is near, else all of them."""
    near = difflib.get_close_matches(wrong.lower(), choices, n=1)
    return f"did you mean {near[0]}?" if near else f"it can be {', '.join(choices)}"


def show_value(value: object) -> str:
    """*value* as one would write it in TOML, shortened, so that a message stays one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = value if isinstance(value, str) else str(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    text = "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
    return f'"{text}"' if isinstance(value, str) else text
