"""Options of a mount, tuning, and what is said when a mount is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orionfs.errors import AccessRefused, OrionError, TransportError
from orionfs.fuse import mounting
from orionfs.fuse.binding import _bypasses_page_cache
from orionfs.fuse.mounting import MountOptions, check_permitted, mount_failure
from orionfs.fuse.tuning import device_number

MOUNTINFO = """\
22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
40 22 0:39 / /mnt/o rw,nosuid,nodev - fuse.orionfs /etc/one.toml rw,user_id=0
41 22 0:40 / /mnt/with\\040space\\134 rw - fuse.orionfs spec rw
42 40 0:41 / /mnt/o rw,nosuid,nodev shared:7 master:3 - fuse.orionfs /etc/two.toml rw,user_id=0
43 22 0:42 / /mnt/other rw - tmpfs tmpfs rw
44 22 0:43 / /mnt/é rw - fuse spec rw
"""


@pytest.mark.parametrize(
    ("mountpoint", "expected"),
    [
        ("/mnt/o", (0, 41)),
        ("/mnt/with space\\", (0, 40)),
        ("/mnt/é", (0, 43)),
        ("/mnt/other", None),
        ("/mnt", None),
        ("/", None),
    ],
)
def test_the_device_number_is_that_of_the_topmost_fuse_mount(mountpoint, expected):
    assert device_number(MOUNTINFO, Path(mountpoint)) == expected


def test_permissions_are_always_checked_by_the_kernel():
    assert "default_permissions" in MountOptions("spec").for_libfuse()
    assert "allow_other" not in MountOptions("spec").for_libfuse()


def test_options_reach_libfuse_in_ascii_with_its_escapes():
    options = MountOptions("/srv/a,b\\ é.toml", allow_other=True, read_only=True, kernel=("noexec",)).for_libfuse()
    assert options == {
        "fsname=/srv/a\\054b\\134\\040\\303\\251.toml",
        "subtype=orionfs",
        "default_permissions",
        "allow_other",
        "ro",
        "noexec",
    }
    assert all(option.isascii() for option in options)


def test_without_the_device_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(mounting, "_FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(AccessRefused, match="modprobe fuse") as caught:
        check_permitted(MountOptions("spec"))
    assert caught.value.exit_code == 7


def test_a_device_without_permission_is_access_refused():
    error = mounting._no_device(PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(error, AccessRefused)
    assert error.exit_code == 7


def test_a_device_that_is_something_else_is_named_with_the_way_to_the_right_one(monkeypatch):
    monkeypatch.setattr(mounting, "_FUSE_DEVICE", Path("/dev/null"))
    with pytest.raises(AccessRefused, match=r"/dev/null is something else than the FUSE device.*mknod"):
        check_permitted(MountOptions("spec"))


@pytest.mark.parametrize(
    ("configuration", "permitted"),
    [(None, False), ("", False), ("#user_allow_other\n", False), ("mount_max = 9\n user_allow_other \n", True)],
)
def test_allow_other_needs_permission_from_the_administrator(configuration, permitted, monkeypatch, tmp_path):
    file = tmp_path / "fuse.conf"
    if configuration is not None:
        file.write_text(configuration)
    monkeypatch.setattr(mounting, "_FUSE_CONF", file)
    monkeypatch.setattr(mounting, "_FUSE_DEVICE", Path("/dev/null"))
    monkeypatch.setattr(mounting, "_FUSE_NUMBER", os.stat("/dev/null").st_rdev)
    monkeypatch.setattr(mounting.os, "geteuid", lambda: 1000)
    if permitted:
        check_permitted(MountOptions("spec", allow_other=True))
    else:
        with pytest.raises(AccessRefused, match="user_allow_other"):
            check_permitted(MountOptions("spec", allow_other=True))
    check_permitted(MountOptions("spec"))
    monkeypatch.setattr(mounting.os, "geteuid", lambda: 0)
    check_permitted(MountOptions("spec", allow_other=True))


@pytest.mark.parametrize(
    ("complaint", "kind"),
    [
        ("fuse: failed to exec fusermount3: No such file or directory", AccessRefused),
        ("fusermount3: user has no write access to mountpoint /mnt", AccessRefused),
        ("fuse: mount failed: Operation not permitted", AccessRefused),
        ("fuse: mount failed: Invalid argument", TransportError),
        ("", TransportError),
    ],
)
def test_a_failed_mount_is_one_sentence(complaint, kind):
    error = mount_failure(Path("/mnt/o"), "fuse_session_mount failed", complaint)
    assert type(error) is kind
    assert isinstance(error, OrionError)
    assert "/mnt/o" in error.message
    assert error.hint
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("release", "bypasses"),
    [
        ("5.10.0-28-amd64", False),
        ("6.1.0-18-amd64", False),
        ("6.5.13", False),
        ("6.6", False),
        ("6.6.129", False),
        ("6.6.130", True),
        ("6.11.20", False),
        ("6.12.69-1", False),
        ("6.12.70+deb13-amd64", True),
        ("6.17.99", False),
        ("6.18.9", False),
        ("6.18.44-fc-v657", True),
        ("6.19.0", True),
        ("6.19-rc4", True),
        ("7.0.1", True),
        ("unknown", False),
    ],
)
def test_the_page_cache_is_bypassed_only_where_that_is_coherent(release, bypasses):
    assert _bypasses_page_cache(release) is bypasses
