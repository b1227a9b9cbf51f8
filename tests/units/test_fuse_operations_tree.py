"""Names, attributes and everything that the tree refuses, called as plain coroutines."""

from __future__ import annotations

import errno
import os
import select
import stat

import pytest
import trio
import trio.testing

from orionfs.attributes import Attributes
from orionfs.backends.null import NullDevice
from orionfs.exposed import Exposed
from orionfs.fuse.operations import Changes
from orionfs.fuse.tree import ROOT_INODE
from orionfs.layers.bytewise import Bytewise
from orionfs.testing.ram import RamDevice
from tests.units.fuse_kit import GID, UID, Rig, fails_with


class HalfAllocated(RamDevice):
    def allocated(self):
        return self.geometry.size // 2 + 1


# --- names -----------------------------------------------------------------------------------------------------------


async def listing(rig, path):
    handle = await rig.operations.opendir(await rig.inode(path))
    entries = list(rig.operations.entries(handle, 0))
    await rig.operations.releasedir(handle)
    return entries


async def names(rig, path):
    return [entry.name for entry in await listing(rig, path)]


async def test_the_tree_has_what_the_design_says():
    rig = Rig()
    assert await names(rig, "") == [b".", b"..", b"arrays", b".orionfs"]
    assert await names(rig, "arrays") == [b".", b"..", b"vault"]
    assert await names(rig, ".orionfs") == [b".", b"..", b"status", b"config.toml", b"events"]


async def test_a_listing_continues_after_any_entry_also_when_entries_were_added_meanwhile():
    rig = Rig()
    handle = await rig.operations.opendir(await rig.inode(".orionfs"))
    entries = list(rig.operations.entries(handle, 0))
    rig.tree.add_document("later", lambda: b"")
    for index, entry in enumerate(entries):
        rest = [follower.name for follower in rig.operations.entries(handle, entry.position)]
        assert rest == [follower.name for follower in entries[index + 1 :]] + [b"later"]


async def test_entries_have_the_attributes_that_lookup_gives():
    rig = Rig()
    for path in ("", "arrays", ".orionfs"):
        for entry in await listing(rig, path):
            if entry.name not in (b"status", b"config.toml"):  # these are rendered when they are asked for
                assert entry.stat == await rig.operations.lookup(await rig.inode(path), entry.name)


async def test_inode_numbers_are_the_same_in_every_mount():
    paths = ("arrays", "arrays/vault", ".orionfs", ".orionfs/status", ".orionfs/events")
    first, second = Rig(), Rig()
    assert [await first.inode(path) for path in paths] == [await second.inode(path) for path in paths]
    assert len({await first.inode(path) for path in paths}) == len(paths)


async def test_a_broken_document_does_not_hide_the_others():
    rig = Rig()
    rig.tree.add_document("broken", lambda: 1 / 0)
    assert b"broken" in await names(rig, ".orionfs")
    with pytest.raises(ZeroDivisionError):
        await rig.inode(".orionfs/broken")


async def test_unknown_and_overlong_names():
    rig = Rig()
    with fails_with(errno.ENOENT):
        await rig.operations.lookup(ROOT_INODE, b"nothing")
    with fails_with(errno.ENAMETOOLONG):
        await rig.operations.lookup(ROOT_INODE, b"n" * 256)
    with fails_with(errno.ENOENT):
        await rig.operations.lookup(ROOT_INODE, b"n" * 255)
    with fails_with(errno.ENOTDIR):
        await rig.operations.lookup(await rig.inode("arrays/vault"), b"below")
    with fails_with(errno.ENOENT):
        await rig.operations.getattr(999)


async def test_dot_and_dot_dot_can_be_looked_up():
    rig = Rig()
    arrays = await rig.inode("arrays")
    assert (await rig.operations.lookup(arrays, b".")).inode == arrays
    assert (await rig.operations.lookup(arrays, b"..")).inode == ROOT_INODE
    assert (await rig.operations.lookup(ROOT_INODE, b"..")).inode == ROOT_INODE


