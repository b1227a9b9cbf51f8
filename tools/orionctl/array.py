"""Looks after arrays: makes, stops and starts them, changes their members, checks and repairs them.

MEMBER is what the configuration calls a member, the last part of that (d2.img), or its slot (2).
"""

from __future__ import annotations

import argparse

from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Verb, add_verbs

EPILOG = """\
examples:
  orionctl array create vault --level raid6 --size 1G members/d{0,1,2,3,4,5}.img --spare members/s0.img
  orionctl array replace vault d2.img members/new.img --wait
  orionctl array check vault --wait
  orionctl array set vault rebuild_ceiling=100M
"""


VERBS = (
    Verb("create", "declare an array, make its files and superblocks, and assemble it", "array_create"),
    Verb("assemble", "start an array that was stopped, or added to the configuration", "array_changes"),
    Verb("stop", "close an array; its members are clean and free then", "array_changes"),
    Verb("add", "make devices spares of an array; they take over where a member is missing", "array_changes"),
    Verb("fail", "take a member out of service", "array_changes"),
    Verb("remove", "forget a failed member or a spare", "array_changes"),
    Verb("replace", "copy a member to a spare or a new device, which takes its place", "array_changes"),
    Verb("re-add", "take a former member back; only what it missed is copied", "array_changes"),
    Verb("clear", "forget the error counters of an array", "array_changes"),
    Verb("set", "change policies, now and in the configuration", "array_changes"),
    Verb("check", "compare all copies and parity; count and list what does not agree", "array_jobs"),
    Verb("repair", "check, and rewrite the one copy or member that is wrong", "array_jobs"),
    Verb("pause", "let the array's background jobs wait", "array_jobs"),
    Verb("resume", "let them go on", "array_jobs"),
    Verb("cancel", "forget the checks and repairs that were asked for", "array_jobs"),
    Verb("list", "list the arrays of every mount", "array_views"),
    Verb("show", "show an array in full: members, policies, jobs, scrub", "array_views"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verbs(parser, VERBS)


def run(arguments: argparse.Namespace, output: Output) -> int:
    status: int = arguments.run(arguments, output)
    return status
