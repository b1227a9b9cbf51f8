"""Makes a configuration, its member files and its arrays.

If PATH has a configuration already, only what it declares and is missing is made.  Data that is there is never touched;
run again it changes nothing.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from orionfs.config.array_table import name_problem
from orionfs.config.levels import base_of, layouts_of, level_names, normal_level
from orionfs.config.load import examine_text, load_spec
from orionfs.config.spec import DEFAULT_CHUNK, MAX_MEMBERS, SPEC_NAME, ArraySpec, Spec
from orionfs.errors import UsageError, from_oserror
from orionfs.hostfs import SystemHostFs
from orionfs.tools.orionctl.output import Output
from orionfs.tools.orionctl.parsing import size
from orionfs.units import MIB, format_size

EPILOG = """\
examples:
  orionctl init demo                                  a RAID 5 of four sparse files of 256 MiB in the folder demo
  orionctl init demo --level raid1 --size 1GiB        a mirror
  orionctl init demo --level raid6 --spares 1         a RAID 6 with a spare that takes over by itself
  orionctl init demo/mirror.toml --level mirror       a configuration under a name of its own
"""

#: How many members an array gets unless --members says, if it is not four.
_USUAL_MEMBERS = {"linear": 2, "jbod": 2, "raid1": 2, "raid1e": 3, "raid50": 6, "raid60": 8}
_CHOICES = ("name", "level", "members", "spares", "size", "chunk", "layout")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a folder, or a .toml file")
    group = parser.add_argument_group("for a new configuration")
    group.add_argument("--name", help="of the array (vault)")
    group.add_argument("--level", help=f"{', '.join(level_names())} (raid5)")
    group.add_argument("--members", type=int, metavar="N", help="how many member files (4; 2 for raid1, 8 for raid60)")
    group.add_argument("--spares", type=int, metavar="N", help="how many files that take over where one is lost (0)")
    group.add_argument("--size", type=size, metavar="SIZE", help="of each member file; it is sparse (256MiB)")
    group.add_argument("--chunk", type=size, metavar="SIZE", help="bytes that one member holds in a row (64KiB)")
    group.add_argument("--layout", help="of raid5: left-symmetric and others; of raid10: n2, f2, o2 and others")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be made")


def run(arguments: argparse.Namespace, output: Output) -> int:
    file = _file(arguments.path)
    if os.path.lexists(file):
        _refuse_choices(arguments, file)
        spec, text = load_spec(file), ""
    else:
        spec, text = _new_spec(arguments, file)
    steps: list[dict[str, Any]] = []
    if text:
        _initialize(spec, dry_run=True)  # so that what is refused leaves no configuration behind
        steps.append(_step("created", "configuration", str(file)))
        if not arguments.dry_run:
            _write(file, text)
    steps += _initialize(spec, dry_run=arguments.dry_run)
    text = "\n".join(_line(step, arguments.dry_run) for step in steps)
    output.result("init", {"path": str(file), "dry_run": arguments.dry_run, "steps": steps}, text)
    return 0


def _initialize(spec: Spec, *, dry_run: bool) -> list[dict[str, Any]]:
    import trio  # heavy, and only this command does a daemon's work

    from orionfs.environment import Environment
    from orionfs.initialize import initialize

    async def work() -> list[dict[str, Any]]:
        done = await initialize(spec, Environment(), dry_run=dry_run)
        return [_step(step.action, step.kind, step.name, step.size) for step in done]

    return trio.run(work)


def _step(action: str, kind: str, name: str, size: int = 0) -> dict[str, Any]:
    return {"action": action, "kind": kind, "name": name, "size": size}


def _line(step: dict[str, Any], dry_run: bool) -> str:
    size = f", {format_size(step['size'])}" if step["size"] else ""
    done = "there already" if step["action"] == "exists" else "would be created" if dry_run else "created"
    return f"{step['kind']} {step['name']}: {done}{size}"


def _file(text: str) -> Path:
    path = Path(os.path.abspath(text))  # noqa: PTH100 (symbolic links stay)
    if path.suffix == ".toml" and not path.is_dir():
        return path
    if os.path.lexists(path) and not path.is_dir():
        return path  # some other name for a configuration
    return path / SPEC_NAME


def _refuse_choices(arguments: argparse.Namespace, file: Path) -> None:
    given = [name for name in _CHOICES if getattr(arguments, name) is not None]
    if given:
        message = f"{file} is there already, so --{given[0]} has no effect"
        raise UsageError(message, hint="leave it out, or edit the file, or remove it first")


def _new_spec(arguments: argparse.Namespace, file: Path) -> tuple[Spec, str]:
    """The configuration that the options describe, and its text.  Raises UsageError."""
    from orionfs.config.edit import new_text  # slow, and not needed to say --help

    array = _array(arguments, file)
    text = new_text(array)
    spec, problems = examine_text(text, file)
    if spec is None:
        raise UsageError(problems[0].message, hint=problems[0].hint)
    return spec, text


def _array(arguments: argparse.Namespace, file: Path) -> ArraySpec:
    name = arguments.name if arguments.name is not None else "vault"
    problem = name_problem(name)
    if problem:
        raise UsageError(problem, hint="choose letters, digits, dots, dashes and underscores")
    level = normal_level(arguments.level if arguments.level is not None else "raid5")
    if level is None:
        raise UsageError(f"there is no level {arguments.level}", hint=f"it can be {', '.join(level_names())}")
    count = arguments.members if arguments.members is not None else _USUAL_MEMBERS.get(level, 4)
    spares = arguments.spares if arguments.spares is not None else 0
    if not 1 <= count <= MAX_MEMBERS:
        raise UsageError(f"{count} is not a possible number of members")
    if not 0 <= spares <= MAX_MEMBERS:
        raise UsageError(f"{spares} is not a possible number of spares")
    layouts = layouts_of(level)
    if arguments.layout is not None and arguments.layout not in layouts:
        hint = f"it can be {', '.join(layouts)}" if layouts else "leave --layout out"
        raise UsageError(f"{level} has no layout {arguments.layout}", hint=hint)
    chunk = arguments.chunk
    base = base_of(level)
    if chunk is None and base is not None and base.chunked:
        chunk = DEFAULT_CHUNK
    folder = "members" if file.name == SPEC_NAME else f"{file.stem}-members"
    return ArraySpec(
        name=name,
        level=level,
        members=tuple(f"{folder}/d{number}.img" for number in range(count)),
        spares=tuple(f"{folder}/s{number}.img" for number in range(spares)),
        chunk=chunk,
        layout=arguments.layout,
        member_size=arguments.size if arguments.size is not None else 256 * MIB,
    )


def _write(file: Path, text: str) -> None:
    hostfs = SystemHostFs()
    try:
        hostfs.make_folder(file.parent, 0o755)
        hostfs.replace(file, text.encode(), 0o644)
    except OSError as error:
        raise from_oserror(error, f"write {file}") from error
