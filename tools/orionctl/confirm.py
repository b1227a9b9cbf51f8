"""Asking before something is done that is not easily undone."""

from __future__ import annotations

import argparse
import sys

from orionfs.errors import Refused


def confirm(arguments: argparse.Namespace, question: str) -> None:
    """Return if the user says yes to *question*, has said ``--yes``, or nothing is going to happen (``--dry-run``).

    Raises :class:`~orionfs.errors.Refused` otherwise, also if there is nobody to ask.
    """
    if arguments.yes or arguments.dry_run:
        return
    if not sys.stdin.isatty():
        raise Refused(f"this has to be confirmed: {question}", hint="say --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was changed")
