"""Operations: what every file operation does, known to no transport.

Handlers raise :class:`~orionfs.errors.OrionError` or OSError; :meth:`Operations.errno_of` turns those and anything
else into the errno that the program gets.  All run on the event loop.  Permission bits are checked by the kernel
(the mount always has ``default_permissions``), so what is refused here is what nobody may do.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from orionfs.attributes import AttributeStore
from orionfs.errors import Refused
from orionfs.exposed import XATTR_PREFIX, Exposed
from orionfs.fuse.failures import Failures
from orionfs.fuse.files import DeviceFile, DocumentFile, EventsFile, OpenFile
from orionfs.fuse.stat import FsStat, Stat
from orionfs.fuse.tree import NAME_MAX, DeviceNode, DocumentNode, EventsNode, Folder, Node, Tree


@dataclass(slots=True)
class Changes:
    """What setattr is to change; None leaves a field as it is."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class Opened(NamedTuple):
    """A new handle.  ``live`` files change by themselves, so nothing of them may stay in the page cache."""

    handle: int
    live: bool


class Entry(NamedTuple):
    """One line of a listing; ``position`` goes into the next readdir to continue after it."""

    position: int
    name: bytes
    stat: Stat


class Operations:
    """The handlers, over *tree*.  *store* keeps chmod, chown and utimes; without one they last until the unmount."""

    def __init__(self, tree: Tree, store: AttributeStore | None = None) -> None:
        self.tree = tree
        #: Open files by handle.  The binding reads this on its fast path.
        self.files: dict[int, OpenFile] = {}
        self._store = store
        self._folders: dict[int, Folder] = {}
        self._next_handle = 1
        self._wakes: dict[int, Callable[[], None]] = {}
        self._failures = Failures(tree.events, tree.clock)

    async def run(self) -> None:
        """Wake those who poll the events whenever there is a new one.  Runs until it is cancelled."""
        seen = self.tree.events.last
        while True:
            await self.tree.events.wait(seen)
            seen = self.tree.events.last
            wakes, self._wakes = self._wakes, {}
            for wake in wakes.values():
                wake()

    # --- failures --------------------------------------------------------------------------------------------------

    def errno_of(
        self, handler: str, error: Exception, *, inode: int = 0, handle: int = 0, writing: bool = False
    ) -> int:
        """The errno for *error*, which *handler* raised for *inode* or *handle*.  Never raises.

        *writing* says that the handler might have changed a device: an error that is a bug then latches it read-only.
        """
        node: Node | None
        if handle:
            file = self.files.get(handle)
            node = file.node if file else self._folders.get(handle)
        else:
            node = self.tree.node(inode)
        exposed = node.exposed if isinstance(node, DeviceNode) else None
        subject = (node.path or "/") if node else "?"
        return self._failures.errno_of(handler, subject, error, exposed, writing)

    # --- names and attributes ----------------------------------------------------------------------------------------

    async def lookup(self, parent: int, name: bytes) -> Stat:
        """The attributes of entry *name*, also of ``.`` and ``..``.  ENOENT, ENAMETOOLONG."""
        folder = self._folder(parent)
        if name == b".":
            return folder.stat()
        if name == b"..":
            return (folder.parent or folder).stat()
        return self._child(folder, name).stat()

    async def getattr(self, inode: int) -> Stat:
        """The attributes of *inode*."""
        return self._node(inode).stat()

    async def setattr(self, inode: int, changes: Changes) -> Stat:
        """Change what *changes* names, the size first; the attributes as they are then.

        Mode, owner, group and times of a device file are on disk when this returns; if they cannot be saved, they stay
        as they were and the reason is raised.  A size other than the present one is refused, ignored, or zeroes what is
        behind it, as the object's ``truncate`` says; the size itself never changes.  After zeroing, this one answer has
        the size that was asked for and expires at once: only then the kernel drops what it has cached of the rest.
        """
        node = self._node(inode)
        if not isinstance(node, DeviceNode):
            raise _refusal(node, f"{node.path or 'the root'} cannot be changed")
        exposed = node.exposed
        zeroed = False
        if changes.size is not None:
            zeroed = await self._truncate(exposed, changes.size)
        values = {name: getattr(changes, name) for name in _SETTABLE if getattr(changes, name) is not None}
        if values:
            await self._set_attributes(exposed, values)
        found = node.stat()
        if zeroed and changes.size is not None:
            found.size = changes.size
            found.attribute_timeout_s = 0.0
        return found

    async def access(self, inode: int, mask: int, uid: int, gid: int) -> bool:
        """Whether *uid* and *gid* may do what *mask* (R_OK, W_OK, X_OK) says, by the permission bits.

        Linux never asks: it checks by itself, supplementary groups included, since the mount has default_permissions.
        """
        found = self._node(inode).stat()
        if uid == 0:
            return not mask & os.X_OK or bool(found.mode & 0o111)
        shift = 6 if uid == found.uid else 3 if gid == found.gid else 0
        return (found.mode >> shift) & mask == mask

    async def readlink(self, inode: int) -> NoReturn:
        """EINVAL: there are no symbolic links."""
        node = self._node(inode)
        raise OSError(errno.EINVAL, f"{node.path} is not a symbolic link")

    async def statfs(self) -> FsStat:
        """Capacity and what is not allocated of it."""
        return self.tree.statfs()

    # --- changes of the tree, which are not made through the tree ---------------------------------------------------

    async def create(self, parent: int, name: bytes) -> NoReturn:
        """create, mknod, mkdir, symlink and link: EEXIST, EACCES in ``.orionfs``, EPERM elsewhere."""
        folder = self._folder(parent)
        _check_name(name)
        if folder.child(name) is not None or name in (b".", b".."):
            raise OSError(errno.EEXIST, f"{os.fsdecode(name)} is there already")
        raise _refusal(folder, "objects are made with orionctl, not in the mounted tree")

    async def remove(self, parent: int, name: bytes, *, folder: bool) -> NoReturn:
        """unlink and, with *folder*, rmdir: ENOENT, EISDIR, ENOTDIR, EACCES in ``.orionfs``, EPERM elsewhere."""
        holder = self._folder(parent)
        node = self._child(holder, name)
        if folder and not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, f"{node.path} is not a folder")
        if not folder and isinstance(node, Folder):
            raise OSError(errno.EISDIR, f"{node.path} is a folder")
        raise _refusal(holder, "objects are removed with orionctl, not in the mounted tree")

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> NoReturn:
        """ENOENT, EACCES if either side is in ``.orionfs``, EPERM elsewhere."""
        holder, target = self._folder(parent), self._folder(new_parent)
        self._child(holder, name)
        _check_name(new_name)
        raise _refusal(target if target.controlled else holder, "objects keep their names while they are mounted")

    # --- files -------------------------------------------------------------------------------------------------------

    async def open(self, inode: int, flags: int) -> Opened:
        """Open a file.  *flags* are open(2)'s; O_TRUNC among them does what the object's ``truncate`` says.

        EISDIR; EACCES for writing in ``.orionfs`` or to a claimed device; EROFS for writing to a read-only one.
        """
        node = self._node(inode)
        if isinstance(node, Folder):
            raise OSError(errno.EISDIR, f"{node.path or 'the root'} is a folder")
        writing = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
        if not isinstance(node, DeviceNode):
            if writing:
                raise OSError(errno.EACCES, f"{node.path} cannot be written")
            return Opened(self._add_file(_open_live(node)), live=True)
        if node.removed:
            raise OSError(errno.ENOENT, f"{node.path} was taken away")
        if writing:
            node.exposed.check_writable()
        if flags & os.O_TRUNC:
            await self._truncate(node.exposed, 0)
        return Opened(self._add_file(DeviceFile(node, self.tree.clock)), live=False)

    async def read(self, handle: int, offset: int, length: int) -> memoryview | bytes:
        """*length* bytes from *offset*, fewer only at the end of the file.

        What is returned may be memory that the next read uses again: copy or send it before the next checkpoint.
        """
        file = self._file(handle)
        data = file.read_now(offset, length)
        return await file.read(offset, length) if data is None else data

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Store *data*; its length, or less if the device ends before.  ENOSPC if it begins at the end or behind."""
        file = self._file(handle)
        stored = file.write_now(offset, data)
        return await file.write(offset, data) if stored is None else stored

    async def fsync(self, handle: int) -> None:
        """Make every write that completed before durable.

        Times are not part of that: they reach the disk with the next chmod or the unmount, as with lazytime, because
        a file system on a loop device syncs far too often for a second file to be rewritten each time.
        """
        await self._file(handle).sync()

    async def flush(self, handle: int) -> None:
        """One close(2): report a failed flush that this handle's writes may have been part of.  Flushes nothing."""
        error = self._file(handle).close_error()
        if error is not None:
            raise error

    async def release(self, handle: int) -> None:
        """Forget the handle."""
        file = self._file(handle)
        del self.files[handle]
        self._wakes.pop(handle, None)
        file.release()

    async def poll(self, handle: int, wake: Callable[[], None] | None) -> int:
        """What is ready, as poll(2)'s bits.  If that is nothing, *wake* is called once when it may have changed."""
        file = self.files.get(handle)
        if file is None or file.unread():
            self._wakes.pop(handle, None)
            return select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM
        if wake is not None:
            self._wakes[handle] = wake
        return 0

    # --- folders -----------------------------------------------------------------------------------------------------

    async def opendir(self, inode: int) -> int:
        """A handle to list folder *inode*."""
        handle = self._new_handle()
        self._folders[handle] = self._folder(inode)
        return handle

    def entries(self, handle: int, after: int) -> Iterator[Entry]:
        """The entries behind position *after* (0: all of them), ``.`` and ``..`` first."""
        folder = self._folders.get(handle)
        if folder is None:
            raise OSError(errno.EBADF, "no such handle")
        for position, name, node in folder.entries(after):
            found = node.listed_stat() if isinstance(node, DocumentNode) else node.stat()
            yield Entry(position, name, found)

    async def fsyncdir(self, handle: int) -> None:
        """Nothing to do: the tree is made from the configuration, which is durable already."""
        if handle not in self._folders:
            raise OSError(errno.EBADF, "no such handle")

    async def releasedir(self, handle: int) -> None:
        """Forget the handle."""
        self._folders.pop(handle, None)

    # --- extended attributes ----------------------------------------------------------------------------------------

    async def getxattr(self, inode: int, name: bytes) -> bytes:
        """The value of *name*.  ENODATA if there is none."""
        text = os.fsdecode(name)
        if text.startswith(XATTR_PREFIX):
            value = self._xattrs(inode).get(text)
            if value is not None:
                return value
        raise OSError(errno.ENODATA, f"no extended attribute {text}")

    async def listxattr(self, inode: int) -> list[bytes]:
        """The names that :meth:`getxattr` knows."""
        return [name.encode() for name in self._xattrs(inode)]

    async def setxattr(self, inode: int, name: bytes) -> NoReturn:
        """EPERM for ours (EACCES in ``.orionfs``), which only tell; EOPNOTSUPP for all others."""
        node = self._node(inode)
        if os.fsdecode(name).startswith(XATTR_PREFIX):
            raise _refusal(node, "the attributes user.orionfs.* only tell; orionctl changes things")
        raise OSError(errno.EOPNOTSUPP, "no other extended attributes are stored")

    async def removexattr(self, inode: int, name: bytes) -> NoReturn:
        """ENODATA if there is no such attribute, else as :meth:`setxattr`."""
        await self.getxattr(inode, name)
        await self.setxattr(inode, name)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _node(self, inode: int) -> Node:
        node = self.tree.node(inode)
        if node is None:
            raise OSError(errno.ENOENT, f"no object has inode {inode}")
        return node

    def _folder(self, inode: int) -> Folder:
        node = self._node(inode)
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, f"{node.path} is not a folder")
        return node

    def _child(self, folder: Folder, name: bytes) -> Node:
        _check_name(name)
        node = folder.child(name)
        if node is None:
            raise OSError(errno.ENOENT, f"no {os.fsdecode(name)} in {folder.path or 'the root'}")
        return node

    def _file(self, handle: int) -> OpenFile:
        file = self.files.get(handle)
        if file is None:
            raise OSError(errno.EBADF, "no such handle")
        return file

    def _new_handle(self) -> int:
        handle = self._next_handle
        self._next_handle += 1
        return handle

    def _add_file(self, file: OpenFile) -> int:
        handle = self._new_handle()
        self.files[handle] = file
        return handle

    def _xattrs(self, inode: int) -> dict[str, bytes]:
        node = self._node(inode)
        return node.exposed.xattrs() if isinstance(node, DeviceNode) else {}

    async def _truncate(self, exposed: Exposed, size: int) -> bool:
        """Do what the object's ``truncate`` says about making it *size* bytes long; whether that zeroed anything."""
        exposed.check_writable()
        capacity = exposed.device.geometry.size
        if size == capacity or exposed.truncate == "ignore":
            return False
        if exposed.truncate == "refuse":
            raise Refused(
                f"{exposed.key} is a device: its size is fixed, and it is not truncated",
                hint="write without truncating: dd conv=notrunc, qemu-img convert -n",
            )
        if size > capacity:
            raise OSError(errno.EFBIG, f"{exposed.key} cannot grow beyond its {capacity} bytes")
        exposed.attributes.mtime_ns = exposed.attributes.ctime_ns = self.tree.clock.wall_ns()
        await exposed.device.write_zeroes(size, capacity - size)
        return True

    async def _set_attributes(self, exposed: Exposed, values: dict[str, int]) -> None:
        attributes = exposed.attributes
        before = {name: getattr(attributes, name) for name in values}
        if "mode" in values:
            values["mode"] = stat.S_IMODE(values["mode"])
        for name, value in values.items():
            setattr(attributes, name, value)
        attributes.ctime_ns = self.tree.clock.wall_ns()
        if self._store is None:
            return
        try:
            await self._store.save()
        except BaseException:
            for name, value in before.items():
                if getattr(attributes, name) == values[name]:  # unless somebody else has set it since
                    setattr(attributes, name, value)
            raise


_SETTABLE = ("mode", "uid", "gid", "atime_ns", "mtime_ns")


def _open_live(node: Node) -> OpenFile:
    if isinstance(node, DocumentNode):
        return DocumentFile(node)
    if isinstance(node, EventsNode):
        return EventsFile(node)
    raise TypeError(f"{node.path} cannot be opened")


def _check_name(name: bytes) -> None:
    if len(name) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, f"names have at most {NAME_MAX} bytes")


def _refusal(node: Node, why: str) -> OSError:
    """EACCES in ``.orionfs``, which nobody writes; EPERM elsewhere, where the operation itself is what is wrong."""
    return OSError(errno.EACCES if node.controlled else errno.EPERM, why)
