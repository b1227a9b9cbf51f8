"""What a verb of the control socket is, and what an argument of one."""

from __future__ import annotations

from typing import Literal, NamedTuple

#: The longest text, in characters, and the longest list of texts.
MAX_TEXT = 4096
MAX_TEXTS = 1024

Kind = Literal["text", "texts", "count", "flag"]


class Argument(NamedTuple):
    """One argument of a verb: a text, a list of texts, a count of 0 to ``most``, or a flag that is true or false."""

    name: str
    kind: Kind
    required: bool = False
    most: int = 2**63 - 1


class Verb(NamedTuple):
    """What the daemon can be asked.  ``changes``: it alters something, so it is audited before it is carried out."""

    name: str
    summary: str
    arguments: tuple[Argument, ...] = ()
    changes: bool = False
