"""The files of ``.orionfs`` under real programs."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess

import pytest

pytestmark = pytest.mark.fuse


def test_cat_wc_and_tail_agree_on_a_document(vault, run):
    assert run("cat", vault.control / "status").stdout == "all is well at event 0\n"
    assert run("wc", "-c", vault.control / "status").stdout.split()[0] == "23"
    assert run("tail", "-c", "8", vault.control / "status").stdout == "event 0\n"


def test_a_document_larger_than_one_read_is_whole(vault, run, tmp_path):
    expected = b"0123456789abcdef" * 20000
    assert (vault.control / "long").read_bytes() == expected
    run("cp", vault.control / "long", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == expected
    assert (vault.control / "long").stat().st_size == len(expected)


def test_each_open_sees_the_present_and_keeps_it(vault):
    with (vault.control / "status").open() as early:
        vault.ask("emit", kind="test.happened", subject="vault", message="it did")
        with (vault.control / "status").open() as late:
            assert late.read() == "all is well at event 1\n"
            assert os.fstat(late.fileno()).st_size == 23
        assert early.read() == "all is well at event 0\n"


@pytest.mark.parametrize("name", ["status", "events", "config.toml"])
def test_writing_is_refused_with_eacces_also_for_root(name, vault, run):
    path = vault.control / name
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(OSError, match=r".") as caught:
            os.open(path, flags)
        assert caught.value.errno == errno.EACCES
    assert "Permission denied" in run("sh", "-c", f"echo x > {path}", check=False).stderr
    for change in (lambda: os.truncate(path, 0), lambda: path.chmod(0o777), lambda: os.utime(path)):
        with pytest.raises(OSError, match=r".") as caught:
            change()
        assert caught.value.errno == errno.EACCES


def test_ls_shows_the_whole_tree(vault, run):
    listing = run("ls", "-laR", vault.mountpoint).stdout
    for name in ("arrays", "vault", ".orionfs", "status", "config.toml", "events"):
        assert name in listing
    assert run("find", vault.mountpoint, "-type", "f").stdout.count("\n") == 5


def test_cat_of_the_events_ends_and_has_all_of_them(vault, run):
    for number in range(3):
        vault.ask("emit", kind="test.happened", subject="vault", message=f"for the {number}th time")
    lines = run("cat", vault.control / "events").stdout.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]
    assert run("tail", "-n", "1", vault.control / "events").stdout == lines[-1] + "\n"


def test_the_size_of_the_events_grows_with_each_of_them_at_once(vault):
    path = vault.control / "events"
    sizes = [path.stat().st_size]
    for _ in range(3):
        vault.ask("emit", kind="test.happened", subject="vault", message="it did")
        sizes.append(path.stat().st_size)
    assert sizes[0] == 0
    assert sizes == sorted(set(sizes))
    assert len(path.read_bytes()) == sizes[-1]


@pytest.mark.parametrize("wait", ["poll", "epoll", "select"])
def test_whoever_waits_for_events_is_woken_by_one(wait, vault):
    vault.ask("emit", kind="test.happened", subject="vault", message="before")
    descriptor = os.open(vault.control / "events", os.O_RDONLY)
    try:
        assert ready(wait, descriptor, 5)
        assert json.loads(os.read(descriptor, 4096))["sequence"] == 1
        for sequence in (2, 3):
            assert os.read(descriptor, 4096) == b""
            assert not ready(wait, descriptor, 0)
            process = subprocess.Popen(["sleep", "0.2"])  # so that we are waiting when it happens
            waiting = WaitInThread(wait, descriptor)
            process.wait()
            assert not waiting.done()
            vault.ask("emit", kind="test.happened", subject="vault", message="now")
            assert waiting.result()
            assert json.loads(os.read(descriptor, 4096))["sequence"] == sequence
    finally:
        os.close(descriptor)


def ready(wait, descriptor, timeout_s):
    """Whether *descriptor* becomes readable within *timeout_s*, by the system call *wait*."""
    if wait == "select":
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    poller = select.poll() if wait == "poll" else select.epoll()
    poller.register(descriptor, select.POLLIN)
    found = poller.poll(timeout_s * 1000 if wait == "poll" else timeout_s)
    if wait == "epoll":
        poller.close()
    return found == [(descriptor, select.POLLIN)]


class WaitInThread:
    """:func:`ready`, meanwhile."""

    def __init__(self, wait, descriptor):
        from concurrent.futures import ThreadPoolExecutor

        self.executor = ThreadPoolExecutor(1)
        self.future = self.executor.submit(ready, wait, descriptor, 10)

    def done(self):
        return self.future.done()

    def result(self):
        try:
            return self.future.result(timeout=15)
        finally:
            self.executor.shutdown()


def test_tail_follows_the_events(vault):
    vault.ask("emit", kind="test.happened", subject="vault", message="one")
    with subprocess.Popen(
        ["tail", "-n", "+1", "-s", "0.1", "-f", vault.control / "events"], stdout=subprocess.PIPE, text=True
    ) as tail:
        assert json.loads(tail.stdout.readline())["message"] == "one"
        for message in ("two", "three"):
            vault.ask("emit", kind="test.happened", subject="vault", message=message)
            assert json.loads(tail.stdout.readline())["message"] == message
        tail.terminate()
