"""Mounting, unmounting and what the kernel is told."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orionfs.fuse import mounting, tuning
from orionfs.tools.mountinfo import mount_at, read_mounts

pytestmark = pytest.mark.fuse

SERVED = Path(__file__).with_name("served.py")


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


def test_a_mountpoint_may_be_a_symbolic_link(mount, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    mounted = mount({"name": "vault"}, at="link")
    assert mount_at(read_mounts(), str(tmp_path / "real"))
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
def test_allow_other_lets_others_in_by_mode_and_owner(mount, run, other_user):
    mounted = mount({"name": "open", "mode": 0o644}, {"name": "vault"}, options={"allow_other": True})
    read = ("dd", "of=/dev/null", "count=1")
    assert run(*other_user, *read, f"if={mounted.arrays}/open").returncode == 0
    assert "Permission denied" in run(*other_user, *read, f"if={mounted.arrays}/vault", check=False).stderr
    assert "Permission denied" in run(*other_user, "sh", "-c", f"echo x >> {mounted.arrays}/open", check=False).stderr
    assert run(*other_user, "cat", mounted.control / "status").stdout.startswith("all is well")
    assert "Permission denied" in run(*other_user, "cat", mounted.control / "config.toml", check=False).stderr
    assert "Permission denied" in run(*other_user, "touch", mounted.arrays / "new", check=False).stderr


@pytest.mark.root
def test_without_allow_other_nobody_else_gets_in(vault, run, other_user):
    assert "Permission denied" in run(*other_user, "ls", vault.mountpoint, check=False).stderr


def test_statfs_has_a_block_size_since_loop_discards_in_it(vault):
    found = os.statvfs(vault.mountpoint)
    assert found.f_bsize == found.f_frsize == 4096
    assert found.f_blocks == (16 << 20) // 4096
    assert found.f_namemax == 255


def test_a_stuck_device_keeps_neither_others_nor_the_control_folder_waiting(mount):
    mounted = mount({"name": "stuck"}, {"name": "vault"})
    mounted.ask("stall", name="stuck", operation="read")
    # More than pyfuse3 serves at once unless it is told to; one request each, since these are direct.
    with StuckReaders(mounted.arrays / "stuck", 150) as readers:
        wait_for_reads(mounted, 150)
        assert readers.waiting() == 150
        started = time.monotonic()
        data = os.urandom(1 << 20)
        with (mounted.arrays / "vault").open("r+b", buffering=0) as file:
            assert os.pwrite(file.fileno(), data, 0) == len(data)
            assert os.pread(file.fileno(), len(data), 0) == data
            os.fsync(file.fileno())
        assert (mounted.control / "status").read_bytes()
        assert time.monotonic() - started < 2
        assert readers.waiting() == 150
        mounted.ask("resume")
        assert readers.results() == [bytes(4096)] * 150


def test_a_stuck_request_does_not_keep_the_daemon_from_ending(mount):
    mounted = mount({"name": "stuck"})
    mounted.ask("stall", name="stuck", operation="read")
    with StuckReaders(mounted.arrays / "stuck", 1) as readers:
        wait_for_reads(mounted, 1)
        assert readers.waiting() == 1
        mounted.ask("cancel")
        assert mounted.wait() == 0
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            readers.results()
    assert mount_at(read_mounts(), str(mounted.mountpoint)) is None


def wait_for_reads(mounted, count):
    """Ask the daemon until the device ``stuck`` has got *count* reads."""
    deadline = time.monotonic() + 10
    while (reads := mounted.ask("calls", name="stuck").get("read", 0)) < count:
        assert time.monotonic() < deadline, f"only {reads} reads arrived"


class StuckReaders:
    """Threads that each read 4 KiB of *path* past the page cache, from different places."""

    def __init__(self, path, count):
        self.path = path
        self.executor = ThreadPoolExecutor(count)
        self.futures = [self.executor.submit(self.read, index * 4096) for index in range(count)]

    def read(self, offset):
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        try:
            memory = mmap.mmap(-1, 4096)
            os.preadv(descriptor, [memory], offset)
            return memory[:]
        finally:
            with contextlib.suppress(OSError):  # what there is to say, the read has said
                os.close(descriptor)

    def waiting(self):
        return sum(not future.done() for future in self.futures)

    def results(self):
        return [future.result(timeout=20) for future in self.futures]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        # Without waiting if something went wrong: they end when the fixture ends the daemon.
        self.executor.shutdown(wait=kind is None)


def test_without_xattrs_the_kernel_asks_for_none(mount, run):
    mounted = mount({"name": "vault"}, options={"xattrs": False})
    with pytest.raises(OSError, match="not supported"):
        os.getxattr(mounted.arrays / "vault", "user.orionfs.name")
    run("dd", "if=/dev/zero", f"of={mounted.arrays}/vault", "bs=4k", "count=100", "conv=notrunc")
    assert mounted.ask("getxattrs") == {}


@pytest.mark.root
def test_another_user_than_root_can_mount_and_unmount(run, requires, other_user, tmp_path):
    requires("fusermount3", "setpriv")
    base = tmp_path / "theirs"
    (base / "m").mkdir(parents=True)
    for folder in (base, base / "m"):
        os.chown(folder, 65534, 65534)
    configuration = json.dumps({"devices": [{"name": "vault"}]})
    with subprocess.Popen(
        [*other_user, sys.executable, SERVED, configuration, base / "m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b'{"result": "ready"}\n', process.stderr.read()
        listing = run(*other_user, "ls", "-ln", base / "m" / "arrays").stdout
        assert "-rw------- 1 65534 65534 16777216" in listing
        run(*other_user, "dd", "if=/dev/zero", f"of={base}/m/arrays/vault", "count=1", "conv=notrunc")
        run(*other_user, "fusermount3", "-u", base / "m")
        assert process.wait(timeout=10) == 0


@pytest.mark.root
def test_allow_other_without_permission_is_one_sentence(run, other_user, tmp_path):
    if mounting._users_may_allow_other():
        pytest.skip("needs an /etc/fuse.conf without user_allow_other")
    os.chown(tmp_path, 65534, 65534)
    configuration = json.dumps({"devices": [], "options": {"allow_other": True}})
    done = run(*other_user, sys.executable, SERVED, configuration, tmp_path)
    error = json.loads(done.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == ("AccessRefused", 7)
    assert "user_allow_other" in error["text"]
    assert done.stderr == ""
