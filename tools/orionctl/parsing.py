"""Parsers of commands: how mistakes are told, and what every command takes."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn

from orionfs.errors import UsageError
from orionfs.tools.orionctl.output import Output
from orionfs.units import parse_size


def _plain(prog: str) -> argparse.HelpFormatter:
    """Text as it is written; of a fixed width, because asking the terminal for its own costs a slow import."""
    return argparse.RawDescriptionHelpFormatter(prog, width=100)


class Parser(argparse.ArgumentParser):
    """argparse that reports a mistake as the one sentence that every other error is."""

    def __init__(self, prog: str, description: str | None = None, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, formatter_class=_plain, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def add_common(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """What every command takes; *again* for the verbs of one, whose silence must not undo what stood before them."""
    default: dict[str, Any] = {"default": argparse.SUPPRESS} if again else {}
    group = parser.add_argument_group("for every command")
    group.add_argument("--json", action="store_true", help="print one JSON object with a schema version", **default)
    group.add_argument("-m", "--mount", metavar="DIR", help="which mount, if there are several", **default)


class Verb(NamedTuple):
    """One verb of a noun: a line of help, and the module of this package whose ``VERBS`` has it by its name.

    There it is a function that adds its arguments to a parser, and one that carries it out (the exit status).
    """

    name: str
    help: str
    module: str


#: What a module says of a verb.
Actions = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace, Output], int]]


class _VerbParser(Parser):
    """Knows its arguments only when it is the one that is asked: the modules of all others are not imported."""

    def __init__(self, prog: str, description: str, load: Callable[[], Actions]) -> None:
        super().__init__(prog, description)
        self._load: Callable[[], Actions] | None = load

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._load is not None:
            add_arguments, run = self._load()
            self._load = None
            add_arguments(self)
            self.set_defaults(run=run)
            add_common(self, again=True)
        return super().parse_known_args(args, namespace)


def add_verbs(parser: argparse.ArgumentParser, verbs: Sequence[Verb]) -> None:
    """Have *parser* take one of *verbs* and its arguments; ``run`` of what it returns carries it out."""
    choices = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_VerbParser, title="verbs")
    for verb in verbs:
        choices.add_parser(verb.name, help=verb.help, description=_sentence(verb.help), load=partial(_load, verb))


def _load(verb: Verb) -> Actions:
    actions: Actions = importlib.import_module(f"orionfs.tools.orionctl.{verb.module}").VERBS[verb.name]
    return actions


def no_arguments(_parser: argparse.ArgumentParser) -> None:
    """For a verb that takes nothing but what all take."""


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def size(text: str) -> int:
    """An argument that is a size."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """``--dry-run`` and ``--yes``, for what makes people think twice."""
    add_dry_run(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