async def test_a_new_kind_of_object_is_one_call():
    rig = Rig()
    volume = Exposed("home", "volumes/tank", Bytewise(RamDevice("home", 4096)), Attributes(0o600, 0, 0, 0, 0, 0))
    rig.tree.add_device(volume)
    assert await names(rig, "volumes/tank") == [b".", b"..", b"home"]
    assert (await rig.operations.getattr(await rig.inode("volumes"))).links == 3
    with pytest.raises(ValueError, match="there already"):
        rig.tree.add_device(volume)
    with pytest.raises(ValueError, match="not a folder"):
        rig.tree.folder("arrays/vault/deeper")


# --- attributes ------------------------------------------------------------------------------------------------------


async def test_folders_count_their_subfolders():
    rig = Rig()
    root = await rig.operations.getattr(ROOT_INODE)
    assert (root.mode, root.links, root.uid, root.gid) == (stat.S_IFDIR | 0o555, 4, UID, GID)
    assert (await rig.operations.getattr(await rig.inode("arrays"))).links == 2


async def test_a_device_file_shows_its_size_what_is_allocated_and_what_to_send():
    rig = Rig()
    device = HalfAllocated("big", 8 << 20)
    exposed = Exposed("big", "arrays", Bytewise(device), Attributes(0o604, 5, 6, 7, 8, 9))
    rig.tree.add_device(exposed)
    found = await rig.operations.getattr(await rig.inode("arrays/big"))
    assert (found.mode, found.links, found.uid, found.gid) == (stat.S_IFREG | 0o604, 1, 5, 6)
    assert (found.size, found.blocks) == (8 << 20, (4 << 11) + 1)
    assert (found.atime_ns, found.mtime_ns, found.ctime_ns) == (7, 8, 9)
    assert found.preferred_io == 4096


@pytest.mark.parametrize("size", [1 << 31, 1 << 32, 1 << 53, (1 << 63) - 4096])
async def test_sizes_and_offsets_are_exact_up_to_the_largest_file(size):
    rig = Rig()
    exposed = Exposed("huge", "arrays", Bytewise(NullDevice("huge", size)), Attributes(0o600, 0, 0, 0, 0, 0))
    rig.tree.add_device(exposed)
    found = await rig.operations.getattr(await rig.inode("arrays/huge"))
    assert found.size == size
    assert found.blocks <= size // 512
    handle = await rig.open("arrays/huge")
    assert await rig.operations.write(handle, size - 1000, b"x" * 4096) == 1000
    assert len(await rig.read(handle, size - 1000, 4096)) == 1000
    with fails_with(errno.ENOSPC):
        await rig.operations.write(handle, size, b"x")
    assert (await rig.operations.statfs()).blocks == (size + (1 << 20)) // 4096


async def test_statfs_counts_capacity_and_what_is_not_allocated_of_it():
    rig = Rig(size=1 << 20)  # all of it allocated
    device = HalfAllocated("big", 8 << 20)
    rig.tree.add_device(Exposed("big", "arrays", Bytewise(device), Attributes(0o600, 0, 0, 0, 0, 0)))
    claimed = Exposed("below", "arrays", Bytewise(RamDevice("below", 1 << 20)), Attributes(0, 0, 0, 0, 0, 0))
    claimed.claimed_by = "volumes/tank"
    rig.tree.add_device(claimed)
    found = await rig.operations.statfs()
    assert (found.block, found.name_max) == (4096, 255)
    assert (found.blocks, found.free) == (9 << 8, (4 << 8) - 1)
    assert found.files == 2 + 1 + 3 + 3  # folders below the root, the root, live files, devices


