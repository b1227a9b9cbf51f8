"""How commands speak: text for people, JSON for programs, errors as one sentence."""

from __future__ import annotations

import json as json_codec
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from orionfs.errors import OrionError
from orionfs.monitor.status_text import plain


class Output:
    """Where a command writes.  ``json`` is what the user asked for."""

    def __init__(self, json: bool = False) -> None:
        self.json = json

    @property
    def color(self) -> bool:
        """Whether standard output is a terminal that wants colors (https://no-color.org)."""
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def result(self, noun: str, values: Mapping[str, Any], text: str) -> None:
        """Print *values* as schema ``orionfs.NOUN/1``, or *text* for people."""
        if self.json:
            print(json_codec.dumps({"schema": f"orionfs.{noun}/1", **values}, indent=2))
        elif text:
            print(text.rstrip("\n"))

    def line(self, noun: str, values: Mapping[str, Any], text: str) -> None:
        """As :meth:`result`, one line for each call (NDJSON), sent at once."""
        print(json_codec.dumps({"schema": f"orionfs.{noun}/1", **values}) if self.json else text, flush=True)

    def note(self, text: str) -> None:
        """Something for the person at the terminal, never part of the result."""
        print(f"orionctl: {plain(text)}", file=sys.stderr)

    def error(self, error: OrionError) -> None:
        """Say why the command failed; with JSON also as an object."""
        self.note(str(error))
        if self.json:
            details = {
                "kind": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
            print(json_codec.dumps({"schema": "orionfs.error/1", "error": details}, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """An aligned table; the columns in *right* are numbers and stand to the right."""
    cells = [[plain(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)
