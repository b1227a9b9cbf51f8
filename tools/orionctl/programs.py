"""Running other programs: our own siblings, and those of the system."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from orionfs.errors import MediaError, NotFound

#: Where administration programs are that a user's PATH may not have.
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"


def sibling(name: str, module: str) -> list[str]:
    """How to start our program *name*: the one beside this program, beside the interpreter, on PATH, or its module.

    Raises :class:`~orionfs.errors.NotFound` if it is nowhere.
    """
    for folder in (Path(sys.argv[0]).parent, Path(sys.executable).parent):
        candidate = folder.absolute() / name
        if os.access(candidate, os.X_OK):
            return [str(candidate)]
    found = which(name)
    if found:
        return [found]
    if importlib.util.find_spec(module) is None:
        raise NotFound(f"the program {name} is not installed", hint="install orionfs again")
    return [sys.executable, "-m", module]


def which(name: str) -> str | None:
    """The path of the program *name*, also if it lies where only root usually looks."""
    return shutil.which(name) or shutil.which(name, path=_SYSTEM_FOLDERS)


def required(name: str, package: str) -> str:
    """As :func:`which`; raises :class:`~orionfs.errors.NotFound` with the Debian package that has it."""
    found = which(name)
    if found is None:
        raise NotFound(f"the program {name} is not installed", hint=f"apt install {package}")
    return found


def capture(command: Sequence[str], timeout_s: float = 10.0) -> tuple[int, str]:
    """Run *command* and wait; its exit status and all that it printed.

    Raises :class:`~orionfs.errors.MediaError` if it does not end within *timeout_s* seconds.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise MediaError(f"{command[0]} did not end within {timeout_s:g} s", hint="orionctl doctor") from error
    return done.returncode, done.stdout.decode(errors="backslashreplace").strip()
