"""A command that becomes a daemon: what its caller learns, and that it never waits for ever."""

import json
import os
import signal
import subprocess
import sys

import pytest

from orionfs.tools.background import PipeHerald, await_daemon, fork_daemon

#: Run in a process of its own, because a fork of pytest would be a second pytest.
_SCRIPT = """
import json, os, signal, sys
from orionfs.tools.background import *
pid, end = fork_daemon()
if pid == 0:
    herald = PipeHerald(end)
    {child}
    os._exit(3)
start = await_daemon(pid, end)
print(json.dumps(start))
"""


def start(child: str) -> list:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(child=child)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_usable_mount_lets_the_caller_go_while_the_daemon_goes_on():
    child = "herald.ready(['vault is degraded']); os.read(os.pipe()[0], 1)"
    script = _SCRIPT.format(child=child) + "os.kill(pid, signal.SIGTERM); os.waitpid(pid, 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["", 0, ["vault is degraded"]]


def test_a_refusal_comes_with_its_sentence_and_exit_status():
    assert start("herald.failed('vault is dirty and degraded', 5)") == ["vault is dirty and degraded", 5, []]


def test_only_the_first_word_counts():
    assert start("herald.failed('first', 5); herald.failed('second', 7); herald.ready([])") == ["first", 5, []]


def test_a_long_sentence_fits_through_the_pipe():
    error, status, _ = start("herald.failed('x' * 1_000_000, 8)")
    assert status == 8
    assert set(error) == {"x"}


@pytest.mark.parametrize(
    ("child", "how"),
    [("pass", "ended with status 3"), ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9")],
)
def test_a_daemon_that_dies_without_a_word_is_reported(child, how):
    assert start(child) == [f"the daemon {how} before the mount was usable", 8, []]


def test_a_caller_that_went_away_does_not_disturb_the_daemon():
    reader, writer = os.pipe()
    os.close(reader)
    PipeHerald(writer).ready([])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writer)


def test_an_interrupted_caller_takes_the_daemon_along(monkeypatch):
    pid, end = fork_daemon()
    if pid == 0:
        signal.pause()
        os._exit(0)

    class Interrupted:
        def __enter__(self):
            raise KeyboardInterrupt

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "fdopen", lambda *_: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        await_daemon(pid, end)
    os.close(end)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
