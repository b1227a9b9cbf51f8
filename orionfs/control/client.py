"""Talking to a daemon.  Plain blocking sockets and the standard library, because a command must start at once."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from orionfs import errors
from orionfs.control.runtime import Registration, short_address
from orionfs.control.schema import MAX_ANSWER
from orionfs.errors import AccessRefused, NoDaemon, OrionError, TimedOut, TransportError

DEFAULT_TIMEOUT_S = 10.0


class ControlClient:
    """One connection to one daemon.  A context manager; for one thread."""

    def __init__(self, path: Path, *, whose: str = "", timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect to the socket *path*.  *whose* is what errors call the mount.

        Raises :class:`~orionfs.errors.NoDaemon` if nobody listens and :class:`~orionfs.errors.AccessRefused` if the
        socket is someone else's.
        """
        self._whose = whose or str(path)
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        self._rest = bytearray()
        try:
            with short_address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise self._translate(error) from error

    @classmethod
    def to(cls, mount: Registration, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ControlClient:
        """A connection to the daemon of *mount*."""
        return cls(mount.socket, whose=str(mount.mountpoint), timeout_s=timeout_s)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, verb: str, *, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Ask for *verb* and wait for the result.

        Raises what the daemon raised, :class:`~orionfs.errors.TimedOut` if it does not answer within *timeout_s*
        seconds (the connection is of no use then), :class:`~orionfs.errors.NoDaemon` if it goes away.
        """
        request = json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"
        self._socket.settimeout(self._timeout_s if timeout_s is None else timeout_s)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # turned away already: the reason waits to be read
                self._socket.sendall(request)
            line = self._read_line()
        except OSError as error:
            raise self._translate(error) from error
        return self._result(line)

    def _read_line(self) -> bytes:
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if searched > MAX_ANSWER:
                raise TransportError(f"the daemon of {self._whose} sent an answer without end")
            received = self._socket.recv(1 << 16)
            if not received:
                raise NoDaemon(f"the daemon of {self._whose} ended the connection", hint="orionctl doctor")
            self._rest += received
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        return line

    def _result(self, line: bytes) -> Any:
        try:
            answer = json.loads(line)
            if answer["ok"]:
                return answer["result"]
            error = answer["error"]
            kind, message, hint = str(error["kind"]), str(error["message"]), str(error["hint"])
        except (ValueError, KeyError, TypeError) as error:
            raise TransportError(f"the daemon of {self._whose} sent an answer that is not understood") from error
        raise error_of_kind(kind, message, hint)

    def _translate(self, error: OSError) -> OrionError:
        if isinstance(error, TimeoutError):
            message = f"the daemon of {self._whose} did not answer within {self._timeout_s:g} s"
            return TimedOut(message, hint="orionctl doctor")
        if isinstance(error, PermissionError):
            return AccessRefused(f"the mount {self._whose} belongs to another user", hint="become that user or root")
        return NoDaemon(f"no daemon answers for {self._whose}", hint="orionctl mount SPEC DIR")


def error_of_kind(kind: str, message: str, hint: str) -> OrionError:
    """The error that a daemon named by its class; one that this release does not know is an OrionError."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, OrionError):
        return found(message, hint=hint)
    return OrionError(message, hint=hint)
