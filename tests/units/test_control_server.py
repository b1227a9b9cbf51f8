"""The control socket: requests and answers, hostile input, who is let in, and what is audited."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from orionfs import errors
from orionfs.clock import SystemClock
from orionfs.control.audit import AuditLog
from orionfs.control.client import ControlClient, error_of_kind
from orionfs.control.schema import MAX_REQUEST, VERBS, parse_request
from orionfs.control.server import MAX_CONNECTIONS, ControlServer, Peer
from orionfs.control.verb import Verb
from orionfs.environment import Environment
from orionfs.errors import (
    ConfigError,
    MediaError,
    NoDaemon,
    NotFound,
    OrionError,
    Refused,
    TimedOut,
    TransportError,
    UsageError,
)


class Daemon:
    """A server whose verbs a test can replace."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "x.sock"
        self.handlers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.audited: list[dict[str, Any]] = []
        self.noted = trio.Event()
        self.audit_error: OSError | None = None

    async def audit(self, record: dict[str, Any], *, durable: bool = False) -> None:
        if self.audit_error is not None:
            raise self.audit_error
        self.audited.append(record | ({"durable": True} if durable else {}))
        self.noted.set()

    def verbs(self) -> dict[str, Any]:
        def handler(name: str) -> Any:
            async def handle(arguments: dict[str, Any]) -> Any:
                await trio.lowlevel.checkpoint()
                result = self.handlers.get(name, lambda arguments: {"verb": name, **arguments})(arguments)
                return await result if hasattr(result, "__await__") else result

            return handle

        return {name: handler(name) for name in VERBS}

    async def call(self, verb: str, **arguments: Any) -> Any:
        return await trio.to_thread.run_sync(lambda: self.call_blocking(verb, **arguments))

    def call_blocking(self, verb: str, **arguments: Any) -> Any:
        with ControlClient(self.path, whose="/mnt/o", timeout_s=5.0) as client:
            return client.call(verb, **arguments)

    async def send(self, raw: bytes) -> bytes:
        """Everything that is answered to *raw*."""
        stream = await trio.open_unix_socket(str(self.path))
        async with stream:
            try:
                await stream.send_all(raw)
                await stream.send_eof()
            except (trio.BrokenResourceError, OSError):
                pass  # turned away already; the answer is there to be read
            answer = b""
            try:
                while more := await stream.receive_some(1 << 16):
                    answer += more
            except trio.BrokenResourceError:
                pass  # the server closed without reading all of it
            return answer


@pytest.fixture
async def daemon(runtime_folder: Path, nursery: trio.Nursery) -> AsyncIterator[Daemon]:
    daemon = Daemon(runtime_folder)
    server = ControlServer(daemon.path, daemon.verbs(), audit=daemon.audit, clock=SystemClock())
    await nursery.start(server.run)
    yield daemon
    nursery.cancel_scope.cancel()


async def test_a_request_gets_the_result_of_its_verb(daemon: Daemon):
    assert await daemon.call("show", object="vault") == {"verb": "show", "object": "vault"}


async def test_one_connection_carries_many_requests(daemon: Daemon):
    def talk() -> list[Any]:
        with ControlClient(daemon.path) as client:
            return [client.call("events", since=number)["since"] for number in range(20)]

    assert await trio.to_thread.run_sync(talk) == list(range(20))


async def test_an_answer_may_be_long(daemon: Daemon):
    daemon.handlers["metrics"] = lambda _arguments: "x" * 3_000_000
    assert len(await daemon.call("metrics")) == 3_000_000


async def test_the_socket_is_for_the_owner_only_and_goes_with_the_server(runtime_folder: Path):
    daemon = Daemon(runtime_folder)
    daemon.path.write_text("left by a daemon that was killed")
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(daemon.path, daemon.verbs(), audit=daemon.audit, clock=SystemClock()).run)
        assert daemon.path.stat().st_mode & 0o777 == 0o600
        nursery.cancel_scope.cancel()
    assert not daemon.path.exists()


def test_a_server_needs_a_handler_for_every_verb(runtime_folder: Path):
    daemon = Daemon(runtime_folder)
    with pytest.raises(ValueError, match="no handler for status"):
        ControlServer(daemon.path, {n: h for n, h in daemon.verbs().items() if n != "status"}, audit=None, clock=None)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NotFound, Refused, MediaError, errors.InUse, errors.ReadOnly])
async def test_an_error_arrives_as_it_was_raised(daemon: Daemon, kind: type[OrionError]):
    def fail(_arguments: dict[str, Any]) -> Any:
        raise kind("the vault is gone", hint="look under the bed")

    daemon.handlers["show"] = fail
    with pytest.raises(kind) as caught:
        await daemon.call("show", object="vault")
    assert (caught.value.message, caught.value.hint) == ("the vault is gone", "look under the bed")


async def test_the_place_of_a_configuration_error_arrives_too(daemon: Daemon):
    def fail(_arguments: dict[str, Any]) -> Any:
        raise ConfigError("bad", hint="mend", path="/store/orionfs.toml", line=7)

    daemon.handlers["config"] = fail
    with pytest.raises(ConfigError) as caught:
        await daemon.call("config")
    assert str(caught.value) == "/store/orionfs.toml:7: bad; mend"


