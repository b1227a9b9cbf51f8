"""Looks after the spares that several arrays share: whichever needs one first takes it."""

from __future__ import annotations

import argparse

from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Verb, add_verbs

EPILOG = "spares of one array alone: orionctl array add ARRAY DEVICE"

VERBS = (
    Verb("add", "make devices spares of all arrays with redundancy", "spare_verbs"),
    Verb("remove", "forget a spare that no array holds", "spare_verbs"),
    Verb("list", "list the spares that no array holds", "spare_verbs"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, output: Output) -> int:
    status: int = arguments.run(arguments, output)
    return status