async def test_a_write_moves_mtime_and_ctime_and_a_read_moves_nothing():
    rig = Rig()
    handle = await rig.open()
    await rig.operations.read(handle, 0, 512)
    inode = await rig.inode("arrays/vault")
    before = await rig.operations.getattr(inode)
    assert (before.atime_ns, before.mtime_ns, before.ctime_ns) == (1, 2, 3)
    await rig.operations.write(handle, 0, b"x" * 512)
    after = await rig.operations.getattr(inode)
    assert after.atime_ns == 1
    assert after.mtime_ns == after.ctime_ns > 3


async def test_chmod_chown_and_utimes_change_a_device_file():
    rig = Rig()
    inode = await rig.inode("arrays/vault")
    found = await rig.operations.setattr(inode, Changes(mode=stat.S_IFREG | 0o604, uid=7, gid=8))
    assert (found.mode, found.uid, found.gid) == (stat.S_IFREG | 0o604, 7, 8)
    assert found.mtime_ns == 2
    assert found.ctime_ns > 3
    found = await rig.operations.setattr(inode, Changes(atime_ns=-5, mtime_ns=10**18))
    assert (found.atime_ns, found.mtime_ns) == (-5, 10**18)


@pytest.mark.parametrize(
    ("path", "code"),
    [("", errno.EPERM), ("arrays", errno.EPERM), (".orionfs", errno.EACCES), (".orionfs/status", errno.EACCES)],
)
@pytest.mark.parametrize("change", [{"mode": 0o777}, {"uid": 0}, {"size": 0}, {"mtime_ns": 0}])
async def test_nothing_but_device_files_can_be_changed(path, code, change):
    rig = Rig()
    with fails_with(code):
        await rig.operations.setattr(await rig.inode(path), Changes(**change))


@pytest.mark.parametrize(
    ("uid", "gid", "mask", "allowed"),
    [
        (UID, 0, os.R_OK | os.W_OK, True),
        (UID, 0, os.X_OK, False),
        (1, GID, os.R_OK, True),
        (1, GID, os.W_OK, False),
        (1, 1, os.R_OK, False),
        (0, 0, os.R_OK | os.W_OK, True),
        (0, 0, os.X_OK, False),
    ],
)
async def test_access_goes_by_mode_and_owner(uid, gid, mask, allowed):
    rig = Rig()  # 0640
    assert await rig.operations.access(await rig.inode("arrays/vault"), mask, uid, gid) is allowed


# --- what the tree refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "code"), [("", errno.EPERM), ("arrays", errno.EPERM), (".orionfs", errno.EACCES)])
async def test_nothing_can_be_made(path, code):
    rig = Rig()
    inode = await rig.inode(path)
    with fails_with(code):
        await rig.operations.create(inode, b"new")
    with fails_with(errno.ENAMETOOLONG):
        await rig.operations.create(inode, b"n" * 256)


async def test_what_is_there_already_is_said_to_be():
    rig = Rig()
    for parent, name in (("arrays", b"vault"), (".orionfs", b"status"), ("", b"arrays"), ("", b"..")):
        with fails_with(errno.EEXIST):
            await rig.operations.create(await rig.inode(parent), name)


@pytest.mark.parametrize(
    ("parent", "name", "folder", "code"),
    [
        ("arrays", b"vault", False, errno.EPERM),
        ("arrays", b"vault", True, errno.ENOTDIR),
        ("arrays", b"nothing", False, errno.ENOENT),
        ("arrays", b"nothing", True, errno.ENOENT),
        ("", b"arrays", True, errno.EPERM),
        ("", b"arrays", False, errno.EISDIR),
        ("", b".orionfs", True, errno.EPERM),
        (".orionfs", b"status", False, errno.EACCES),
    ],
)
async def test_nothing_can_be_removed(parent, name, folder, code):
    rig = Rig()
    with fails_with(code):
        await rig.operations.remove(await rig.inode(parent), name, folder=folder)


