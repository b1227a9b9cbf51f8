"""Making an array while the mount is there: from the arguments of a request to a running array."""

from __future__ import annotations

from typing import Any, cast

from orionfs.array.policies import COUNTS, SIZES, Consistency, parse_policy
from orionfs.config.edit import Edit
from orionfs.config.levels import normal_level
from orionfs.config.spec import ArraySpec
from orionfs.errors import UsageError
from orionfs.initialize import Step, initialize
from orionfs.manager import StorageManager
from orionfs.units import format_size


async def create_array(manager: StorageManager, arguments: dict[str, Any]) -> list[str]:
    """Declare the array that *arguments* describe, make its files and superblocks, and assemble it.

    What was done, in sentences.  Nothing is left behind by what is refused; the configuration is changed last but one.
    The caller holds :attr:`~orionfs.manager.StorageManager.changing`.
    """
    manager.check_writable()
    array = described(arguments)
    dry_run = bool(arguments.get("dry_run", False))

    def declare(edit: Edit) -> None:
        edit.add_array(array)

    spec = await manager.configuration.preview(declare)
    names = [array.name] if spec.array(array.name) is not None else []
    names += [part.name for part in spec.parts(array.name)]
    for name in names:
        manager.check_members_unused(spec, name)
    steps = await initialize(spec, manager.environment, dry_run=dry_run, only=names, running=manager.arrays)
    if not dry_run:
        await manager.edit(declare)
        await manager.start(names)
    return [sentence(step, dry_run=dry_run) for step in steps]


def described(arguments: dict[str, Any]) -> ArraySpec:
    """The array that *arguments* describe, as it is to be written; the configuration says what is wrong with it."""
    policies: dict[str, str | int] = {}
    for text in arguments.get("policies", []):
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{text} says nothing", hint="write it like read_policy=nearest")
        parsed = parse_policy(name, value)
        policies[name] = parsed if name in SIZES or name in COUNTS else value
    return ArraySpec(
        name=arguments["name"],
        level=normal_level(arguments["level"]) or arguments["level"],
        members=tuple(arguments["members"]),
        spares=tuple(arguments.get("spares", [])),
        write_mostly=tuple(arguments.get("write_mostly", [])),
        chunk=arguments.get("chunk"),
        layout=arguments.get("layout"),
        member_size=arguments.get("member_size"),
        groups=arguments.get("groups"),
        consistency=cast("Consistency | None", arguments.get("consistency")),
        bitmap=arguments.get("bitmap"),
        policies=policies,
    )


def sentence(step: Step, *, dry_run: bool) -> str:
    """One step for people."""
    size = f", {format_size(step.size)}" if step.size else ""
    done = "there already" if step.action == "exists" else "would be created" if dry_run else "created"
    return f"{step.kind} {step.name}: {done}{size}"
