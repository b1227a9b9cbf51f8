"""The line index: for any TOML document, every key and every element is found on the line where it was written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.config.toml_lines import LineIndex

KEYS = st.sampled_from(["a", "b", "name", "x-1", "3", "on line", 'quo"te', "dot.ted", "#no", "[x]", "é", ""])
TEXTS = st.text(st.sampled_from(list("ab =[]{}#.,'\"\\\té")), max_size=12)


class Writer:
    """Renders a document and remembers on which line it wrote what."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[tuple[str | int, ...], int] = {}

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def put(self, text: str) -> None:
        self.text += text

    def gap(self, *, newlines: bool) -> None:
        """White space, and where they are allowed comments and line ends."""
        choices = ["", " ", "\t "] + (["\n", "\r\n", ' # it\'s [a] "comment"\n\n', "# x = 1\n "] if newlines else [])
        self.put(self.draw(st.sampled_from(choices)))

    def key(self, key: str) -> None:
        bare = key.isascii() and key.replace("-", "").isalnum()
        if bare and self.draw(st.booleans()):
            self.put(key)
        elif "'" not in key and self.draw(st.booleans()):
            self.put(f"'{key}'")
        else:
            escaped = key.replace("\\", "\\\\").replace('"', '\\"').replace("é", "\\u00e9")
            self.put(f'"{escaped}"')

    def pairs(self, path: tuple[str | int, ...], taken: set[str], *, inline: bool, depth: int) -> None:
        """Some ``key = value``; a dotted key now and then."""
        keys = self.draw(st.lists(KEYS, unique=True, max_size=3))
        written = 0
        for key in keys:
            if key in taken:
                continue
            taken.add(key)
            if inline and written:
                self.put(",")
                self.gap(newlines=False)
            written += 1
            if not inline:
                self.gap(newlines=True)
            here = (*path, key)
            self.lines[here] = self.line
            self.key(key)
            if self.draw(st.integers(0, 3)) == 0:
                self.gap(newlines=False)
                self.put(".")
                self.gap(newlines=False)
                here = (*here, "sub")
                self.lines[here] = self.line
                self.put("sub")
            self.gap(newlines=False)
            self.put("=")
            self.gap(newlines=False)
            self.value(here, inline=inline, depth=depth)
            self.gap(newlines=False)
            if not inline:
                self.put(self.draw(st.sampled_from(["\n", "\r\n", " # a = 2\n"])))

    def value(self, path: tuple[str | int, ...], *, inline: bool, depth: int) -> None:
        kinds = ["number", "basic", "literal", "lines"] + (["array", "table"] if depth else [])
        kind = self.draw(st.sampled_from(kinds))
        text = self.draw(TEXTS)
        if kind == "number":
            self.put(self.draw(st.sampled_from(["0", "0o640", "-1.5e3", "true", "1979-05-27 07:32:00", "inf"])))
        elif kind == "basic":
            self.put('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
        elif kind == "literal":
            self.put("'" + text.replace("'", "") + "'")
        elif kind == "lines":
            self.put('"""' + text.replace("\\", "\\\\").replace('"', '\\"') + '\n [[a]] \\""" x = 1\n""""')
        elif kind == "array":
            self.array(path, depth - 1)
        else:
            self.put("{")
            self.gap(newlines=False)
            self.pairs(path, set(), inline=True, depth=depth - 1)
            self.put("}")

    def array(self, path: tuple[str | int, ...], depth: int) -> None:
        self.put("[")
        count = self.draw(st.integers(0, 3))
        for index in range(count):
            self.gap(newlines=True)
            self.lines[(*path, index)] = self.line
            self.value((*path, index), inline=True, depth=depth)
            self.gap(newlines=True)
            if index + 1 < count or self.draw(st.booleans()):
                self.put(",")
        self.gap(newlines=True)
        self.put("]")


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str | int, ...], int]]:
    """A TOML document, and the line of each path in it."""
    writer = Writer(draw)
    writer.pairs((), {"array", "table"}, inline=False, depth=2)
    arrays = 0
    for position in range(draw(st.integers(0, 4))):
        writer.gap(newlines=True)
        line = writer.line
        kind = draw(st.sampled_from(["table", "array", "inner"]))
        path: tuple[str | int, ...]
        if kind == "array" or (kind == "inner" and not arrays):
            writer.put("[[ array ]]")
            path = ("array", arrays)
            writer.lines.setdefault(("array",), line)
            arrays += 1
        elif kind == "inner":
            writer.put(f'[array."deep {position}"]')
            path = ("array", arrays - 1, f"deep {position}")
        else:
            writer.put(f"[table . 't{position}']")
            path = ("table", f"t{position}")
            writer.lines.setdefault(("table",), line)
        writer.lines[path] = line
        writer.put(draw(st.sampled_from(["\n", "  # [b]\n"])))
        writer.pairs(path, set(), inline=False, depth=2)
    return writer.text, writer.lines


@given(documents())
def test_every_key_and_element_is_found_on_its_line(document: tuple[str, dict[tuple[str | int, ...], int]]):
    text, lines = document
    tomllib.loads(text)  # or the test itself is wrong
    index = LineIndex(text)
    assert {path: index.line(*path) for path in lines} == lines


def test_a_path_that_is_not_there_gets_the_line_around_it():
    index = LineIndex("x = 1\n[[array]]\nname = 'a'\n")
    assert index.line("array", 0, "level") == 2
    assert index.line("nothing") == 0


def test_the_text_of_a_plain_value_is_kept():
    index = LineIndex('mode = 0o640 # rw\nsize = "64KiB"\nlist = [0x10, 2]\n')
    assert index.text("mode") == "0o640"
    assert index.text("size") == '"64KiB"'
    assert index.text("list", 0) == "0x10"
    assert index.text("list") == ""


@pytest.mark.parametrize("end", ["", "\n"])
def test_the_last_line_may_end_without_a_line_end(end: str):
    assert LineIndex(f"a = 1\nb = 0o644{end}").text("b") == "0o644"