async def test_nothing_can_be_renamed():
    rig = Rig()
    arrays, control = await rig.inode("arrays"), await rig.inode(".orionfs")
    with fails_with(errno.EPERM):
        await rig.operations.rename(arrays, b"vault", arrays, b"other")
    with fails_with(errno.ENOENT):
        await rig.operations.rename(arrays, b"nothing", arrays, b"other")
    with fails_with(errno.ENAMETOOLONG):
        await rig.operations.rename(arrays, b"vault", arrays, b"n" * 256)
    for old, name, new in ((control, b"status", arrays), (arrays, b"vault", control)):
        with fails_with(errno.EACCES):
            await rig.operations.rename(old, name, new, b"other")


async def test_there_are_no_symbolic_links():
    rig = Rig()
    for path in ("arrays", "arrays/vault", ".orionfs/status"):
        with fails_with(errno.EINVAL):
            await rig.operations.readlink(await rig.inode(path))


# --- extended attributes ---------------------------------------------------------------------------------------------


async def test_extended_attributes_tell_what_the_device_says_of_itself():
    rig = Rig()
    inode = await rig.inode("arrays/vault")
    listed = await rig.operations.listxattr(inode)
    assert {b"user.orionfs.kind", b"user.orionfs.name", b"user.orionfs.state"} <= set(listed)
    description = rig.faulty.describe()
    assert await rig.operations.getxattr(inode, b"user.orionfs.name") == b"vault"
    assert await rig.operations.getxattr(inode, b"user.orionfs.state") == description.state.encode()
    rig.exposed.latch("a bug")
    assert await rig.operations.getxattr(inode, b"user.orionfs.latched") == b"a bug"


@pytest.mark.parametrize("path", ["", "arrays", ".orionfs/status"])
async def test_other_objects_have_no_extended_attributes(path):
    rig = Rig()
    inode = await rig.inode(path)
    assert await rig.operations.listxattr(inode) == []
    with fails_with(errno.ENODATA):
        await rig.operations.getxattr(inode, b"user.orionfs.name")


async def test_extended_attributes_cannot_be_set_or_removed():
    rig = Rig()
    inode = await rig.inode("arrays/vault")
    with fails_with(errno.EPERM):
        await rig.operations.setxattr(inode, b"user.orionfs.state")
    with fails_with(errno.EOPNOTSUPP):
        await rig.operations.setxattr(inode, b"user.comment")
    with fails_with(errno.EPERM):
        await rig.operations.removexattr(inode, b"user.orionfs.state")
    for name in (b"user.orionfs.nothing", b"user.comment", b"security.capability"):
        with fails_with(errno.ENODATA):
            await rig.operations.removexattr(inode, name)
        with fails_with(errno.ENODATA):
            await rig.operations.getxattr(inode, name)
    with fails_with(errno.EACCES):
        await rig.operations.setxattr(await rig.inode(".orionfs/status"), b"user.orionfs.state")


# --- documents -------------------------------------------------------------------------------------------------------


async def test_a_reader_of_a_document_keeps_the_rendering_that_it_opened():
    rig = Rig()
    handle = await rig.open(".orionfs/status", os.O_RDONLY)
    assert await rig.read(handle, 0, 4) == b"all "
    rig.text = b"something else, and longer\n"
    assert await rig.read(handle, 4, 100) == b"is well\n"
    other = await rig.open(".orionfs/status", os.O_RDONLY)
    assert await rig.read(other, 0, 100) == rig.text


async def test_the_size_of_a_document_is_that_of_what_a_reader_gets():
    rig = Rig()
    inode = await rig.inode(".orionfs/status")
    first = await rig.operations.getattr(inode)
    assert first.size == len(rig.text)
    rig.text = b"longer than before\n"
    second = await rig.operations.getattr(inode)
    assert second.size == len(rig.text)
    assert second.mtime_ns > first.mtime_ns
    handle = await rig.open(".orionfs/status", os.O_RDONLY)
    rig.text = b"x"
    assert (await rig.operations.getattr(inode)).size == len(await rig.read(handle, 0, 100))
    await rig.operations.release(handle)
    assert (await rig.operations.getattr(inode)).size == 1


