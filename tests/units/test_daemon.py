"""The start and the end of a daemon when something goes wrong: one sentence, an exit status, and nothing registered."""

import os
import signal
from pathlib import Path

import pytest
import trio

from orionfs.config.load import load_spec
from orionfs.control.runtime import all_mounts
from orionfs.errors import MediaError, OrionError, Refused
from orionfs.manager import StorageManager
from orionfs.tools import daemon
from orionfs.tools.options import MountOptions
from orionfs.tools.request import MountRequest
from orionfs.tools.unmounting import failure_note

SPEC = '[[array]]\nname = "vault"\nlevel = "raid1"\nmembers = ["a.img", "b.img"]\n'


class Listener:
    """A herald that remembers."""

    def __init__(self):
        self.words: list[object] = []

    def ready(self, notes):
        self.words.append(("ready", notes))

    def failed(self, message, exit_code):
        self.words.append((message, exit_code))


@pytest.fixture
def request_(tmp_path: Path):
    (tmp_path / "orionfs.toml").write_text(SPEC)
    (tmp_path / "mnt").mkdir()
    before = signal.getsignal(signal.SIGHUP)
    yield MountRequest("spec", load_spec(tmp_path), SPEC, str(tmp_path / "mnt"), MountOptions())
    signal.signal(signal.SIGHUP, before)


def opening(monkeypatch, action):
    async def open_instead(*_args, **_options):
        await trio.lowlevel.checkpoint()
        return await action()

    monkeypatch.setattr(StorageManager, "open", open_instead)


def test_a_refusal_is_told_as_it_is(monkeypatch, request_):
    async def refuse():
        raise Refused("vault is dirty and degraded", hint="-o force insists")

    opening(monkeypatch, refuse)
    listener = Listener()
    assert daemon.serve(request_, listener) == 5
    assert listener.words == [("vault is dirty and degraded; -o force insists", 5)]
    assert all_mounts() == []


def test_what_nobody_foresaw_is_logged_with_its_traceback_and_told_in_a_sentence(
    monkeypatch, request_, expected_logs, caplog
):
    expected_logs("internal error")

    async def fail():
        raise ZeroDivisionError("oops")

    opening(monkeypatch, fail)
    listener = Listener()
    assert daemon.serve(request_, listener) == 8
    assert listener.words == [("the daemon met an internal error; its log has the details", 8)]
    assert "ZeroDivisionError: oops" in caplog.text
    assert all_mounts() == []


def test_a_bug_beside_a_refusal_is_not_hidden_by_it(monkeypatch, request_, expected_logs):
    expected_logs("internal error")

    async def both():
        raise ExceptionGroup("two", [Refused("one"), ValueError("other")])

    opening(monkeypatch, both)
    assert daemon.serve(request_, Listener()) == 8


def test_a_signal_before_the_mount_is_usable_ends_it(monkeypatch, request_):
    async def never():
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    opening(monkeypatch, never)
    listener = Listener()
    assert daemon.serve(request_, listener) == 130
    assert listener.words == [("a signal ended it before the mount was usable", 130)]
    assert all_mounts() == []


def test_a_failure_after_the_start_is_left_for_the_one_who_unmounts(
    monkeypatch, request_, expected_logs, runtime_folder
):
    expected_logs("cannot write superblock")

    async def run(self):
        self.usable = True
        await trio.lowlevel.checkpoint()
        raise MediaError("cannot write superblock of a.img: Input/output error")

    monkeypatch.setattr(daemon._Daemon, "run", run)
    assert daemon.serve(request_, Listener()) == OrionError("").exit_code
    assert failure_note(request_.mountpoint).read_text() == "cannot write superblock of a.img: Input/output error"
    assert failure_note(request_.mountpoint).parent == runtime_folder
