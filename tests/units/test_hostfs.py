"""SystemHostFs: whole files, whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from orionfs.hostfs import SystemHostFs


@pytest.fixture
def trace(monkeypatch):
    """The durability-relevant calls, in order: (call, path)."""
    calls = []

    def where(descriptor):
        return Path(f"/proc/self/fd/{descriptor}").resolve()

    def fsync(descriptor, call=os.fsync):
        calls.append(("fsync", where(descriptor)))
        call(descriptor)

    def rename(self, target, call=Path.replace):
        calls.append(("rename", Path(target)))
        return call(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    return calls


def test_a_file_is_written_aside_synced_renamed_and_its_folder_synced(tmp_path, trace):
    path = tmp_path / "state.json"
    SystemHostFs().replace(path, b"one")
    assert [call for call, _ in trace] == ["fsync", "rename", "fsync"]
    assert trace[0][1] != path, "the old contents stay until the new ones are durable"
    assert trace[1:] == [("rename", path), ("fsync", tmp_path)]
    assert SystemHostFs().read(path) == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_whole_and_has_the_mode_that_was_asked_for(tmp_path):
    path = tmp_path / "state.json"
    host = SystemHostFs()
    host.replace(path, b"a long first text")
    host.replace(path, b"short", mode=0o644)
    assert host.read(path) == b"short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_failed_replacement_leaves_the_old_contents(tmp_path, monkeypatch, call):
    path = tmp_path / "state.json"
    host = SystemHostFs()
    host.replace(path, b"old")

    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space"):
            host.replace(path, b"new")
    assert host.read(path) == b"old"
    host.replace(path, b"new")
    assert host.read(path) == b"new"


def test_what_was_left_aside_by_a_crash_is_in_nobodys_way(tmp_path):
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.new").write_bytes(b"half of something that was much longer")
    SystemHostFs().replace(path, b"new")
    assert SystemHostFs().read(path) == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        SystemHostFs().read(tmp_path / "missing")


def test_folders_are_made_with_their_parents_and_each_name_is_synced(tmp_path, trace):
    path = tmp_path / "a" / "b"
    SystemHostFs().make_folder(path)
    assert path.is_dir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert trace == [("fsync", tmp_path), ("fsync", tmp_path / "a")]
    trace.clear()
    SystemHostFs().make_folder(path)
    assert trace == []
