"""Device files that come and go while the mount is there."""

import errno
import os

import pytest

pytestmark = pytest.mark.fuse


def test_a_file_that_is_taken_away_is_gone_at_once(vault):
    file = vault.arrays / "vault"
    file.read_bytes()
    inode = file.stat().st_ino
    assert names(vault.arrays) == ["vault"]
    vault.ask("take_away", name="vault")
    assert names(vault.arrays) == []
    await_no_name(file)
    vault.ask("bring_back", name="vault", fill=7)
    assert names(vault.arrays) == ["vault"]
    assert file.stat().st_ino != inode


def names(folder):
    return [entry.name for entry in folder.iterdir()]


def await_no_name(file):
    """The kernel forgets a name as soon as it is told, by another thread: at the latest when its second is over."""
    while True:
        try:
            file.stat()
        except FileNotFoundError:
            return


def test_who_has_it_open_gets_enodev_and_can_close(vault):
    descriptor = os.open(vault.arrays / "vault", os.O_RDWR)
    try:
        os.pwrite(descriptor, b"before", 0)
        os.fsync(descriptor)
        assert vault.ask("open_count", name="vault") == 1
        vault.ask("take_away", name="vault")
        for request in (
            lambda: os.pread(descriptor, 4096, 8 << 20),
            lambda: os.pwrite(descriptor, b"x" * 4096, 0),
            lambda: os.fsync(descriptor),
        ):
            with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
                request()
    finally:
        os.close(descriptor)


def test_what_comes_back_is_read_anew(vault):
    file = vault.arrays / "vault"
    assert file.read_bytes() == bytes(16 << 20)
    vault.ask("take_away", name="vault")
    vault.ask("bring_back", name="vault", fill=7)
    await_contents(file, bytes([7]) * 4096)


def await_contents(file, expected):
    """Until the kernel has forgotten the old name, opening it finds nothing; never what it has cached."""
    while True:
        try:
            with file.open("rb") as stream:
                assert stream.read(4096) == expected
                return
        except FileNotFoundError:
            continue


def test_the_mount_ends_well_after_a_device_was_taken_away(vault):
    vault.ask("take_away", name="vault")
    assert vault.unmount() == 0
