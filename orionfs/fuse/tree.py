"""The mounted tree: folders, device files, documents and the event stream, each with a stable inode number."""

from __future__ import annotations

import abc
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from orionfs.clock import Clock
from orionfs.exposed import Exposed
from orionfs.fuse.event_stream import EventStream
from orionfs.fuse.stat import FsStat, Stat
from orionfs.monitor.events import EventLog
from orionfs.units import MIB, SECTOR, round_up

ROOT_INODE = 1
CONTROL_FOLDER = ".orionfs"
EVENTS = "events"

#: As on other filesystems of Linux.
NAME_MAX = 255
#: statfs counts in these; loop discards in these.
STATFS_BLOCK = 4096

# How long the kernel may believe what it was told.  Names: a second, so that an object that appears or goes is seen
# soon and a path walk costs nothing.  Attributes of a device file: all of them change through the kernel, which then
# forgets them by itself, so they could stay for ever; every refresh with a new mtime makes it drop the file's page
# cache, so they stay for a minute.  Documents and events change by themselves: not at all.
_ENTRY_TIMEOUT_S = 1.0
_FOLDER_TIMEOUT_S = 1.0
_DEVICE_TIMEOUT_S = 60.0
_LIVE_TIMEOUT_S = 0.0

#: The configuration may name hosts and paths that are nobody else's business; the rest is as public as /proc/mdstat.
_PRIVATE_DOCUMENTS = frozenset({"config.toml"})


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom folders and documents belong to, and since when."""

    uid: int
    gid: int
    since_ns: int


class Node(abc.ABC):
    """One object of the tree.  ``path`` is relative to the mount, empty for its root."""

    def __init__(self, inode: int, path: str, parent: Folder | None) -> None:
        self.inode = inode
        self.path = path
        self.parent = parent

    @abc.abstractmethod
    def stat(self) -> Stat:
        """Its attributes as of now.  Cheap; does not wait."""

    @property
    def controlled(self) -> bool:
        """Whether it is in (or is) ``.orionfs``, where nothing can be written."""
        return self.path == CONTROL_FOLDER or self.path.startswith(CONTROL_FOLDER + "/")


class Folder(Node):
    """A folder.  Its entries keep their readdir positions for as long as they are there."""

    def __init__(self, inode: int, path: str, parent: Folder | None, owner: Owner) -> None:
        super().__init__(inode, path, parent)
        self._owner = owner
        self._children: dict[bytes, tuple[int, Node]] = {}
        self._next_position = 3  # 1 and 2 are . and ..

    def child(self, name: bytes) -> Node | None:
        """The entry *name*, if there is one; ``.`` and ``..`` are not entries."""
        found = self._children.get(name)
        return found[1] if found else None

    def add(self, name: bytes, node: Node) -> None:
        """Make *node* the entry *name*.  ValueError if the name is taken."""
        if name in self._children:
            raise ValueError(f"{node.path} is there already")
        self._children[name] = (self._next_position, node)
        self._next_position += 1

    def remove(self, name: bytes) -> None:
        """Take the entry *name* out, which is there."""
        del self._children[name]

    def entries(self, after: int) -> Iterator[tuple[int, bytes, Node]]:
        """Position, name and node of every entry behind position *after* (0: all), ``.`` and ``..`` first."""
        if after < 1:
            yield 1, b".", self
        if after < 2:
            yield 2, b"..", self.parent or self
        for name, (position, node) in list(self._children.items()):
            if position > after:
                yield position, name, node

    def stat(self) -> Stat:
        folders = sum(isinstance(node, Folder) for _, node in self._children.values())
        since = self._owner.since_ns
        return Stat(
            inode=self.inode,
            mode=stat.S_IFDIR | 0o555,
            links=2 + folders,
            uid=self._owner.uid,
            gid=self._owner.gid,
            size=0,
            blocks=0,
            preferred_io=4096,
            atime_ns=since,
            mtime_ns=since,
            ctime_ns=since,
            entry_timeout_s=_ENTRY_TIMEOUT_S,
            attribute_timeout_s=_FOLDER_TIMEOUT_S,
        )


class DeviceNode(Node):
    """The file of a device: as large as its capacity, for ever."""

    def __init__(self, inode: int, path: str, parent: Folder, exposed: Exposed) -> None:
        super().__init__(inode, path, parent)
        self.exposed = exposed
        #: Whether it is in the tree no more, so that it can only be used by those who had it open.
        self.removed = False

    def stat(self) -> Stat:
        device = self.exposed.device
        geometry = device.geometry
        attributes = self.exposed.attributes
        # A device that takes no writes shows no write permission: what ls says and what open does must agree.
        permissions = attributes.mode if self.exposed.writable else attributes.mode & ~0o222
        return Stat(
            inode=self.inode,
            mode=stat.S_IFREG | permissions,
            links=0 if self.removed else 1,
            uid=attributes.uid,
            gid=attributes.gid,
            size=geometry.size,
            blocks=min(round_up(device.allocated(), SECTOR), geometry.size) // SECTOR,
            preferred_io=_preferred_io(geometry.preferred_io),
            atime_ns=attributes.atime_ns,
            mtime_ns=attributes.mtime_ns,
            ctime_ns=attributes.ctime_ns,
            entry_timeout_s=_ENTRY_TIMEOUT_S,
            attribute_timeout_s=_DEVICE_TIMEOUT_S,
        )


def _preferred_io(size: int) -> int:
    """The power of two that is not above *size*, from 4 KiB to 1 MiB: the kernel keeps no more of it than that."""
    return max(4096, min(1 << (max(size, 1).bit_length() - 1), MIB))


class LiveNode(Node):
    """What all files of ``.orionfs`` share: nobody writes them, and the kernel must always ask for their size."""

    def __init__(self, inode: int, path: str, parent: Folder, owner: Owner, permissions: int) -> None:
        super().__init__(inode, path, parent)
        self._owner = owner
        self._permissions = permissions

    def live_stat(self, size: int, mtime_ns: int) -> Stat:
        """The attributes of a file of *size* bytes that changed last at *mtime_ns* (0: not yet)."""
        changed = mtime_ns or self._owner.since_ns
        return Stat(
            inode=self.inode,
            mode=stat.S_IFREG | self._permissions,
            links=1,
            uid=self._owner.uid,
            gid=self._owner.gid,
            size=size,
            blocks=0,
            preferred_io=4096,
            atime_ns=changed,
            mtime_ns=changed,
            ctime_ns=changed,
            entry_timeout_s=_ENTRY_TIMEOUT_S,
            attribute_timeout_s=_LIVE_TIMEOUT_S,
        )


class DocumentNode(LiveNode):
    """A text that is rendered when it is opened; the reader keeps that rendering until it closes the file."""

    def __init__(
        self,
        inode: int,
        path: str,
        parent: Folder,
        owner: Owner,
        permissions: int,
        render: Callable[[], bytes],
        clock: Clock,
    ) -> None:
        super().__init__(inode, path, parent, owner, permissions)
        self._render = render
        self._clock = clock
        self._latest: bytes | None = None
        self._changed_ns = 0
        #: How many readers have it open.
        self.open_count = 0

    def rendering(self) -> bytes:
        """The document as of now."""
        text = self._render()
        if text != self._latest:
            self._latest = text
            self._changed_ns = self._clock.wall_ns()
        return text

    def stat(self) -> Stat:
        # fstat after open has to agree with what is read: while there are readers, the size is that of the rendering
        # that the last of them was given.
        text = self._latest if self.open_count and self._latest is not None else self.rendering()
        return self.live_stat(len(text), self._changed_ns)

    def listed_stat(self) -> Stat:
        """For a listing of the folder: renders nothing, so that one broken document does not hide all others."""
        return self.live_stat(len(self._latest or b""), self._changed_ns)


class EventsNode(LiveNode):
    """The event log as a file that grows."""

    def __init__(self, inode: int, path: str, parent: Folder, owner: Owner, stream: EventStream) -> None:
        super().__init__(inode, path, parent, owner, 0o444)
        self.stream = stream

    def stat(self) -> Stat:
        self.stream.sync()
        return self.live_stat(self.stream.end, self.stream.mtime_ns)


class Tree:
    """All nodes by inode number.  Used on the event loop only.

    *uid* and *gid* own folders and documents.  A new kind of object is a call of :meth:`add_device` with its own
    ``folder``, or of :meth:`folder`.
    """

    def __init__(
        self,
        exposed: Iterable[Exposed],
        documents: Mapping[str, Callable[[], bytes]],
        events: EventLog,
        *,
        uid: int,
        gid: int,
        clock: Clock,
    ) -> None:
        self.events = events
        self.clock = clock
        self._owner = Owner(uid, gid, clock.wall_ns())
        self.root = Folder(ROOT_INODE, "", None, self._owner)
        self._nodes: dict[int, Node] = {ROOT_INODE: self.root}
        self._removed: dict[int, DeviceNode] = {}
        #: Told the inodes of the folder and of the node, and the name, of what was taken out: the kernel remembers it.
        self.on_removed: Callable[[int, bytes, int], None] = lambda _folder, _name, _inode: None
        self.folder("arrays")
        control = self.folder(CONTROL_FOLDER)
        for name, render in documents.items():
            self.add_document(name, render)
        path = f"{CONTROL_FOLDER}/{EVENTS}"
        stream = EventStream(events)
        self._adopt(control, EVENTS, EventsNode(self._inode_for(path), path, control, self._owner, stream))
        for one in exposed:
            self.add_device(one)

    def node(self, inode: int) -> Node | None:
        """The node with that number, if there is one; also one that was removed."""
        return self._nodes.get(inode) or self._removed.get(inode)

    def folder(self, path: str) -> Folder:
        """The folder at *path* (``volumes/tank``), made with its parents if it is not there yet."""
        here = self.root
        for name in path.split("/"):
            child = here.child(os.fsencode(name))
            if child is None:
                below = f"{here.path}/{name}" if here.path else name
                child = Folder(self._inode_for(below), below, here, self._owner)
                self._adopt(here, name, child)
            if not isinstance(child, Folder):
                raise ValueError(f"{child.path} is not a folder")
            here = child
        return here

    def add_device(self, exposed: Exposed) -> DeviceNode:
        """Show *exposed* in its folder.  ValueError if something has that name already."""
        folder = self.folder(exposed.folder)
        node = DeviceNode(self._inode_for(exposed.key), exposed.key, folder, exposed)
        self._adopt(folder, exposed.name, node)
        return node

    def remove_device(self, exposed: Exposed) -> None:
        """Take the file of *exposed* out of the tree.  For those who have it open it lives on, without a name.

        Its inode number is not used again: the kernel may still have pages under it.
        """
        folder = self.folder(exposed.folder)
        name = os.fsencode(exposed.name)
        node = folder.child(name)
        if not isinstance(node, DeviceNode):
            raise ValueError(f"{exposed.key} is not in the tree")
        folder.remove(name)
        del self._nodes[node.inode]
        self._removed[node.inode] = node
        node.removed = True
        self.on_removed(folder.inode, name, node.inode)

    def add_document(self, name: str, render: Callable[[], bytes]) -> DocumentNode:
        """Show what *render* returns as ``.orionfs/NAME``.  *render* is called on the event loop and must not wait."""
        folder = self.folder(CONTROL_FOLDER)
        path = f"{CONTROL_FOLDER}/{name}"
        permissions = 0o400 if name in _PRIVATE_DOCUMENTS else 0o444
        node = DocumentNode(self._inode_for(path), path, folder, self._owner, permissions, render, self.clock)
        self._adopt(folder, name, node)
        return node

    def statfs(self) -> FsStat:
        """Capacity of all devices together, and what of it is not allocated yet."""
        size = free = 0
        for node in self._nodes.values():
            if isinstance(node, DeviceNode) and not node.exposed.claimed_by:
                device = node.exposed.device
                size += device.geometry.size
                free += device.geometry.size - min(device.allocated(), device.geometry.size)
        return FsStat(STATFS_BLOCK, size // STATFS_BLOCK, free // STATFS_BLOCK, len(self._nodes), NAME_MAX)

    def _adopt(self, folder: Folder, name: str, node: Node) -> None:
        folder.add(os.fsencode(name), node)
        self._nodes[node.inode] = node

    def _inode_for(self, path: str) -> int:
        """A number that an object has in every mount: tools that compare trees or find holders rely on it.

        32 bits, so that old programs without large-file support can stat it.  What is stopped and assembled within one
        mount gets another number.
        """
        inode = zlib.crc32(os.fsencode(path))
        while inode <= ROOT_INODE or inode in self._nodes or inode in self._removed:
            inode = (inode + 1) % (1 << 32)
        return inode
