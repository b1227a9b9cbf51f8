"""Larger programs on a device file: fio, and a filesystem on a loop device."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize("direct", [0, 1])
@pytest.mark.parametrize(
    "job",
    [
        ("--rw=randwrite", "--bs=4k", "--ioengine=libaio", "--iodepth=16"),
        ("--rw=randrw", "--bsrange=512-64k", "--bs_unaligned=1", "--ioengine=psync"),
        ("--rw=write", "--bs=1m", "--ioengine=libaio", "--iodepth=4"),
    ],
    ids=["random", "mixed", "sequential"],
)
def test_fio_verifies_what_it_wrote(job, direct, mount, run, requires):
    requires("fio")
    mounted = mount({"name": "vault", "size": 32 << 20})
    job = [option for option in job if not (direct and "unaligned" in option)]
    run(
        *("fio", "--name=verify", f"--filename={mounted.arrays}/vault", "--size=32m", "--io_size=32m"),
        *(
            "--verify=crc32c",
            "--verify_state_save=0",
            "--verify_fatal=1",
            "--allow_file_create=0",
            "--fallocate=none",
            "--end_fsync=1",
        ),
        f"--direct={direct}",
        *job,
    )


def test_fio_verifies_through_mmap(mount, run, requires):
    requires("fio")
    mounted = mount({"name": "vault", "size": 8 << 20})
    run(
        *("fio", "--name=verify", f"--filename={mounted.arrays}/vault", "--size=8m", "--bs=4k", "--rw=randwrite"),
        *("--ioengine=mmap", "--verify=crc32c", "--verify_state_save=0", "--allow_file_create=0", "--fallocate=none"),
    )


@pytest.mark.root
@pytest.mark.parametrize("direct", ["on", "off"])
def test_ext4_on_a_loop_device_keeps_its_files(direct, mount, run, requires, tmp_path):
    requires("losetup", "mkfs.ext4", "fsck.ext4")
    mounted = mount({"name": "vault", "size": 64 << 20})
    path, files = mounted.arrays / "vault", tmp_path / "files"
    files.mkdir()
    loop = run("losetup", f"--direct-io={direct}", "--find", "--show", path).stdout.strip()
    try:
        run("mkfs.ext4", "-q", "-F", loop)
        run("mount", loop, files)
        try:
            contents = {}
            for number in range(40):
                data = os.urandom(1000 + number * 10_000)
                (files / f"file{number}").write_bytes(data)
                contents[f"file{number}"] = hashlib.sha256(data).hexdigest()
            os.sync()
        finally:
            run("umount", files)
        run("fsck.ext4", "-f", "-n", loop)
        assert mounted.ask("calls", name="vault")["flush"] >= 2
        run("mount", "-o", "ro", loop, files)
        try:
            found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files.glob("file*")}
        finally:
            run("umount", files)
        assert found == contents
    finally:
        run("losetup", "-d", loop)
        wait_until_detached(loop)
    assert mounted.unmount() == 0


def wait_until_detached(loop):
    """``losetup -d`` returns before the kernel has let go of the file when udev has the device open."""
    if Path("/run/udev/control").exists():
        subprocess.run(["udevadm", "settle"], check=False)
    assert not Path(f"/sys/block/{Path(loop).name}/loop/backing_file").exists()
