"""The registry of mounts: who is found, who is dead, and what somebody else may have put there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.control import runtime
from orionfs.control.runtime import Registration, find, register, unregister
from orionfs.errors import AccessRefused, InUse, NoDaemon, NotFound, UsageError

STARTED = "2026-11-20T17:48:03.250Z"


@pytest.fixture
def vault() -> Registration:
    return register(Path("/mnt/vault"), Path("/srv/store/orionfs.toml"), ("vault", "mirror"), STARTED)


@pytest.fixture
def other(living_process: int) -> Registration:
    """The mount of another living process."""
    return forge(Path("/mnt/other"), living_process, runtime.process_birth(living_process))


@pytest.fixture
def living_process() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def forge(mountpoint: Path, pid: int, birth: int, arrays: tuple[str, ...] = ("tank",)) -> Registration:
    """The record that the process *pid* would have made."""
    mine = register(mountpoint, Path("/srv/other/orionfs.toml"), arrays, STARTED)
    record = mine.socket.with_suffix(".json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": pid, "birth": birth}))
    return replace(mine, pid=pid, birth=birth)


def test_a_registered_mount_is_found_by_everything_that_names_it(vault: Registration):
    for target in (
        None,
        "/mnt/vault",
        "/srv/store/orionfs.toml",
        "/srv/store",
        "vault",
        "mirror",
        "/mnt/../mnt/vault/",
    ):
        assert find(target) == vault
    assert vault.alive
    assert vault.pid == os.getpid()


def test_record_and_folder_are_for_the_owner_only(vault: Registration, runtime_folder: Path):
    assert vault.socket == runtime.socket_path(Path("/mnt/vault"))
    assert vault.socket.with_suffix(".json").stat().st_mode & 0o777 == 0o600
    assert runtime_folder.stat().st_mode & 0o777 == 0o700


def test_an_unregistered_mount_is_gone(vault: Registration, runtime_folder: Path):
    unregister(vault)
    assert list(runtime_folder.iterdir()) == []
    with pytest.raises(NoDaemon, match="nothing is mounted"):
        find()


def test_the_only_mount_is_implied_and_one_of_several_is_not(vault: Registration, other: Registration):
    with pytest.raises(UsageError, match="several mounts match") as caught:
        find()
    assert "--mount DIR" in caught.value.hint
    assert find("tank") == other


def test_what_is_not_mounted_is_told_apart_from_nothing_being_mounted(vault: Registration):
    with pytest.raises(NotFound, match="no mount is called /mnt/x") as caught:
        find("/mnt/x")
    assert "/mnt/vault" in caught.value.hint
    unregister(vault)
    with pytest.raises(NoDaemon) as nothing:
        find("/mnt/x")
    assert nothing.value.exit_code == 6


def test_a_mount_whose_process_is_gone_is_stale(runtime_folder: Path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stale = forge(Path("/mnt/dead"), process.pid, 12345)
    assert not stale.alive
    assert runtime.living_mounts() == []
    with pytest.raises(NoDaemon, match=f"process {process.pid}\\) is gone") as caught:
        find("/mnt/dead")
    assert caught.value.hint == "orionctl mount /srv/other/orionfs.toml /mnt/dead"
    with pytest.raises(NoDaemon, match="is gone"):
        find()


def test_a_later_process_with_the_same_pid_is_another_one(living_process: int):
    birth = runtime.process_birth(living_process)
    assert birth > 0
    assert forge(Path("/mnt/a"), living_process, birth).alive
    assert not forge(Path("/mnt/b"), living_process, birth - 1).alive


def test_a_zombie_is_not_alive():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert runtime.process_birth(process.pid) == 0
    process.wait()


def test_a_place_that_another_living_process_serves_cannot_be_registered(other: Registration):
    with pytest.raises(InUse, match=f"served by process {other.pid}"):
        register(Path("/mnt/other"), Path("/srv/mine.toml"), (), STARTED)


def test_a_stale_record_is_replaced():
    forge(Path("/mnt/dead"), 2**22 + 5, 1)
    mine = register(Path("/mnt/dead"), Path("/srv/mine.toml"), ("new",), STARTED)
    assert find("new") == mine


def test_unregistering_leaves_the_record_of_a_successor(other: Registration):
    unregister(replace(other, pid=os.getpid(), birth=1))
    assert find("/mnt/other") == other


def test_a_folder_that_others_can_write_in_is_not_trusted(runtime_folder: Path, vault: Registration):
    runtime_folder.chmod(0o777)
    for action in (find, runtime.all_mounts, runtime.ensure_runtime_folder):
        with pytest.raises(AccessRefused, match="only this user can write"):
            action()


def test_a_symbolic_link_in_the_place_of_the_folder_is_not_trusted(
    tmp_path: Path, runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    link = tmp_path / "link"
    link.symlink_to(runtime_folder)
    monkeypatch.setenv("ORIONFS_RUNTIME_DIR", str(link))
    with pytest.raises(AccessRefused):
        runtime.ensure_runtime_folder()


def test_where_the_folder_is_depends_on_the_user(monkeypatch: pytest.MonkeyPatch):
    assert runtime.runtime_folder() == Path(os.environ["ORIONFS_RUNTIME_DIR"])
    monkeypatch.delenv("ORIONFS_RUNTIME_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime.runtime_folder() == Path("/run/orionfs")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert runtime.runtime_folder() == Path("/run/user/1000/orionfs")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime.runtime_folder() == Path("/tmp/orionfs-1000")


def test_a_folder_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORIONFS_RUNTIME_DIR", "/proc/orionfs")
    with pytest.raises(AccessRefused, match="cannot make the runtime folder") as caught:
        runtime.ensure_runtime_folder()
    assert caught.value.exit_code == 7


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
BROKEN = {"mountpoint": JSON, "spec": JSON, "socket": JSON, "started": JSON, "pid": JSON, "birth": JSON, "arrays": JSON}


@given(raw=st.binary(max_size=50) | st.fixed_dictionaries({}, optional=BROKEN).map(lambda v: json.dumps(v).encode()))
def test_a_record_with_anything_in_it_is_a_registration_or_has_a_reason(raw: bytes, tmp_path_factory):
    folder = Path(os.environ["ORIONFS_RUNTIME_DIR"])
    record = folder / "0123456789abcdef.json"
    record.write_bytes(raw)
    try:
        read = runtime.all_mounts()
        broken = runtime.unreadable_records()
        assert len(read) + len(broken) == 1
        assert all(reason for _record, reason in broken)
    finally:
        record.unlink()


def test_a_mountpoint_is_resolved_without_asking_what_is_mounted(tmp_path: Path):
    (tmp_path / "real" / "m").mkdir(parents=True)
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("folder/m")
    for name in ("link", "folder/m", "real/../folder/m"):
        assert runtime.resolve_mountpoint(tmp_path / name) == tmp_path / "real" / "m"
    (tmp_path / "loop").symlink_to("loop")
    assert runtime.resolve_mountpoint(tmp_path / "loop") == tmp_path / "loop"


def test_a_socket_with_a_long_path_can_be_reached(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "x.sock"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as client,
        runtime.short_address(path) as address,
    ):
        listener.bind(address)
        listener.listen()
        client.connect(address)
    assert path.is_socket()
