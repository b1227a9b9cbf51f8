"""Bad input gets one sentence and an exit status, and changes nothing."""

import json
import os
import signal
from pathlib import Path

import pytest

from orionfs.tools.mountinfo import read_mounts

from .kit import MOUNT, SPEC, UMOUNT, await_end, daemon_pid, mounted, one_line

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["two arguments", "--help"]),
        (["{store}"], 2, ["two arguments"]),
        (["{store}", "{place}", "more"], 2, ["two arguments"]),
        (["-Z", "{store}", "{place}"], 2, ["-Z", "--help"]),
        (["{store}", "{place}", "-o", "loud,tiny"], 2, ["unknown option 'tiny'"]),
        (["{store}", "{place}", "-o", "mode=9"], 2, ["mode=9", "octal"]),
        (["{store}", "{place}", "-N", "nowhere"], 2, ["nowhere", "namespace"]),
        (["{store}/none.toml", "{place}"], 3, ["none.toml"]),
        (["{tmp}", "{place}"], 3, ["orionfs.toml"]),
        (["{store}", "{tmp}/none"], 3, ["mount point", "mkdir -p"]),
        (["{store}", "{store}/orionfs.toml"], 2, ["not a folder; name an empty folder"]),
        (["{store}", "{store}"], 5, ["not empty"]),
        (["{store}", "/proc"], 5, ["already mounted", "proc"]),
    ],
)
def test_bad_arguments_are_one_sentence_and_mount_nothing(store, place, run, tmp_path, arguments, status, words):
    before = read_mounts()
    filled = [text.format(store=store, place=place, tmp=tmp_path) for text in arguments]
    done = run(MOUNT, *filled, check=False)
    line = one_line(done)
    assert all(word in line for word in words), line
    assert done.returncode == status
    assert [mount for mount in read_mounts() if mount not in before and str(tmp_path) in mount.mountpoint] == []


def test_a_place_that_is_mounted_already_is_refused(make_store, place, run):
    run(MOUNT, make_store("one"), place)
    done = run(MOUNT, make_store("two"), place, check=False)
    assert done.returncode == 5
    assert "already mounted" in one_line(done)
    assert mounted(place) is not None


def test_a_member_beneath_the_mount_is_a_cycle(place, run, tmp_path):
    spec = tmp_path / "cycle.toml"
    spec.write_text(SPEC.format(level="raid1", members='"mnt/a.img", "b.img"'))
    done = run(MOUNT, spec, place, check=False)
    assert done.returncode == 5
    assert f"{place}/a.img is beneath the mount point {place}" in one_line(done)


@pytest.mark.root
def test_a_member_on_a_filesystem_over_the_dead_mount_is_a_cycle(make_store, place, run, tmp_path, requires):
    """The array carries an ext4 on a loop device, and on that ext4 lies a member of what shall be mounted there."""
    requires("mkfs.ext4")
    run(MOUNT, make_store("outer"), place)
    inner = tmp_path / "inner"
    inner.mkdir()
    run("mkfs.ext4", "-q", place / "arrays" / "vault")
    run("mount", "-o", "loop", place / "arrays" / "vault", inner)
    try:
        spec = tmp_path / "cycle.toml"
        spec.write_text(SPEC.format(level="raid1", members=f'"{inner}/a.img", "b.img"'))
        pid = daemon_pid(place)
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
        done = run(MOUNT, spec, place, check=False)
        assert done.returncode == 5
        assert f"{inner}/a.img is on {place}/arrays/vault, beneath the mount point {place}" in one_line(done)
    finally:
        run("umount", "-l", inner)


@pytest.mark.root
def test_without_dev_fuse_the_way_out_is_told(store, place, run):
    script = 'mount -t tmpfs none /dev && : >/dev/null && exec "$@"'
    done = run("unshare", "-m", "sh", "-c", script, "sh", MOUNT, store, place, check=False)
    assert done.returncode == 7
    line = one_line(done)
    assert "/dev/fuse is not there" in line
    assert "modprobe fuse" in line


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, ["one argument", "--help"]),
        (["a", "b"], 2, ["one argument"]),
        (["-Z", "a"], 2, ["-Z"]),
        (["{place}"], 3, ["not a mount point"]),
        (["{place}/none"], 3, ["not a mount point"]),
        (["/proc"], 3, ["mount of type proc"]),
    ],
)
def test_unmounting_what_is_no_orionfs_is_one_sentence(place, run, arguments, status, words):
    done = run(UMOUNT, *[text.format(place=place) for text in arguments], check=False)
    line = one_line(done, "umount.orionfs")
    assert all(word in line for word in words), line
    assert done.returncode == status


@pytest.mark.parametrize("program", [MOUNT, UMOUNT])
def test_help_and_version(program, run):
    assert run(program, "--help").stdout.startswith("usage: ")
    assert "exit status" in run(program, "-h").stdout
    assert run(program, "--version").stdout.startswith(Path(program).name)


def test_the_events_tell_the_story_of_a_mount(store, place, run):
    run(MOUNT, store, place)
    kinds = [json.loads(line)["kind"] for line in (place / ".orionfs" / "events").read_text().splitlines()]
    assert kinds[-1] == "mount.ready"
