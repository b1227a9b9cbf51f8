"""How a mount ends: asked to, killed, interrupted on the way."""

import os
import signal
import subprocess

import pytest

from orionfs.control.runtime import find
from orionfs.errors import MediaError, NoSpace
from orionfs.tools.mountinfo import read_mounts
from orionfs.tools.unmounting import leave_failure

from .kit import MOUNT, ORIONCTL, UMOUNT, await_end, daemon_pid, mounted, read, state, write

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_leaves_clean_members(store, place, run, number):
    run(MOUNT, store, place)
    write(place, b"before the signal")
    pid = daemon_pid(place)
    os.kill(pid, number)
    await_end(pid)
    assert mounted(place) is None
    assert state(store) == ["clean"] * 3
    run(MOUNT, store, place)
    assert read(place, 17) == b"before the signal"


def test_hanging_up_does_nothing(store, place, run):
    run(MOUNT, store, place)
    os.kill(daemon_pid(place), signal.SIGHUP)
    run(ORIONCTL, "status", place)
    assert read(place, 1) == b"\0"


def test_a_signal_while_files_are_open_names_them_and_still_leaves_clean_members(
    store, place, run, expected_logs, runtime_folder
):
    expected_logs(r"mount\.detached .* still in use by")
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    descriptor = os.open(place / "arrays" / "vault", os.O_RDWR)
    os.write(descriptor, b"still open")
    os.kill(pid, signal.SIGTERM)
    await_end(pid)
    with pytest.raises(OSError, match=r"not connected|Software caused"):
        os.read(descriptor, 1)
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    assert mounted(place) is None
    assert state(store) == ["clean"] * 3
    log = next(runtime_folder.glob("*.log")).read_text()
    assert f"[{os.getpid()}] ({place}/arrays/vault)" in log
    run(MOUNT, store, place)
    assert read(place, 10) == b"still open"


def test_a_killed_daemon_is_mounted_over(store, place, run, expected_logs):
    expected_logs("not closed properly|journal is replayed")
    run(MOUNT, store, place)
    write(place, b"survives a kill")
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(place)
    run(MOUNT, store, place)
    assert read(place, 15) == b"survives a kill"
    assert [mount.mountpoint for mount in read_mounts()].count(str(place)) == 1


def test_the_mount_of_a_killed_daemon_can_be_unmounted(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGKILL)
    await_end(pid)
    run(UMOUNT, place)
    assert mounted(place) is None


def test_unmounting_reports_a_daemon_that_died_on_the_way(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen([UMOUNT, place], stderr=subprocess.PIPE, text=True) as umount:
        while mounted(place) is not None:
            os.sched_yield()  # now it waits for the daemon
        os.kill(pid, signal.SIGKILL)
        assert umount.stderr is not None
        assert "died before it closed its members" in umount.stderr.read()
    assert umount.returncode == 8


def test_unmounting_that_takes_long_says_what_it_waits_for(store, place, run):
    run(MOUNT, store, place)
    pid = daemon_pid(place)
    os.kill(pid, signal.SIGSTOP)
    with subprocess.Popen([UMOUNT, place], stderr=subprocess.PIPE, text=True) as umount:
        assert umount.stderr is not None
        line = umount.stderr.readline()
        os.kill(pid, signal.SIGCONT)
    assert line == f"umount.orionfs: waiting for process {pid} to write what is left\n"
    assert umount.returncode == 0
    assert state(store) == ["clean"] * 3


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MediaError("cannot flush d0.img"), "cannot flush d0.img; not everything may have been written; the next"),
        (NoSpace("cannot save times", hint="no data is affected"), "cannot save times; no data is affected\n"),
    ],
)
def test_a_daemon_that_could_not_write_everything_tells_the_one_who_unmounts(store, place, run, error, said):
    run(MOUNT, store, place)
    mount = find(place)
    os.kill(mount.pid, signal.SIGSTOP)
    with subprocess.Popen([UMOUNT, place], stderr=subprocess.PIPE, text=True) as umount:
        while mounted(place) is not None:
            os.sched_yield()
        leave_failure(str(place), error)
        os.kill(mount.pid, signal.SIGKILL)
        assert umount.stderr is not None
        assert f"umount.orionfs: {said}" in umount.stderr.read()
    assert umount.returncode == 8


def test_in_the_foreground_it_logs_to_stderr_and_ends_with_control_c(store, place):
    with subprocess.Popen([MOUNT, store, place, "-o", "foreground"], stderr=subprocess.PIPE, text=True) as front:
        assert front.stderr is not None
        assert "mount.ready" in front.stderr.readline()
        assert daemon_pid(place) == front.pid
        front.send_signal(signal.SIGINT)
        rest = front.stderr.read()
    assert front.returncode == 0
    assert "SIGINT: unmounting" in rest
    assert "all members are closed" in rest
    assert mounted(place) is None
