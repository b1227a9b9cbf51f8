"""From a command to a daemon: fork before anything heavy, and let the caller wait until the mount is usable.

The parent stays only to tell the end of the story: it returns when the child says that the mount is usable, or why it
is not.  Nothing may have started a thread before :func:`fork_daemon`.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from orionfs.errors import OrionError

_MAX_MESSAGE = 1 << 16


class Herald(Protocol):
    """Tells the caller how the start went.  Only the first word counts."""

    def ready(self, notes: Sequence[str]) -> None:
        """The mount is usable; *notes* are sentences that the user should read all the same."""

    def failed(self, message: str, exit_code: int) -> None:
        """There will be no mount; *message* is one sentence."""


class PipeHerald:
    """In the daemon: tells the waiting parent, then closes the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ready(self, notes: Sequence[str]) -> None:
        self._tell({"notes": list(notes)})

    def failed(self, message: str, exit_code: int) -> None:
        self._tell({"error": message[: _MAX_MESSAGE // 8], "exit_code": exit_code})

    def _tell(self, message: dict[str, object]) -> None:
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.write(descriptor, json.dumps(message).encode())  # below PIPE_BUF or into an empty pipe: whole
        except BrokenPipeError:
            pass  # whoever asked is gone; the mount is there all the same
        finally:
            os.close(descriptor)


class Start(NamedTuple):
    """How the start of a daemon went.  ``error`` is empty if the mount is usable."""

    error: str
    exit_code: int
    notes: tuple[str, ...]


def fork_daemon() -> tuple[int, int]:
    """Fork.  In the child ``(0, writer)``, in the parent ``(pid, reader)``: the two ends of one pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    os.close(reader if pid == 0 else writer)
    return (0, writer) if pid == 0 else (pid, reader)


def leave_caller(keep: int) -> None:
    """In the child: a session of its own, in the root folder, with no file of the caller but *keep*.

    A daemon that kept the caller's output open would keep a pipe behind ``mount`` from ever ending.
    """
    os.setsid()
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    highest = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, keep)
    os.closerange(keep + 1, highest)
    os.set_inheritable(keep, False)


def await_daemon(pid: int, reader: int) -> Start:
    """In the parent: wait for the word of the child *pid*.  Interrupted, it ends the child, too, and raises again."""
    try:
        with os.fdopen(reader, "rb") as pipe:
            raw = pipe.read(_MAX_MESSAGE)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    message: dict[str, Any] = json.loads(raw) if raw else {"error": ""}
    if "error" not in message:
        return Start("", 0, tuple(message["notes"]))
    # When this returns the members are unlocked again: wait for the end of the child.
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not raw:
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return Start(f"the daemon {how} before the mount was usable", OrionError("").exit_code, ())
    return Start(message["error"], message["exit_code"], ())
