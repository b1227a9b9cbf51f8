"""Failing devices and bugs: the program gets an errno, the mount stays."""

from __future__ import annotations

import errno
import os

import pytest

pytestmark = pytest.mark.fuse


@pytest.fixture
def device(vault):
    descriptor = os.open(vault.arrays / "vault", os.O_RDWR | os.O_DIRECT)
    yield descriptor
    os.close(descriptor)


def test_a_read_error_is_eio_never_zeros_and_passes(vault, expected_logs):
    expected_logs("io.error arrays/vault: read failed: the medium failed")
    vault.ask("fail", name="vault", operation="read", kind="media")
    with (vault.arrays / "vault").open("rb", buffering=0) as file:
        with pytest.raises(OSError, match=r".") as caught:
            file.read(4096)
        assert caught.value.errno == errno.EIO
        vault.ask("heal", name="vault")
        assert file.read(4096) == bytes(4096)


def test_a_write_error_is_eio_for_the_writer(vault, expected_logs):
    expected_logs("io.error arrays/vault: write failed: the medium failed")
    vault.ask("fail", name="vault", operation="write", kind="media")
    with (vault.arrays / "vault").open("r+b", buffering=0) as file:
        with pytest.raises(OSError, match=r".") as caught:
            file.write(b"x" * 4096)
        assert caught.value.errno == errno.EIO
        vault.ask("heal", name="vault")
        assert file.write(b"y" * 4096) == 4096


def test_a_failed_flush_fails_fsync_and_close(vault, expected_logs):
    expected_logs("io.error arrays/vault: fsync failed", "io.error arrays/vault: flush failed")
    descriptor = os.open(vault.arrays / "vault", os.O_RDWR)
    os.pwrite(descriptor, b"x" * 4096, 0)
    vault.ask("fail", name="vault", operation="flush", kind="media")
    for _ in range(2):
        with pytest.raises(OSError, match=r".") as caught:
            os.fsync(descriptor)
        assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match=r".") as caught:
        os.close(descriptor)
    assert caught.value.errno == errno.EIO


def test_fsync_reaches_the_device_every_time(vault):
    with (vault.arrays / "vault").open("r+b", buffering=0) as file:
        for _ in range(3):
            os.fsync(file.fileno())
            os.fdatasync(file.fileno())
    assert vault.ask("calls", name="vault")["flush"] == 6


def test_a_bug_in_a_read_is_eio_and_nothing_more(vault, expected_logs):
    expected_logs("read of arrays/vault met an internal error", "internal.error", "^Traceback")
    vault.ask("fail", name="vault", operation="read", kind="bug")
    with pytest.raises(OSError, match=r".") as caught:
        (vault.arrays / "vault").read_bytes()
    assert caught.value.errno == errno.EIO
    vault.ask("heal", name="vault")
    with (vault.arrays / "vault").open("r+b") as file:
        assert file.write(b"x" * 4096) == 4096


def test_a_bug_in_a_write_latches_that_device_and_the_mount_stays(mount, expected_logs):
    expected_logs("write of arrays/vault met an internal error", "internal.error", "^Traceback")
    mounted = mount({"name": "vault"}, {"name": "other"})
    mounted.ask("fail", name="vault", operation="write", kind="bug")
    with (mounted.arrays / "vault").open("r+b", buffering=0) as file:
        for code in (errno.EIO, errno.EROFS):
            with pytest.raises(OSError, match=r".") as caught:
                file.write(b"x" * 4096)
            assert caught.value.errno == code
        assert file.read(4096) == bytes(4096)
    mounted.ask("heal", name="vault")
    with pytest.raises(OSError, match=r".") as caught:
        (mounted.arrays / "vault").open("r+b")
    assert caught.value.errno == errno.EROFS
    assert os.getxattr(mounted.arrays / "vault", "user.orionfs.latched")
    assert '"latched": true' in (mounted.control / "events").read_text()
    with (mounted.arrays / "other").open("r+b", buffering=0) as file:
        assert file.write(b"x" * 512) == 512
    assert mounted.unmount() == 0
