"""The mount table: escapes, stacked mounts, and which mount a path is on."""

import dataclasses
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orionfs.tools.mountinfo import (
    is_beneath,
    mount_at,
    mount_of,
    mounts_beneath,
    parse_mountinfo,
    read_mounts,
    same_filesystem,
)

TABLE = r"""27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /mnt/o rw,nosuid,nodev,relatime shared:9 master:2 - fuse.orionfs stores/my\040disks.toml rw,user_id=0
31 27 0:41 / /mnt/with\040space\011tab rw - tmpfs none rw
32 31 7:0 / /mnt/with\040space\011tab/inner rw - ext4 /dev/loop0 rw
33 30 0:42 / /mnt/o rw - tmpfs cover rw
34 27 0:40 / /srv/again rw - fuse.orionfs stores/my\040disks.toml rw,user_id=0
35 27 0:50 / /mnt rw - tmpfs late rw
"""


def test_a_line_is_taken_apart_and_unescaped():
    mount = parse_mountinfo(TABLE)[1]
    assert (mount.mount_id, mount.parent_id, mount.device) == (30, 27, "0:40")
    assert mount.source == "stores/my disks.toml"
    assert mount.type == "fuse.orionfs"
    assert mount.options == ("rw", "nosuid", "nodev", "relatime")
    assert parse_mountinfo(TABLE)[2].mountpoint == "/mnt/with space\ttab"


def test_the_topmost_of_two_mounts_at_one_place_counts():
    mounts = parse_mountinfo(TABLE)[:-1]
    found = mount_at(mounts, "/mnt/o")
    assert found is not None
    assert found.source == "cover"


def test_a_mount_that_a_later_one_covers_is_not_found():
    mounts = parse_mountinfo(TABLE)
    assert mount_at(mounts, "/mnt/o") is None
    found = mount_of(mounts, "/mnt/o/arrays/r5")
    assert found is not None
    assert found.source == "late"


def test_a_path_is_on_the_deepest_mount_that_is_not_covered():
    mounts = parse_mountinfo(TABLE)[:-1]
    places = {"/etc/fstab": "/dev/vda", "/mnt/with space\ttab/inner/f": "/dev/loop0", "/mnt/other": "/dev/vda"}
    for path, source in places.items():
        found = mount_of(mounts, path)
        assert found is not None
        assert found.source == source


def test_mounts_below_a_folder_do_not_count_the_folder_itself():
    mounts = parse_mountinfo(TABLE)
    assert [mount.source for mount in mounts_beneath(mounts, "/mnt/with space\ttab")] == ["/dev/loop0"]


def test_bind_mounts_are_found_and_a_device_number_that_was_given_away_is_not():
    mounts = parse_mountinfo(TABLE)
    mounts.append(dataclasses.replace(mounts[1], mount_id=99, mountpoint="/later", source="other.toml"))
    assert [mount.mountpoint for mount in same_filesystem(mounts, mounts[1])] == ["/srv/again"]


def test_beneath_looks_at_whole_names():
    assert is_beneath("/mnt/o", "/mnt/o")
    assert is_beneath("/mnt/o/x", "/mnt/o")
    assert not is_beneath("/mnt/other", "/mnt/o")
    assert is_beneath("/anything", "/")


def test_the_table_of_this_machine_agrees_with_stat():
    path = str(Path(__file__).resolve())
    found = mount_of(read_mounts(), path)
    assert found is not None
    device = os.stat(path).st_dev
    assert found.device == f"{os.major(device)}:{os.minor(device)}" or found.type == "btrfs"


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1).filter(lambda t: t not in (".", ".."))
)
def test_any_name_survives_the_escaping_of_the_kernel(name):
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in name)
    line = f"27 1 254:0 / /mnt/{escaped} rw - ext4 {escaped} rw"
    if len(line.splitlines()) == 1:  # str.splitlines knows more line ends than the kernel
        mount = parse_mountinfo(line)[0]
        assert (mount.mountpoint, mount.source) == (f"/mnt/{name}", name)
