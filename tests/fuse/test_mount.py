"""Mounting, unmounting and what the kernel is told."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from orionfs.fuse import tuning
from orionfs.tools.mountinfo import mount_at, read_mounts

pytestmark = pytest.mark.fuse


def test_a_mount_is_usable_when_it_says_so_and_gone_after_umount(vault):
    assert vault.first == {"result": "ready"}
    assert sorted(entry.name for entry in vault.mountpoint.iterdir()) == [".orionfs", "arrays"]
    assert vault.unmount() == 0
    assert mount_at(read_mounts(), str(vault.mountpoint)) is None


def test_the_kernel_knows_our_type_and_source_and_checks_permissions(vault):
    mount = mount_at(read_mounts(), str(vault.mountpoint))
    assert mount.type == "fuse.orionfs"
    assert mount.source == "test, spec\\ é"
    assert "default_permissions" in mount.super_options
    assert {"nosuid", "nodev"} <= set(mount.options)


def test_it_can_be_mounted_again_at_once(mount):
    for _ in range(3):
        mounted = mount({"name": "vault"})
        assert (mounted.arrays / "vault").stat().st_size == 16 << 20
        assert mounted.unmount() == 0


def test_the_daemon_can_end_the_mount_by_itself(vault):
    vault.ask("terminate")
    assert vault.wait() == 0
    assert mount_at(read_mounts(), str(vault.mountpoint)) is None


def test_a_busy_mount_is_detached_when_the_daemon_ends(vault):
    descriptor = os.open(vault.arrays / "vault", os.O_RDWR)
    vault.ask("terminate")
    assert vault.wait() == 0
    assert mount_at(read_mounts(), str(vault.mountpoint)) is None
    with pytest.raises(OSError, match="not connected"):
        os.pread(descriptor, 512, 0)
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)


def test_umount_says_busy_while_a_file_is_open_and_the_mount_stays(vault, run):
    with (vault.arrays / "vault").open("rb") as file:
        done = run("umount", "-i", vault.mountpoint, check=False)
        assert "busy" in done.stderr
        assert file.read(4) == b"\0" * 4
    assert vault.unmount() == 0


def test_a_read_only_mount_refuses_in_the_kernel(mount):
    mounted = mount({"name": "vault"}, options={"read_only": True})
    with pytest.raises(OSError, match="Read-only"):
        os.open(mounted.arrays / "vault", os.O_WRONLY)
    with pytest.raises(OSError, match="Read-only"):
        (mounted.arrays / "vault").chmod(0o644)


def test_a_folder_that_is_not_there_is_one_sentence(mount, tmp_path):
    (tmp_path / "gone").mkdir()
    mounted = mount({"name": "vault"}, at="gone/../gone")  # the daemon resolves it before it mounts
    assert mounted.first == {"result": "ready"}
    assert mounted.unmount() == 0


def test_a_mount_that_the_kernel_refuses_is_one_sentence(mount):
    mounted = mount({"name": "vault"}, options={"kernel": ["no_such_option"]})
    error = mounted.first["error"]
    assert error["exit_code"] in (7, 8)
    assert "no_such_option" in error["text"]
    assert "\n" not in error["text"]
    assert mounted.wait() == 0


@pytest.mark.root
def test_the_kernel_is_tuned_and_no_mount_of_fusectl_is_left(vault):
    major, minor = tuning.device_number(Path("/proc/self/mountinfo").read_text(), vault.mountpoint)
    assert Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").read_text().strip() == "1024"
    before = read_mounts()
    with tuning._connections() as folder:
        connection = folder / str(minor)
        assert (connection / "max_background").read_text().strip() == "64"
        assert (connection / "congestion_threshold").read_text().strip() == "48"
    assert read_mounts() == before


@pytest.mark.root
def test_allow_other_lets_others_in_by_mode_and_owner(mount, run, tmp_path):
    mounted = mount({"name": "open", "mode": 0o644}, {"name": "vault"}, options={"allow_other": True})
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    other = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    read = ("dd", "of=/dev/null", "count=1")
    assert run(*other, *read, f"if={mounted.arrays}/open").returncode == 0
    assert "Permission denied" in run(*other, *read, f"if={mounted.arrays}/vault", check=False).stderr
    assert "Permission denied" in run(*other, "sh", "-c", f"echo x >> {mounted.arrays}/open", check=False).stderr
    assert run(*other, "cat", mounted.control / "status").stdout.startswith("all is well")
    assert "Permission denied" in run(*other, "cat", mounted.control / "config.toml", check=False).stderr
    assert "Permission denied" in run(*other, "touch", mounted.arrays / "new", check=False).stderr


@pytest.mark.root
def test_without_allow_other_nobody_else_gets_in(vault, run, tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    done = run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "ls", vault.mountpoint, check=False)
    assert "Permission denied" in done.stderr


def test_statfs_has_a_block_size_since_loop_discards_in_it(vault):
    found = os.statvfs(vault.mountpoint)
    assert found.f_bsize == found.f_frsize == 4096
    assert found.f_blocks == (16 << 20) // 4096
    assert found.f_namemax == 255


def test_a_stuck_device_does_not_keep_others_waiting(mount):
    mounted = mount({"name": "stuck"}, {"name": "vault"})
    mounted.ask("stall", name="stuck", operation="read")
    readers = [
        subprocess.Popen(
            ["dd", f"if={mounted.arrays}/stuck", "of=/dev/null", "bs=4k", "count=1", f"skip={place}", "status=none"]
        )
        for place in range(0, 3000, 300)
    ]
    started = time.monotonic()
    data = os.urandom(1 << 20)
    with (mounted.arrays / "vault").open("r+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), data, 0) == len(data)
        assert os.pread(file.fileno(), len(data), 0) == data
    assert (mounted.control / "status").read_bytes()
    assert time.monotonic() - started < 5
    assert all(reader.poll() is None for reader in readers)
    mounted.ask("resume")
    assert [reader.wait(timeout=10) for reader in readers] == [0] * 10
