"""chmod, chown, utimes, mtime and extended attributes of device files, through the kernel."""

from __future__ import annotations

import errno
import os
import time

import pytest

pytestmark = pytest.mark.fuse


@pytest.mark.root
def test_chmod_chown_and_touch_survive_a_remount(mount, run):
    mounted = mount({"name": "vault"})
    path = mounted.arrays / "vault"
    path.chmod(0o640)
    os.chown(path, 65534, 100)
    run("touch", "-d", "2001-02-03 04:05:06.789 UTC", path)
    before = path.stat()
    assert (before.st_mode & 0o7777, before.st_uid, before.st_gid) == (0o640, 65534, 100)
    assert before.st_mtime_ns == before.st_atime_ns == 981173106_789000000
    mounted.unmount()
    after = (mount({"name": "vault"}).arrays / "vault").stat()
    for name in ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_atime_ns", "st_ctime_ns", "st_ino"):
        assert getattr(before, name) == getattr(after, name)


def test_attributes_that_chmod_saved_survive_a_kill(mount, run):
    mounted = mount({"name": "vault"})
    (mounted.arrays / "vault").chmod(0o604)
    mounted.process.kill()
    mounted.wait()
    run("umount", "-i", mounted.mountpoint)
    assert (mount({"name": "vault"}).arrays / "vault").stat().st_mode & 0o777 == 0o604


def test_mtime_moves_with_each_write_and_survives_a_remount(mount):
    mounted = mount({"name": "vault"})
    path = mounted.arrays / "vault"
    times = [path.stat().st_mtime_ns]
    for flags in (os.O_WRONLY, os.O_WRONLY):
        descriptor = os.open(path, flags)
        os.pwrite(descriptor, b"x", 0)
        times.append(os.fstat(descriptor).st_mtime_ns)
        os.close(descriptor)
    assert times == sorted(set(times))
    assert abs(times[-1] - time.time_ns()) < 10**10
    path.read_bytes()
    assert path.stat().st_mtime_ns == times[-1]
    mounted.unmount()
    assert (mount({"name": "vault"}).arrays / "vault").stat().st_mtime_ns == times[-1]


@pytest.mark.root
def test_only_the_owner_or_root_may_change_them(mount, run, other_user):
    mounted = mount({"name": "vault", "mode": 0o666}, options={"allow_other": True})
    for command in (("chmod", "777"), ("chown", "65534"), ("touch", "-d", "2001-01-01")):
        done = run(*other_user, *command, mounted.arrays / "vault", check=False)
        assert "not permitted" in done.stderr
    run(*other_user, "dd", "if=/dev/zero", f"of={mounted.arrays}/vault", "count=1", "conv=notrunc")


def test_extended_attributes_tell_the_state(vault, run, requires):
    requires("getfattr")
    listing = run("getfattr", "-d", "--absolute-names", vault.arrays / "vault").stdout
    assert 'user.orionfs.name="vault"' in listing
    assert os.getxattr(vault.arrays / "vault", "user.orionfs.state")
    for name, code in (("user.orionfs.state", errno.EPERM), ("user.comment", errno.EOPNOTSUPP)):
        with pytest.raises(OSError, match=r".") as caught:
            os.setxattr(vault.arrays / "vault", name, b"x")
        assert caught.value.errno == code
    with pytest.raises(OSError, match=r".") as caught:
        os.getxattr(vault.arrays / "vault", "user.comment")
    assert caught.value.errno == errno.ENODATA
    with pytest.raises(OSError, match=r".") as caught:
        os.removexattr(vault.arrays / "vault", "user.orionfs.state")
    assert caught.value.errno == errno.EPERM
