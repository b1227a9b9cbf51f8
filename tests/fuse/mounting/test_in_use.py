"""What is in use is named and left alone."""

import os

import pytest

from .kit import MOUNT, UMOUNT, await_end, daemon_pid, mounted, one_line, read, state

pytestmark = pytest.mark.fuse


def test_a_busy_mount_is_not_unmounted_and_its_user_is_named(store, place, run):
    run(MOUNT, store, place)
    with (place / "arrays" / "vault").open("rb"):
        done = run(UMOUNT, place, check=False)
        assert done.returncode == 5
        line = one_line(done, "umount.orionfs")
        assert f"[{os.getpid()}] ({place}/arrays/vault)" in line
        assert "umount -l" in line
        assert read(place, 1) == b"\0"  # it goes on
    run(UMOUNT, place)


@pytest.mark.root
def test_loop_devices_over_a_mount_are_named(store, place, run):
    run(MOUNT, store, place)
    loop = run("losetup", "--find", "--show", place / "arrays" / "vault").stdout.strip()
    try:
        done = run(UMOUNT, place, check=False)
        assert done.returncode == 5
        assert f"{loop} ({place}/arrays/vault)" in one_line(done, "umount.orionfs")
    finally:
        run("losetup", "-d", loop)
    run(UMOUNT, place)


def test_a_lazy_unmount_detaches_at_once_and_the_daemon_ends_with_its_last_user(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    with (place / "arrays" / "vault").open("r+b", buffering=0) as file:
        run(UMOUNT, "-l", place)
        assert mounted(place) is None
        file.write(b"last words")
    await_end(pid)
    assert state(store) == ["clean"] * 3


@pytest.mark.root
def test_a_bind_mount_keeps_it_alive_and_unmounting_says_so(store, place, run, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    run("mount", "--bind", place, again)
    assert f"still mounted at {again}" in run(UMOUNT, place).stderr
    run("umount", "-i", again)
    await_end(pid)


def test_members_are_locked_while_they_are_mounted(store, place, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    run(MOUNT, store, place)
    done = run(MOUNT, store, other, check=False)
    assert done.returncode == 5
    assert "d0.img" in one_line(done)
    assert mounted(other) is None
    assert read(place, 1) == b"\0"
