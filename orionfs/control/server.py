"""The control socket of a daemon: who may ask, what they asked, and one line of answer, whatever was sent.

Hostile input is answered with an error; it never ends the daemon and never holds up another connection.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import trio

from orionfs.clock import Clock
from orionfs.control.runtime import short_address
from orionfs.control.schema import MAX_REQUEST, VERBS, parse_request
from orionfs.control.verb import Verb
from orionfs.errors import AccessRefused, OrionError, Refused, UsageError
from orionfs.monitor.timestamps import rfc3339

logger = logging.getLogger("orionfs")

#: What carries out the verbs: each gets checked arguments and returns a JSON value.
Verbs = Mapping[str, Callable[[dict[str, Any]], Awaitable[Any]]]

#: Connections served at once; more are turned away with a sentence.
MAX_CONNECTIONS = 64
#: A connection that sends nothing for this long is closed.
IDLE_LIMIT_S = 300.0

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Audit(Protocol):
    """Takes note of requests; see :meth:`orionfs.control.audit.AuditLog.append`."""

    async def __call__(self, record: dict[str, Any], *, durable: bool = False) -> None: ...


class Peer:
    """Who is at the other end, as the kernel says."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, connection: trio.socket.SocketType) -> None:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, self.gid = _CREDENTIALS.unpack(raw)

    @property
    def allowed(self) -> bool:
        """The user that the daemon runs as, and root."""
        return self.uid in (0, os.geteuid())


class ControlServer:
    """Answers requests on one Unix socket."""

    def __init__(self, path: Path, verbs: Verbs, *, audit: Audit, clock: Clock) -> None:
        """*path* lies in a folder that only this user can enter.  *verbs* has a handler for each of the schema's."""
        missing = VERBS.keys() - verbs.keys()
        if missing:
            raise ValueError(f"no handler for {', '.join(sorted(missing))}")
        self._path = path
        self._verbs = verbs
        self._audit = audit
        self._audit_works = True
        self._clock = clock
        self._connections = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; the socket file is there from *task_status* on and gone afterwards."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listen()))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve, [listener])
                task_status.started()
        finally:
            listener.socket.close()
            self._path.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        self._path.unlink(missing_ok=True)  # left behind by a daemon that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            with short_address(self._path) as address:
                listener.bind(address)
            self._path.chmod(0o600)
            listener.listen(MAX_CONNECTIONS)
        except BaseException:
            listener.close()
            raise
        return listener

    async def _serve(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("a control client went away without waiting for its answer")
        finally:
            self._connections -= 1

    async def _converse(self, stream: trio.SocketStream) -> None:
        peer = Peer(stream.socket)
        if not peer.allowed:
            logger.warning("control request of user %d (process %d) refused", peer.uid, peer.pid)
            await _refuse(stream, AccessRefused("this mount belongs to another user", hint="become that user or root"))
            return
        if self._connections > MAX_CONNECTIONS:
            message = f"{MAX_CONNECTIONS} control connections are open already"
            await _refuse(stream, Refused(message, hint="close some, then try again"))
            return
        received = bytearray()
        while (line := await self._next_line(stream, received)) is not None:
            if len(line) > MAX_REQUEST:
                await _refuse(stream, UsageError(f"the request is longer than {MAX_REQUEST} bytes"))
                return
            if line.strip():
                answer, record = await self._answer(line, peer)
                try:
                    await stream.send_all(answer)
                finally:
                    await self._note(record)  # after the answer: a slow state folder delays nobody

    async def _next_line(self, stream: trio.SocketStream, received: bytearray) -> bytes | None:
        """The next line, or an over-long beginning of one; None at the end of the input or after a long silence."""
        with trio.move_on_after(IDLE_LIMIT_S):
            searched = 0
            while (end := received.find(b"\n", searched)) < 0:
                searched = len(received)
                if searched > MAX_REQUEST:
                    return bytes(received)
                more = await stream.receive_some(MAX_REQUEST)
                if not more:
                    return None
                received += more
            line = bytes(received[: end + 1])
            del received[: end + 1]
            return line
        return None

    async def _answer(self, line: bytes, peer: Peer) -> tuple[bytes, dict[str, Any]]:
        """The answer to one request and its record for the audit log: the outer wrapper of every handler."""
        record: dict[str, Any] = {"time": rfc3339(self._clock.wall_ns()), "pid": peer.pid, "uid": peer.uid}
        failure: OrionError
        try:
            verb, arguments = parse_request(line)
            record |= {"verb": verb.name, "arguments": arguments}
            result = await self._carry_out(verb, arguments, record)
            return json.dumps({"ok": True, "result": result}).encode() + b"\n", record | {"ok": True}
        except OrionError as error:
            failure = error
        except Exception:
            logger.exception("a control request failed in a way that nobody foresaw")
            failure = OrionError("the daemon failed to answer, and wrote why to its log")
        return _refusal(failure), record | {"ok": False, "error": str(failure)}

    async def _carry_out(self, verb: Verb, arguments: dict[str, Any], record: dict[str, Any]) -> Any:
        if verb.changes:
            try:
                await self._audit(record | {"begun": True}, durable=True)
            except OSError as error:
                message = (
                    f"the audit log cannot be written ({error.strerror or error}), and unaudited changes are not made"
                )
                raise Refused(message, hint="make room or mend the permissions of the state folder") from error
        return await self._verbs[verb.name](arguments)

    async def _note(self, record: dict[str, Any]) -> None:
        """Audit a request that is done.  Looking at things must go on when the disk is full, so failing is no error."""
        try:
            await self._audit(record)
        except OSError as error:
            if self._audit_works:
                logger.warning("the audit log cannot be written: %s", error.strerror or error)
            self._audit_works = False
        else:
            self._audit_works = True


async def _refuse(stream: trio.SocketStream, error: OrionError) -> None:
    await stream.send_all(_refusal(error))


def _refusal(error: OrionError) -> bytes:
    details = {
        "kind": type(error).__name__,
        "message": str(error).removesuffix(f"; {error.hint}"),  # with file and line, if it has them
        "hint": error.hint,
        "exit_code": error.exit_code,
    }
    return json.dumps({"ok": False, "error": details}).encode() + b"\n"
