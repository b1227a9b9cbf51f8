"""What a daemon would do, done without one: making an array in a configuration that is not mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orionfs.config.edit import Edit, new_text
from orionfs.config.load import examine_text
from orionfs.config.spec import ArraySpec, Spec
from orionfs.control.array_creation import described, sentence
from orionfs.environment import Environment
from orionfs.errors import UsageError
from orionfs.initialize import initialize


async def create_array(file: Path, request: dict[str, Any]) -> list[str]:
    """Declare the array of *request* (the arguments of ``array.create``) in *file*, and make what is missing of it.

    A file that is not there is made.  What was done, in sentences.
    """
    environment = Environment()
    array = described(request)
    dry_run = bool(request["dry_run"])
    is_new = not file.exists()  # noqa: ASYNC240 - nobody else runs on this event loop
    spec = _preview(file, array, is_new=is_new)
    names = [each.name for each in spec.arrays if array.name in (each.name, each.part_of)]
    steps = await initialize(spec, environment, dry_run=True, only=names)
    if not dry_run:
        steps = await initialize(spec, environment, only=names)
        _write(file, array, environment, is_new=is_new)
    done = [sentence(step, dry_run=dry_run) for step in steps]
    return [f"configuration {file}: {'would be created' if dry_run else 'created'}", *done] if is_new else done


def _preview(file: Path, array: ArraySpec, *, is_new: bool) -> Spec:
    """The configuration as it would be.  Raises if it would not be valid."""
    if not is_new:
        edit = Edit(file)
        edit.add_array(array)
        return edit.check()
    spec, problems = examine_text(new_text(array), file)
    if spec is None:
        raise UsageError(problems[0].message, hint=problems[0].hint)
    return spec


def _write(file: Path, array: ArraySpec, environment: Environment, *, is_new: bool) -> None:
    if is_new:
        environment.hostfs.make_folder(file.parent, 0o755)
        environment.hostfs.replace(file, new_text(array).encode(), 0o644)
        return
    edit = Edit(file)
    edit.add_array(array)
    edit.write(environment.hostfs)
