"""Mounting by hand, from mount(8) and from fstab."""

import os
import subprocess
from pathlib import Path

import pytest

from orionfs.tools.mountinfo import mount_at, read_mounts

from .kit import MOUNT, UMOUNT, await_end, daemon_pid, mounted, one_line, read, state, write

pytestmark = pytest.mark.fuse


def test_it_returns_when_the_mount_is_usable_and_unmounting_when_the_members_are_clean(store, place, run):
    done = run(MOUNT, store, place)
    assert (done.stdout, done.stderr) == ("", "")
    write(place, b"hello")
    pid = daemon_pid(place)
    run(UMOUNT, place)
    await_end(pid)  # has ended already: umount.orionfs waited for it
    assert mounted(place) is None
    assert state(store) == ["clean"] * 3


def test_it_can_be_mounted_again_at_once_many_times(store, place, run):
    for generation in range(5):
        run(MOUNT, store, place)
        assert read(place, 1) == bytes([generation])
        write(place, bytes([generation + 1]))
        run(UMOUNT, place)


def test_the_name_in_the_mount_table_is_the_spec_as_given(store, place, run, monkeypatch):
    monkeypatch.chdir(store.parent)
    run(MOUNT, "store/../store/orionfs.toml", "mnt")
    mount = mounted(place)
    assert mount is not None
    assert (mount.source, mount.type) == ("store/../store/orionfs.toml", "fuse.orionfs")


def test_verbose_says_what_was_done(store, place, run):
    assert run(MOUNT, "-v", store, place).stdout == f"mount.orionfs: {store} mounted on {place}\n"
    assert run(UMOUNT, "-v", place).stdout == f"umount.orionfs: {place} unmounted\n"


def test_the_daemon_keeps_nothing_of_its_caller(store, place, tmp_path):
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        subprocess.run([MOUNT, store, place], check=True, close_fds=False, cwd=store, capture_output=True)
    process = Path(f"/proc/{daemon_pid(place)}")
    assert (process / "cwd").readlink() == Path("/")
    files = {str(link.readlink()) for link in (process / "fd").iterdir()}
    assert str(tmp_path / "inherited") not in files
    assert [str((process / "fd" / standard).readlink()) for standard in "012"] == [os.devnull] * 3
    assert os.getsid(int(process.name)) != os.getsid(0)
    subprocess.run([UMOUNT, place], check=True)


def test_options_reach_the_files_and_the_kernel(store, place, run):
    run(MOUNT, store, place, "-o", "mode=0640,uid=1234,gid=4321,noexec,noatime,x-gvfs-hide,nofail")
    status = (place / "arrays" / "vault").stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)
    mount = mounted(place)
    assert mount is not None
    assert {"noexec", "noatime", "nosuid", "nodev"} <= set(mount.options)


def test_read_only_takes_no_writes_and_changes_no_member(store, place, run):
    before = [member.read_bytes() for member in sorted((store / "members").iterdir())]
    run(MOUNT, "-o", "ro", store, place)
    with pytest.raises(OSError, match="Read-only"):
        write(place, b"x")
    assert read(place, 512) == bytes(512)
    run(UMOUNT, place)
    assert [member.read_bytes() for member in sorted((store / "members").iterdir())] == before


def test_a_degraded_array_is_mounted_with_one_line_that_says_so(store, place, run, expected_logs):
    expected_logs(r"array\.notice")
    (store / "members" / "d1.img").unlink()
    done = run(MOUNT, store, place)
    note = one_line(done)
    assert "vault is degraded [U_U]" in note
    assert "members/d1.img" in note


@pytest.mark.root
@pytest.mark.parametrize("kind", ["orionfs", "fuse.orionfs"])
def test_mount_and_umount_find_the_helpers(store, place, run, helpers, kind):
    run("mount", "-t", kind, store, place)
    write(place, b"by mount(8)")
    pid = daemon_pid(place)
    run("umount", place)
    assert mounted(place) is None
    await_end(pid)
    assert state(store) == ["clean"] * 3
    run("mount", "-t", kind, store, place)  # at once
    assert read(place, 11) == b"by mount(8)"
    run("umount", place)


@pytest.mark.root
@pytest.mark.parametrize("command", [["umount", "-i"], ["fusermount3", "-u"], [UMOUNT], ["umount", "-l"]])
def test_however_it_is_unmounted_the_table_of_umount_keeps_no_entry(store, place, run, command):
    table = Path("/run/mount/utab")
    run(MOUNT, store, place)
    assert f"TARGET={place} " in table.read_text()
    pid = daemon_pid(place)
    run(*command, place)
    await_end(pid)
    assert f"TARGET={place} " not in table.read_text()


@pytest.mark.root
def test_a_line_in_fstab_is_mounted_once_by_mount_a(store, place, run, helpers, tmp_path, monkeypatch):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{store}/orionfs.toml {place} orionfs nofail,_netdev,x-systemd.mount-timeout=30,mode=0600 0 0\n")
    monkeypatch.setenv("LIBMOUNT_FSTAB", str(fstab))
    for _ in range(2):
        run("mount", "-a")
        assert [mount.mountpoint for mount in read_mounts()].count(str(place)) == 1
    run("umount", place)
    run("mount", place)
    assert mounted(place) is not None
    run("umount", place)


@pytest.mark.root
def test_the_exit_status_of_the_helper_passes_through_mount(place, run, helpers, tmp_path):
    done = run("mount", "-t", "orionfs", tmp_path / "nowhere.toml", place, check=False)
    assert done.returncode == 3
    assert "nowhere.toml" in one_line(done)


@pytest.mark.root
def test_a_fake_mount_only_checks(store, place, run, helpers):
    run("mount", "-f", "-t", "orionfs", store, place)
    assert mounted(place) is None
    done = run(MOUNT, "-f", store, place / "missing", check=False)
    assert done.returncode == 3


def test_sloppy_forgives_what_is_unknown(store, place, run):
    assert run(MOUNT, store, place, "-o", "surprise", check=False).returncode == 2
    run(MOUNT, "-s", "-n", "-t", "orionfs", store, place, "-o", "surprise")
    run(UMOUNT, "-n", "-r", "-t", "fuse.orionfs", place)


@pytest.mark.root
def test_nofail_forgives_only_what_is_missing(store, place, run, tmp_path):
    done = run(MOUNT, tmp_path / "nowhere.toml", place, "-o", "nofail")
    assert "nowhere.toml" in one_line(done)
    (store / "orionfs.toml").write_text("[[array]\n")
    assert run(MOUNT, store, place, "-o", "nofail", check=False).returncode == 2


@pytest.mark.root
def test_it_mounts_in_another_mount_namespace(store, place, run):
    with subprocess.Popen(["unshare", "-m", "cat"], stdin=subprocess.PIPE) as other:
        assert other.stdin is not None
        while Path(f"/proc/{other.pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink():
            os.sched_yield()  # until unshare has done it
        run(MOUNT, "-N", str(other.pid), store, place)
        assert mounted(place) is None
        assert mount_at(read_mounts(other.pid), str(place)) is not None
        run(UMOUNT, "-N", f"/proc/{other.pid}/ns/mnt", place)
        assert mount_at(read_mounts(other.pid), str(place)) is None
        other.stdin.close()