async def test_the_configuration_is_private_and_the_rest_is_not():
    rig = Rig()
    for name, mode in (("config.toml", 0o400), ("status", 0o444), ("events", 0o444)):
        found = await rig.operations.getattr(await rig.inode(f".orionfs/{name}"))
        assert (stat.S_IMODE(found.mode), found.uid, found.gid) == (mode, UID, GID)


async def test_documents_may_be_synced_flushed_and_polled_like_any_file():
    rig = Rig()
    handle = await rig.open(".orionfs/status", os.O_RDONLY)
    await rig.operations.fsync(handle)
    await rig.operations.flush(handle)
    assert await rig.operations.poll(handle, None) & select.POLLIN
    folder = await rig.operations.opendir(ROOT_INODE)
    await rig.operations.fsyncdir(folder)


# --- poll ------------------------------------------------------------------------------------------------------------


async def test_whoever_polls_the_events_is_woken_by_the_next_one(nursery):
    rig = Rig()
    nursery.start_soon(rig.operations.run)
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    woken = trio.Event()
    assert await rig.operations.poll(handle, woken.set) == 0
    await trio.testing.wait_all_tasks_blocked()
    assert not woken.is_set()
    rig.events.emit("test.happened", "vault", "it did")
    with trio.fail_after(5):
        await woken.wait()
    assert await rig.operations.poll(handle, None) & select.POLLIN
    assert await rig.read(handle, 0, 4096)
    assert await rig.operations.poll(handle, None) == 0


async def test_nobody_is_woken_after_closing(nursery):
    rig = Rig()
    nursery.start_soon(rig.operations.run)
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    woken = trio.Event()
    await rig.operations.poll(handle, woken.set)
    await rig.operations.release(handle)
    rig.events.emit("test.happened", "vault", "it did")
    await trio.testing.wait_all_tasks_blocked()
    assert not woken.is_set()


async def test_a_device_file_is_always_ready():
    rig = Rig()
    handle = await rig.open()
    assert await rig.operations.poll(handle, None) & (select.POLLIN | select.POLLOUT) == select.POLLIN | select.POLLOUT


async def test_a_device_that_is_removed_stays_for_those_who_have_it_open():
    rig = Rig()
    inode, folder = await rig.inode("arrays/vault"), await rig.inode("arrays")
    handle = await rig.open()
    assert rig.exposed.open_count == 1
    told = []
    rig.tree.on_removed = lambda *what: told.append(what)
    rig.tree.remove_device(rig.exposed)
    assert told == [(folder, b"vault", inode)]
    with fails_with(errno.ENOENT):
        await rig.inode("arrays/vault")
    with fails_with(errno.ENOENT):
        await rig.operations.open(inode, os.O_RDONLY)
    assert (await rig.operations.getattr(inode)).links == 0
    assert (await rig.operations.statfs()).blocks == 0
    rig.tree.add_device(rig.exposed)
    assert await rig.inode("arrays/vault") != inode
    await rig.operations.release(handle)
    assert rig.exposed.open_count == 0
    with trio.fail_after(1):
        await rig.exposed.await_release()


async def test_the_last_one_to_close_is_waited_for():
    rig = Rig()
    first, second = await rig.open(), await rig.open()
    released = trio.Event()

    async def wait() -> None:
        await rig.exposed.await_release()
        released.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await rig.operations.release(first)
        await trio.testing.wait_all_tasks_blocked()
        assert not released.is_set()
        await rig.operations.release(second)
    assert released.is_set()


def test_what_is_not_in_the_tree_cannot_be_removed():
    rig = Rig()
    rig.tree.remove_device(rig.exposed)
    with pytest.raises(ValueError, match="not in the tree"):
        rig.tree.remove_device(rig.exposed)
