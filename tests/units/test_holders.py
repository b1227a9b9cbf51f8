"""Who keeps a mount busy: found by links alone, so that nothing waits for the mount."""

import dataclasses
import mmap
import os
import sys

from orionfs.tools.holders import Holder, describe_holders, find_holders, find_namespaces
from orionfs.tools.mountinfo import mount_of, parse_mountinfo, read_mounts


def test_an_open_file_a_working_directory_and_a_mapping_are_found(tmp_path, monkeypatch):
    folder = tmp_path.resolve()
    (folder / "open").write_bytes(b"x")
    (folder / "mapped").write_bytes(bytes(4096))
    monkeypatch.chdir(folder)
    descriptor = os.open(folder / "mapped", os.O_RDONLY)
    with (folder / "open").open(), mmap.mmap(descriptor, 4096, prot=mmap.PROT_READ):
        os.close(descriptor)
        holders = find_holders(str(folder), [])
    me = [holder for holder in holders if holder.who.endswith(f"[{os.getpid()}]")]
    assert {holder.what for holder in me} >= {str(folder), str(folder / "open"), str(folder / "mapped")}
    assert find_holders(str(folder / "nothing"), []) == []


def test_a_deleted_file_still_holds(tmp_path):
    with (tmp_path / "gone").open("w"):
        (tmp_path / "gone").unlink()
        assert [holder.what for holder in find_holders(str(tmp_path), [])] == [str(tmp_path / "gone")]


def test_loop_devices_are_named_with_their_file(tmp_path):
    for name, backing in (("loop0", "/mnt/o/arrays/r5\n"), ("loop1", "/srv/x\n"), ("loop7", "/mnt/o/gone (deleted)\n")):
        (tmp_path / name / "loop").mkdir(parents=True)
        (tmp_path / name / "loop" / "backing_file").write_text(backing)
    (tmp_path / "loop2").mkdir()
    (tmp_path / "proc").mkdir()
    holders = find_holders("/mnt/o", [], proc=tmp_path / "proc", sys_block=tmp_path)
    assert holders == [Holder("/dev/loop0", "/mnt/o/arrays/r5"), Holder("/dev/loop7", "/mnt/o/gone")]


def test_a_mount_on_top_is_named(tmp_path):
    mounts = parse_mountinfo("30 27 0:40 / /mnt/o rw - fuse.orionfs x rw\n31 30 0:9 / /mnt/o/arrays rw - tmpfs t rw")
    assert find_holders("/mnt/o", mounts, proc=tmp_path, sys_block=tmp_path) == [Holder("a mount", "/mnt/o/arrays")]


def test_namespaces_that_see_a_filesystem_are_found_once():
    here = mount_of(read_mounts(), os.path.realpath(sys.executable))
    assert here is not None
    found = find_namespaces(here)
    assert found
    assert all("mount namespace of" in holder.who for holder in found)
    # A device number that was given away again: somebody else's mount, not this one.
    assert find_namespaces(dataclasses.replace(here, source="something else")) == []


def test_a_long_list_is_cut_with_the_number_of_the_rest():
    holders = [Holder(f"fio[{n}]", "/mnt/o/arrays/r5") for n in range(10)]
    text = describe_holders(holders, limit=2)
    assert text == "fio[0] (/mnt/o/arrays/r5), fio[1] (/mnt/o/arrays/r5) and 8 more"