async def test_a_handler_that_crashes_ends_only_its_request(daemon: Daemon, expected_logs):
    expected_logs("a control request failed in a way that nobody foresaw")
    daemon.handlers["list"] = lambda _arguments: 1 // 0
    with pytest.raises(OrionError, match="failed to answer") as caught:
        await daemon.call("list")
    assert caught.value.exit_code == 8
    assert await daemon.call("ping") == {"verb": "ping"}


async def test_a_result_that_is_no_json_ends_only_its_request(daemon: Daemon, expected_logs):
    expected_logs("nobody foresaw")
    daemon.handlers["list"] = lambda _arguments: {1, 2}
    with pytest.raises(OrionError, match="failed to answer"):
        await daemon.call("list")


def test_an_error_of_an_unknown_kind_is_an_error_all_the_same():
    for kind in ("Elsewhere", "TABLE", "outcome_of", "__name__", ""):
        assert type(error_of_kind(kind, "message", "")) is OrionError


# --- hostile input ---------------------------------------------------------------------------------------------------

HOSTILE = [
    b"\n\n  \nhello\n",
    b"\xff\xfe\x00\n",
    b"[]\n",
    b"42\n",
    b"{}\n",
    b'{"verb": 7}\n',
    b'{"verb": "format"}\n',
    b'{"verb": "status", "arguments": [1]}\n',
    b'{"verb": "status", "arguments": {"x": 1}}\n',
    b'{"verb": "status", "extra": 1}\n',
    b'{"verb": "show"}\n',
    b'{"verb": "show", "arguments": {"object": 5}}\n',
    b'{"verb": "show", "arguments": {"object": "' + b"x" * 5000 + b'"}}\n',
    b'{"verb": "events", "arguments": {"since": -1}}\n',
    b'{"verb": "events", "arguments": {"since": true}}\n',
    b'{"verb": "events", "arguments": {"since": 1e3}}\n',
    b'{"verb": "events", "arguments": {"wait_s": 61}}\n',
    b"[" * 60000 + b"\n",
    b'{"verb": "ping", "arguments": {"n": ' + b"9" * 60000 + b"}}\n",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=lambda raw: repr(raw[:40]))
async def test_hostile_input_is_answered_with_a_sentence(daemon: Daemon, raw: bytes):
    answer = json.loads((await daemon.send(raw)).splitlines()[0])
    assert answer["ok"] is False
    assert answer["error"]["kind"] == "UsageError"
    assert answer["error"]["exit_code"] == 2
    assert "\n" not in answer["error"]["message"]
    assert await daemon.call("ping") == {"verb": "ping"}


async def test_a_request_without_end_is_cut_off(daemon: Daemon):
    answer = await daemon.send(b"x" * (MAX_REQUEST * 4))
    assert b"longer than 65536 bytes" in answer
    assert await daemon.call("ping") == {"verb": "ping"}


async def test_a_request_of_the_greatest_length_is_served(daemon: Daemon):
    request = b'{"verb": "ping"}'
    answer = await daemon.send(request.rjust(MAX_REQUEST - 1) + b"\n")
    assert json.loads(answer) == {"ok": True, "result": {"verb": "ping"}}


async def test_half_a_request_is_no_request(daemon: Daemon):
    assert await daemon.send(b'{"verb": "ping"}') == b""
    assert daemon.audited == []


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*VERBS]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["verb", "arguments", "object", "since"]), inner, max_size=3),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_line_is_a_request_or_a_usage_error(line: bytes):
    try:
        verb, arguments = parse_request(line)
    except UsageError:
        return
    assert verb.name in VERBS
    assert set(arguments) <= {argument.name for argument in verb.arguments}


async def test_a_slow_request_holds_up_nobody_else(daemon: Daemon, nursery: trio.Nursery):
    release = trio.Event()
    results: list[Any] = []

    async def slow() -> str:
        await release.wait()
        return "slow"

    async def ask() -> None:
        results.append(await daemon.call("status"))

    daemon.handlers["status"] = lambda _arguments: slow()
    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        assert await daemon.call("ping") == {"verb": "ping"}
        assert results == []
        release.set()
    assert results == ["slow"]


async def test_a_client_that_does_not_wait_for_its_answer_harms_nobody(daemon: Daemon):
    started, release = trio.Event(), trio.Event()

    async def wait() -> str:
        started.set()
        await release.wait()
        return "x" * 5_000_000

    daemon.handlers["metrics"] = lambda _arguments: wait()
    stream = await trio.open_unix_socket(str(daemon.path))
    await stream.send_all(b'{"verb": "metrics"}\n')
    await started.wait()
    await stream.aclose()
    release.set()
    await daemon.noted.wait()
    assert await daemon.call("ping") == {"verb": "ping"}


