"""Nesting: whether a TOML text goes deeper than any configuration does, asked before anything parses it.

tomllib takes time and memory with the square of the parts of a dotted key, and calls itself for each bracket within a
bracket.  A few kilobytes from somebody else would keep a mount busy for minutes.
"""

from __future__ import annotations

import re

#: Dots in one key, and brackets within brackets.  A configuration needs 1 and 3.
MAX_DOTS = 16
MAX_BRACKETS = 16

#: What a text is made of, as far as this question goes.  A string without an end reaches as far as it can, so that no
#: alternative ever fails late: one pass takes time in proportion to the text.  DOTALL is for the multi-line strings.
_PIECE = re.compile(
    r"""
    (?P<pass> \#[^\n]*
            | \"{3} (?:\\.|.)*? (?:\"{3,5}|\Z)
            | '{3} .*? (?:'{3,5}|\Z) )
  | (?P<part> " (?:[^"\\\n]|\\[^\n])* "?
            | ' [^'\n]* '?
            | [^\s"'\#.,=\[\]{}]+
            | [\ \t]+ )
  | (?P<dot> \.)
  | (?P<open> [\[{])
  | (?P<close> [\]}])
  | (?P<break> .)
    """,
    re.VERBOSE | re.DOTALL,
)


def too_deep(text: str) -> int:
    """The first line (1-based) of *text* that is nested too deeply; 0 if there is none.

    *text* need not be TOML: up to where it stops being so, which is as far as a parser gets, the answer is right.
    """
    dots = brackets = 0
    for piece in _PIECE.finditer(text):
        kind = piece.lastgroup
        if kind == "part":  # of a key, which goes on
            continue
        dots = dots + 1 if kind == "dot" else 0
        if kind == "open":
            brackets += 1
        elif kind == "close":
            brackets -= 1
        if dots > MAX_DOTS or brackets > MAX_BRACKETS:
            return text.count("\n", 0, piece.start()) + 1
    return 0
