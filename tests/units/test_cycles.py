"""A member that needs the mount it serves is found, however deep it is hidden."""

import pytest

from orionfs.errors import Refused
from orionfs.tools.cycles import SysfsBlockDevices, refuse_cycle
from orionfs.tools.mountinfo import parse_mountinfo

MNT = "/mnt/o"


class Machine:
    """A made-up sysfs: loop devices with their files, and what other devices are made of."""

    def __init__(self, loops=None, stacked=None, names=None):
        self.loops = loops or {}
        self.stacked = stacked or {}
        self.names = names or {}

    def number(self, source):
        return self.names.get(source)

    def backing_file(self, device):
        return self.loops.get(device)

    def below(self, device):
        return self.stacked.get(device, [])


def table(*lines):
    numbered = [f"{20 + i} {1 if i == 0 else 20} {line}" for i, line in enumerate(lines)]
    return parse_mountinfo("\n".join(numbered))


ROOT = "254:0 / / rw - ext4 /dev/vda rw"


def test_a_member_elsewhere_is_fine():
    refuse_cycle("/srv/d0.img", MNT, table(ROOT), Machine())


def test_a_name_that_only_begins_alike_is_fine():
    refuse_cycle("/mnt/other/d0.img", MNT, table(ROOT), Machine())


def test_a_member_beneath_the_mount_is_refused_with_a_sentence():
    with pytest.raises(Refused) as caught:
        refuse_cycle("/mnt/o/arrays/x", MNT, table(ROOT), Machine())
    assert str(caught.value) == (
        "/mnt/o/arrays/x is beneath the mount point /mnt/o, so the mount would wait for itself; "
        "keep members outside of the mount that they serve"
    )
    assert caught.value.exit_code == 5


def test_a_filesystem_on_a_loop_device_over_the_mount_is_refused_and_the_way_is_told():
    mounts = table(ROOT, "7:3 / /srv/inner rw - ext4 /dev/loop3 rw")
    with pytest.raises(Refused, match=r"^/srv/inner/d0\.img is on /mnt/o/arrays/r5, beneath the mount point /mnt/o,"):
        refuse_cycle("/srv/inner/d0.img", MNT, mounts, Machine(loops={"7:3": "/mnt/o/arrays/r5"}))


def test_partitions_and_stacked_devices_are_followed():
    mounts = table(ROOT, "253:0 / /srv/inner rw - xfs /dev/mapper/vg-home rw")
    machine = Machine(stacked={"253:0": ["8:1", "259:2"], "259:2": ["7:0"]}, loops={"7:0": "/mnt/o/arrays/r5"})
    with pytest.raises(Refused):
        refuse_cycle("/srv/inner/d0.img", MNT, mounts, machine)


def test_btrfs_is_followed_by_its_source():
    mounts = table(ROOT, "0:77 / /srv/inner rw - btrfs /dev/loop9 rw")
    machine = Machine(names={"/dev/loop9": "7:9"}, loops={"7:9": "/mnt/o/arrays/r5"})
    with pytest.raises(Refused):
        refuse_cycle("/srv/inner/d0.img", MNT, mounts, machine)


def test_loops_over_loops_are_followed():
    mounts = table(ROOT, "7:1 / /a rw - ext4 /dev/loop1 rw", "7:2 / /b rw - ext4 /dev/loop2 rw")
    machine = Machine(loops={"7:2": "/a/b.img", "7:1": "/mnt/o/arrays/r5"})
    with pytest.raises(Refused, match=r"is on /a/b\.img, which is on /mnt/o/arrays/r5, beneath"):
        refuse_cycle("/b/d0.img", MNT, mounts, machine)


def test_an_overlay_is_followed_into_its_folders():
    mounts = table(ROOT, "0:9 / /merged rw - overlay overlay rw,lowerdir=/usr:/mnt/o/arrays,upperdir=/u,workdir=/w")
    with pytest.raises(Refused):
        refuse_cycle("/merged/d0.img", MNT, mounts, Machine())


def test_a_block_device_as_member_is_followed():
    with pytest.raises(Refused):
        refuse_cycle("/dev/loop4", MNT, table(ROOT), Machine(loops={"7:4": "/mnt/o/arrays/r5"}), device="7:4")
    refuse_cycle("/dev/loop4", MNT, table(ROOT), Machine(loops={"7:4": "/srv/file"}), device="7:4")


def test_a_mount_table_with_a_loop_of_its_own_ends():
    mounts = table(ROOT, "7:1 / /a rw - ext4 /dev/loop1 rw", "7:2 / /b rw - ext4 /dev/loop2 rw")
    machine = Machine(loops={"7:1": "/b/x", "7:2": "/a/y"}, stacked={"254:0": ["254:0"]})
    refuse_cycle("/a/d0.img", MNT, mounts, machine)


def test_sysfs_is_read_as_the_kernel_writes_it(tmp_path):
    disk = tmp_path / "devices" / "sda"
    (disk / "sda1").mkdir(parents=True)
    (disk / "dev").write_text("8:0\n")
    (disk / "sda1" / "dev").write_text("8:1\n")
    (disk / "sda1" / "partition").write_text("1\n")
    mapped = tmp_path / "devices" / "dm-0"
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves" / "sda1").symlink_to(disk / "sda1")
    loop = tmp_path / "devices" / "loop0"
    (loop / "loop").mkdir(parents=True)
    (loop / "loop" / "backing_file").write_text("/mnt/o/arrays/r 5 (deleted)\n")
    numbers = tmp_path / "dev" / "block"
    numbers.mkdir(parents=True)
    for number, folder in (("8:0", disk), ("8:1", disk / "sda1"), ("253:0", mapped), ("7:0", loop)):
        (numbers / number).symlink_to(folder)
    names = tmp_path / "class" / "block"
    names.mkdir(parents=True)
    (names / "sda1").symlink_to(disk / "sda1")

    devices = SysfsBlockDevices(tmp_path)
    assert devices.below("253:0") == ["8:1"]
    assert devices.below("8:1") == ["8:0"]
    assert devices.below("8:0") == []
    assert devices.backing_file("7:0") == "/mnt/o/arrays/r 5"
    assert devices.backing_file("8:0") is None
    assert devices.number("/dev/sda1") == "8:1"
    assert devices.number("nas:/export") is None
    assert devices.number("/dev/none") is None