async def test_too_many_connections_are_turned_away(daemon: Daemon):
    streams = [await trio.open_unix_socket(str(daemon.path)) for _ in range(MAX_CONNECTIONS)]
    for stream in streams:  # each is known to be served before the next one comes
        await stream.send_all(b'{"verb": "ping"}\n')
        assert json.loads(await stream.receive_some(1000))["ok"]
    assert b"are open already" in await daemon.send(b'{"verb": "ping"}\n')
    for stream in streams:
        await stream.aclose()


# --- who is let in ---------------------------------------------------------------------------------------------------


async def test_another_user_is_refused(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, expected_logs):
    expected_logs("control request of user")
    monkeypatch.setattr(Peer, "allowed", property(lambda _peer: False))
    with pytest.raises(errors.AccessRefused) as caught:
        await daemon.call("ping")
    assert caught.value.exit_code == 7
    assert daemon.audited == []


@pytest.mark.parametrize(("uid", "allowed"), [(0, True), (1000, True), (1001, False)])
def test_the_owner_and_root_are_let_in(uid: int, allowed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    peer = object.__new__(Peer)
    peer.pid, peer.uid, peer.gid = 1, uid, uid
    assert peer.allowed is allowed


async def test_the_kernel_says_who_asks(daemon: Daemon):
    await daemon.call("ping")
    await daemon.noted.wait()
    assert (daemon.audited[0]["pid"], daemon.audited[0]["uid"]) == (os.getpid(), os.geteuid())


# --- audit -----------------------------------------------------------------------------------------------------------


async def test_every_request_is_audited_also_those_that_fail(daemon: Daemon):
    async def audited(count: int) -> None:
        while len(daemon.audited) < count:
            daemon.noted = trio.Event()
            await daemon.noted.wait()

    await daemon.call("show", object="vault")
    await daemon.send(b"nonsense\n")
    with trio.fail_after(5):
        await audited(2)
    first, second = daemon.audited
    assert (first["verb"], first["arguments"], first["ok"]) == ("show", {"object": "vault"}, True)
    assert second["ok"] is False
    assert "not a line of JSON" in second["error"]


async def test_looking_goes_on_without_an_audit_log_and_is_warned_about_once(
    daemon: Daemon, expected_logs, caplog: pytest.LogCaptureFixture
):
    expected_logs("the audit log cannot be written: No space left")
    daemon.audit_error = OSError(28, "No space left on device")
    answers = await daemon.send(b'{"verb": "ping"}\n' * 3)  # one after the other: all but the last are noted by now
    assert answers.count(b'"ok": true') == 3
    assert caplog.text.count("audit log") == 1


async def test_a_change_is_audited_before_it_is_made(daemon: Daemon, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(VERBS, "ping", Verb("ping", "now it changes something", changes=True))
    daemon.handlers["ping"] = lambda _arguments: list(daemon.audited)
    (before,) = await daemon.call("ping")
    assert before["begun"] is True
    assert before["durable"] is True


async def test_a_change_that_cannot_be_audited_is_not_made(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, expected_logs
):
    expected_logs("the audit log cannot be written")
    monkeypatch.setitem(VERBS, "ping", Verb("ping", "now it changes something", changes=True))
    made: list[bool] = []
    daemon.handlers["ping"] = lambda _arguments: made.append(True)
    daemon.audit_error = OSError(28, "No space left on device")
    with pytest.raises(Refused, match="No space left"):
        await daemon.call("ping")
    assert made == []


async def test_the_audit_log_is_lines_of_json_and_turns_over(tmp_path: Path):
    path = tmp_path / "state" / "audit.log"
    log = AuditLog(path, Environment(), max_size=200)
    for number in range(5):
        await log.append({"number": number, "text": "é\n\ud800"}, durable=True)
    log.close()
    lines = path.with_name("audit.log.1").read_text().splitlines()
    numbers = [json.loads(line)["number"] for line in lines]
    rest = [json.loads(line)["number"] for line in path.read_text().splitlines()] if path.exists() else []
    assert (numbers + rest)[-1] == 4
    assert path.with_name("audit.log.1").stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_an_audit_log_in_a_folder_that_cannot_be_made_raises(tmp_path: Path):
    (tmp_path / "state").write_text("a file")
    log = AuditLog(tmp_path / "state" / "audit.log", Environment())
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        await log.append({})
    log.close()


# --- the client ------------------------------------------------------------------------------------------------------


def test_no_daemon_is_told_with_what_to_do(runtime_folder: Path):
    with pytest.raises(NoDaemon) as caught:
        ControlClient(runtime_folder / "none.sock", whose="/mnt/o")
    assert str(caught.value) == "no daemon answers for /mnt/o; orionctl mount SPEC DIR"
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", NoDaemon),
        (b"{}\n", TransportError),
        (b"nonsense\n", TransportError),
        (b'{"ok": false}\n', TransportError),
        (b'{"ok": false, "error": {"kind": "X"}}\n', TransportError),
        (None, TimedOut),
    ],
)
def test_a_daemon_that_answers_nonsense_or_nothing_is_an_error(runtime_folder: Path, answer: bytes | None, kind):
    path = runtime_folder / "odd.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with ControlClient(path, timeout_s=0.2) as client:
            connection, _ = listener.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                with pytest.raises(kind) as caught:
                    client.call("ping")
    assert "\n" not in str(caught.value)
