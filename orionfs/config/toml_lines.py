"""On which line of a TOML document each key and each array element stands.

tomllib gives values without places, and an error in the configuration has to name its line.  This is not a parser: it
walks over a document that tomllib has already accepted and only notes where things begin.
"""

from __future__ import annotations

from typing import NamedTuple

#: A place inside the document: table keys and array indices, as one would subscript the parsed document.
Path = tuple[str | int, ...]

_BARE_ENDS = frozenset(" \t\r\n=.,]}#")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}


class Place(NamedTuple):
    """Where a key or an element begins (1-based line), and the text of its value if that is a plain one."""

    line: int
    text: str = ""


class LineIndex:
    """The places of one document."""

    def __init__(self, document: str) -> None:
        """*document* must be TOML that tomllib accepts; for anything else the answers mean nothing."""
        self._places: dict[Path, Place] = {}
        _Walk(document.replace("\r\n", "\n"), self._places).document()

    def line(self, *path: str | int) -> int:
        """The line of *path*, or of the nearest thing around it that is in the document; 0 if there is nothing."""
        while path:
            place = self._places.get(path)
            if place is not None:
                return place.line
            path = path[:-1]
        return 0

    def text(self, *path: str | int) -> str:
        """How the plain value at *path* is written (``0o640``, ``"64KiB"``); empty for tables and arrays."""
        place = self._places.get(path)
        return place.text if place else ""


class _Walk:
    """One pass over a document, from left to right."""

    def __init__(self, text: str, places: dict[Path, Place]) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._places = places
        self._lengths: dict[Path, int] = {}  # of the arrays of tables

    def document(self) -> None:
        table: Path = ()
        while self._skip_blank():
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        line = self._here()
        of_array = self._text.startswith("[[", self._at)
        self._at += 2 if of_array else 1
        keys = self._keys("]")
        self._at += 2 if of_array else 1
        table: Path = ()
        for position, key in enumerate(keys):
            table = (*table, key)
            self._note(table, line)
            length = self._lengths.get(table, 0)
            if of_array and position == len(keys) - 1:
                self._lengths[table] = length + 1
                table = (*table, length)
                self._note(table, line)
            elif length:
                table = (*table, length - 1)  # [a.b] speaks of the last [[a]]
        self._note(table, line)
        return table

    def _pair(self, table: Path) -> None:
        line = self._here()
        for key in self._keys("="):
            table = (*table, key)
            self._note(table, line)
        self._at += 1
        self._skip_blank()
        self._value(table)

    def _keys(self, end: str) -> list[str]:
        """The parts of a dotted key; leaves off at *end*, which follows it."""
        keys: list[str] = []
        while True:
            self._skip_blank()
            character = self._text[self._at]
            if character == end:
                return keys
            if character == ".":
                self._at += 1
            elif character in "\"'":
                keys.append(self._string())
            else:
                keys.append(self._bare())

    def _value(self, path: Path) -> None:
        """Walk over the value that begins here, noting what is inside it under *path*."""
        character = self._text[self._at]
        if character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            begin = self._at
            if character in "\"'":
                self._string()
            else:
                self._scalar()
            self._places[path] = self._places[path]._replace(text=self._text[begin : self._at].rstrip())

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip_blank()
            character = self._text[self._at]
            if character == "]":
                self._at += 1
                return
            if character == ",":
                self._at += 1
                continue
            element: Path = (*path, index)
            self._note(element, self._here())
            self._value(element)
            index += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while True:
            self._skip_blank()
            character = self._text[self._at]
            if character == "}":
                self._at += 1
                return
            if character == ",":
                self._at += 1
                continue
            self._pair(path)

    def _bare(self) -> str:
        begin = self._at
        while self._text[self._at] not in _BARE_ENDS:
            self._at += 1
        return self._text[begin : self._at]

    def _scalar(self) -> None:
        """A number, boolean or date: up to a comma, a bracket, a comment or the end of the line."""
        while self._at < len(self._text) and self._text[self._at] not in ",]}#\n":
            self._at += 1

    def _string(self) -> str:
        """The string that begins here; its contents, with escapes resolved only as far as keys need."""
        quote = self._text[self._at]
        if self._text.startswith(quote * 3, self._at):
            self._multiline_string(quote)
            return ""  # never a key
        self._at += 1
        parts = []
        while (character := self._text[self._at]) != quote:
            self._at += 1
            parts.append(self._escape() if character == "\\" and quote == '"' else character)
        self._at += 1
        return "".join(parts)

    def _multiline_string(self, quote: str) -> None:
        self._at += 3
        while not self._text.startswith(quote * 3, self._at):
            self._at += 2 if self._text[self._at] == "\\" and quote == '"' else 1
        self._at += 3
        while self._text.startswith(quote, self._at):  # up to two quotes may stand before the closing three
            self._at += 1

    def _escape(self) -> str:
        letter = self._text[self._at]
        self._at += 1
        digits = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
        if not digits:
            return _ESCAPES[letter]
        code = self._text[self._at : self._at + digits]
        self._at += digits
        return chr(int(code, 16))

    def _skip_blank(self) -> bool:
        """Pass over white space, line ends and comments; False at the end of the document."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif character in " \t\r\n":
                self._at += 1
            else:
                return True
        return False

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _note(self, path: Path, line: int) -> None:
        self._places.setdefault(path, Place(line))
