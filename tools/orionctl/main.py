"""``orionctl COMMAND``: what people and scripts see and change of mounts and configurations.

Starts at once: a command's module is imported only when it is the one that was asked for, and none of them imports the
event loop, the FUSE library or numpy unless it does a daemon's work itself (``init``).
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import ModuleType

from orionfs.errors import OrionError, UsageError
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import Parser, add_common

#: Every command: its module in this package, and one line of help.  Each module has ``add_arguments`` and ``run``.
COMMANDS: dict[str, str] = {
    "init": "make a configuration, its member files and its arrays",
    "mount": "mount a configuration on a folder",
    "unmount": "unmount; returns when the members are clean",
    "status": "what state everything is in, why, and what to do next",
    "list": "the objects of every mount",
    "show": "one object in full",
    "array": "make, stop and start arrays; change their members; check and repair them",
    "spare": "the spares that several arrays share",
    "attach": "make a loop device of an object",
    "detach": "take a loop device away",
    "events": "what happened",
    "config": "check or show a configuration",
    "doctor": "whether this machine is fit, and what was left behind",
    "version": "the version of this program and of the daemons",
}

_EPILOG = """\
exit status: 0 healthy, 1 degraded or rebuilding, 2 usage or configuration, 3 not found, 4 data errors,
5 refused, 6 no daemon, 7 permission, 8 I/O
"""


def run(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    if argv is None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as every filter does: `orionctl events | head` just ends
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    output = Output(json="--json" in words)
    try:
        return dispatch(words, output)
    except OrionError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def dispatch(words: Sequence[str], output: Output) -> int:
    """Find the command in *words*, parse the rest with its parser, run it."""
    top = Parser("orionctl", _overview(), _EPILOG)
    add_common(top)
    top.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    common = top.parse_args(words)
    if common.command is None:
        top.print_help()
        return 0
    if common.command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(common.command, COMMANDS, n=1)
        hint = f"did you mean orionctl {near[0]}?" if near else "see orionctl --help"
        raise UsageError(f"there is no command {common.command}", hint=hint)
    module = load(common.command)
    parser = command_parser(common.command, module)
    arguments = parser.parse_args(common.rest)
    for name in ("json", "mount"):  # both places are fine: orionctl --json status, orionctl status --json
        if not getattr(arguments, name, None):
            setattr(arguments, name, getattr(common, name))
    output.json = arguments.json
    status: int = module.run(arguments, output)
    return status


def load(command: str) -> ModuleType:
    """The module of *command*."""
    return importlib.import_module(f"orionfs.tools.orionctl.{command}")


def command_parser(command: str, module: ModuleType) -> Parser:
    """The parser of *command*, common options included."""
    parser = Parser(f"orionctl {command}", module.__doc__, getattr(module, "EPILOG", None))
    module.add_arguments(parser)
    add_common(parser)
    return parser


def _overview() -> str:
    lines = ["Looks after OrionFS mounts and configurations.", "", "commands:"]
    lines += [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join([*lines, "", "orionctl COMMAND --help tells more."])


if __name__ == "__main__":
    sys.exit(run())
