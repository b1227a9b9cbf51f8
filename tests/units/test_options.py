"""``-o``: what mount(8), fstab and people write there."""

import os
import pwd

import pytest

from orionfs.errors import UsageError
from orionfs.tools.options import MountOptions, parse_options


def test_nothing_means_the_defaults():
    assert parse_options("") == MountOptions()
    assert parse_options("rw,defaults") == MountOptions()


def test_every_option_of_ours_is_understood():
    options = parse_options("ro,allow_other,uid=1000,gid=100,mode=0640,force,no_lock,direct,foreground,nofail")
    assert options == MountOptions(
        read_only=True,
        allow_other=True,
        uid=1000,
        gid=100,
        mode=0o640,
        force=True,
        lock=False,
        direct=True,
        foreground=True,
        nofail=True,
    )


def test_the_last_word_wins():
    assert parse_options("ro,rw").read_only is False
    assert parse_options("rw,ro").read_only is True
    assert parse_options("mode=600,mode=644").mode == 0o644


def test_kernel_flags_are_kept_and_can_be_taken_back():
    assert parse_options("nosuid,noatime,nodev,suid").kernel == ("noatime", "nodev")


def test_names_stand_for_numbers():
    me = pwd.getpwuid(os.getuid())
    assert parse_options(f"uid={me.pw_name}").uid == me.pw_uid


@pytest.mark.parametrize(
    "text",
    [
        "auto,noauto,user,users,owner,group,nofail,_netdev,defaults",
        "x-systemd.automount,x-systemd.requires-mounts-for=/srv,x-gvfs-show",
        "X-mount.mkdir,comment=my disks,user=alice,uhelper=udisks2",
    ],
)
def test_words_for_mount_and_systemd_change_nothing(text):
    assert parse_options(text) == MountOptions(nofail="nofail" in text.split(","))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("readonly", ["unknown option 'readonly'", "--help"]),
        ("uid=", ["no such user"]),
        ("gid=nosuchgroup", ["nosuchgroup", "no such group"]),
        ("mode=rw", ["not a file mode", "octal"]),
        ("mode=7777", ["not a file mode"]),
        ("mode=-1", ["not a file mode"]),
        ("remount,ro", ["unmount it and mount it again"]),
        ("fsname=x", ["SPEC"]),
        ("allow_other=yes", ["unknown option"]),
    ],
)
def test_what_cannot_be_is_one_sentence(text, words):
    with pytest.raises(UsageError) as caught:
        parse_options(text)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_sloppy_forgives_unknown_words_but_not_wrong_values():
    assert parse_options("whatever,ro", sloppy=True) == MountOptions(read_only=True)
    with pytest.raises(UsageError):
        parse_options("mode=rw", sloppy=True)


def test_extended_attributes_can_be_left_out():
    assert parse_options("noxattr").xattrs is False
    assert parse_options("ro").xattrs is True
