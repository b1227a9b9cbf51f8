"""The binding: the only module that imports pyfuse3.  Thin: it translates types and errors, and mounts.

pyfuse3 ends the whole mount on any exception but its own, so every handler here has exactly one outer wrapper, which
turns whatever happens into an errno.  A process serves one mount; that is libfuse's session in pyfuse3.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, PollHandle, RequestContext, SetattrFields, StatvfsData

from orionfs.errors import TransportError
from orionfs.fuse.mounting import MountOptions, check_permitted, mount_failure, stderr_of
from orionfs.fuse.operations import Changes, Operations
from orionfs.fuse.stat import Stat
from orionfs.fuse.tuning import tune

logger = logging.getLogger("orionfs.fuse")

#: Requests that may be in work at once.  pyfuse3 has a task for each; one member that answers nothing ties up as many
#: as its users have requests, and the others must still find tasks.
MAX_TASKS = 1024
#: Tasks that stay when there are no requests.  More than one spares births and deaths of tasks when members wait, and
#: each keeps a request buffer of 1 MiB.
MIN_TASKS = 4

P = ParamSpec("P")
T = TypeVar("T")


#: The first release of each series in which bypassing the page cache is coherent with it (mainline commit 1ce120dcefc0
#: and its backports, rounded up); series in between and before do not have it, all after the last do.
_COHERENT_SINCE = {(6, 6): 130, (6, 12): 70, (6, 18): 10}
_COHERENT_AFTER = (6, 19)


def _bypasses_page_cache(release: str) -> bool:
    """Whether files opened with O_DIRECT may be FOPEN_DIRECT_IO on the kernel *release* (``6.18.13-foo``).

    That spares them an upcall for ``security.capability`` before each write, half of the cost of a small one.  But
    before 6.6 such a write left old data in the page cache, where buffered readers found it, and for some time after
    such a read missed what had been written through mmap and not synced yet.
    """
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", release)
    if match is None:
        return False
    series, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
    return series >= _COHERENT_AFTER or patch >= _COHERENT_SINCE.get(series, patch + 1)


def _on_inode(
    handler: Callable[Concatenate[_Adapter, int, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Adapter, int, P], Coroutine[Any, Any, T]]:
    """The outer wrapper of a handler whose first argument is an inode."""

    @functools.wraps(handler)
    async def guarded(self: _Adapter, inode: int, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, inode, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:
            self.fail(handler.__name__, error, inode=inode)

    return guarded


def _on_handle(
    handler: Callable[Concatenate[_Adapter, int, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Adapter, int, P], Coroutine[Any, Any, T]]:
    """The outer wrapper of a handler whose first argument is a handle."""

    @functools.wraps(handler)
    async def guarded(self: _Adapter, handle: int, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, handle, *args, **kwargs)
        except Exception as error:
            self.fail(handler.__name__, error, handle=handle)

    return guarded


#: Handlers that may have changed a device when they fail.
_WRITING = frozenset({"write", "setattr", "open", "fsync"})


class _Adapter(pyfuse3.Operations):
    """pyfuse3's handlers, carried out by *operations*."""

    supports_dot_lookup = True
    # A short or failed write would be lost silently under it, and so would what a kill of the client leaves behind.
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, operations: Operations, *, xattrs: bool) -> None:
        super().__init__()
        self._operations = operations
        self._xattrs = xattrs
        self._files = operations.files
        self._bypass = _bypasses_page_cache(os.uname().release)
        #: Set when the kernel has begun the handshake.
        self.greeted = trio.Event()

    def fail(self, handler: str, error: Exception, *, inode: int = 0, handle: int = 0) -> NoReturn:
        """Raise the transport's error for *error*."""
        code = self._operations.errno_of(handler, error, inode=inode, handle=handle, writing=handler in _WRITING)
        raise FUSEError(code) from None

    def init(self) -> None:
        self.greeted.set()

    # --- data: the wrapper is written out, since one more coroutine per request can be measured ---------------------

    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        # What comes back may be memory that the next read will fill.  That is sound because pyfuse3 sends it
        # (fuse_reply_buf takes any buffer) with no checkpoint after this return, so the event loop cannot begin another
        # read before, and nobody but the event loop does.
        try:
            file = self._files[fh]
            data = file.read_now(off, size)
            if data is None:
                data = await file.read(off, size)
            return data
        except Exception as error:
            self.fail("read", error, handle=fh)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        try:
            file = self._files[fh]
            stored = file.write_now(off, buf)
            if stored is None:
                stored = await file.write(off, buf)
            return stored
        except Exception as error:
            self.fail("write", error, handle=fh)

    # --- names and attributes ---------------------------------------------------------------------------------------

    @_on_inode
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return _entry(await self._operations.lookup(parent_inode, name))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing to do: nodes live as long as their objects, whatever the kernel knows of them."""

    @_on_inode
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return _entry(await self._operations.getattr(inode))

    @_on_inode
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return _entry(await self._operations.setattr(inode, changes))

    @_on_inode
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        return await self._operations.access(inode, mode, ctx.uid, ctx.gid)

    @_on_inode
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._operations.readlink(inode)

    @_on_inode
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if not self._xattrs:
            raise FUSEError(errno.ENOSYS)  # here on purpose: the kernel then never asks again
        return await self._operations.getxattr(inode, name)

    @_on_inode
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return await self._operations.listxattr(inode) if self._xattrs else ()

    @_on_inode
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await self._operations.setxattr(inode, name)

    @_on_inode
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._operations.removexattr(inode, name)

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        return await self._statfs(pyfuse3.ROOT_INODE)

    @_on_inode
    async def _statfs(self, inode: int) -> StatvfsData:
        found = await self._operations.statfs()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = found.block
        data.f_blocks = found.blocks
        data.f_bfree = data.f_bavail = found.free
        data.f_files = found.files
        data.f_ffree = data.f_favail = 0
        data.f_namemax = found.name_max
        return data

    # --- changes of the tree ------------------------------------------------------------------------------------------

    @_on_inode
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        await self._operations.create(parent_inode, name)

    @_on_inode
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext) -> EntryAttributes:
        await self._operations.create(parent_inode, name)

    @_on_inode
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        await self._operations.create(parent_inode, name)

    @_on_inode
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._operations.create(parent_inode, name)

    @_on_inode
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._operations.create(new_parent_inode, new_name)

    @_on_inode
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._operations.remove(parent_inode, name, folder=False)

    @_on_inode
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._operations.remove(parent_inode, name, folder=True)

    @_on_inode
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        await self._operations.rename(parent_inode_old, name_old, parent_inode_new, name_new)

    # --- open files ---------------------------------------------------------------------------------------------------

    @_on_inode
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        opened = await self._operations.open(inode, flags)
        if opened.live:
            return FileInfo(fh=opened.handle, direct_io=True, keep_cache=False)
        # The cache may stay from one open to the next, because a device changes only through this mount.
        return FileInfo(fh=opened.handle, direct_io=self._bypass and bool(flags & os.O_DIRECT), keep_cache=True)

    @_on_handle
    async def flush(self, fh: int) -> None:
        await self._operations.flush(fh)

    @_on_handle
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._operations.fsync(fh)

    @_on_handle
    async def release(self, fh: int) -> None:
        await self._operations.release(fh)

    @_on_inode
    async def poll(self, inode: int, fh: int, poll_handle: PollHandle | None, ctx: RequestContext) -> int:
        return await self._operations.poll(fh, None if poll_handle is None else functools.partial(_wake, poll_handle))

    # --- folders ------------------------------------------------------------------------------------------------------

    @_on_inode
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        return await self._operations.opendir(inode)

    @_on_handle
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for entry in self._operations.entries(fh, start_id):
            if not pyfuse3.readdir_reply(token, entry.name, _entry(entry.stat), entry.position):
                return

    @_on_handle
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._operations.fsyncdir(fh)

    @_on_handle
    async def releasedir(self, fh: int) -> None:
        await self._operations.releasedir(fh)


def _entry(found: Stat) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = found.inode
    entry.st_mode = found.mode
    entry.st_nlink = found.links
    entry.st_uid = found.uid
    entry.st_gid = found.gid
    entry.st_size = found.size
    entry.st_blocks = found.blocks
    entry.st_blksize = found.preferred_io
    entry.st_atime_ns = found.atime_ns
    entry.st_mtime_ns = found.mtime_ns
    entry.st_ctime_ns = found.ctime_ns
    entry.entry_timeout = found.entry_timeout_s
    entry.attr_timeout = found.attribute_timeout_s
    return entry


def _wake(poll_handle: PollHandle) -> None:
    try:
        poll_handle.notify()
    except OSError as error:
        # The mount is going, and the poller with it: nobody is left who could be told.
        logger.debug("a poller could not be woken: %s", error)


def _forget(folder: int, name: bytes, inode: int) -> None:
    """Have the kernel forget an entry at once.  By another thread: it may wait for a lookup that we answer."""
    pyfuse3.invalidate_entry_async(folder, name, deleted=inode, ignore_enoent=True)


async def serve(
    operations: Operations,
    mountpoint: Path,
    options: MountOptions,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount *operations* at *mountpoint* and serve it; returns when it is unmounted, by whomever.

    ``task_status.started()`` is called when the mount is usable and tuned.  Raises AccessRefused or TransportError, one
    sentence each, if it cannot be mounted.  Cancelling it unmounts as well.  Afterwards the place is free for the next
    mount; a mount that is busy is detached, and its users get ENOTCONN.

    One at a time per process.
    """
    place = Path(os.path.realpath(mountpoint))  # noqa: ASYNC240 - before the mount, where it still may
    check_permitted(options)
    adapter = _Adapter(operations, xattrs=options.xattrs)
    operations.tree.on_removed = _forget
    with stderr_of() as complaints:
        try:
            pyfuse3.init(adapter, str(place), options.for_libfuse())
        except RuntimeError as error:
            raise mount_failure(place, str(error), complaints()) from error
    lost: OSError | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_announce, adapter, place, task_status)
            nursery.start_soon(operations.run)
            lost = await _serve_requests()
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)
    if lost is not None:
        raise TransportError(f"the kernel ended the mount at {place}: {lost.strerror}") from lost
    if not adapter.greeted.is_set():
        raise TransportError(f"the kernel ended the mount at {place} before it was usable")


async def _serve_requests() -> OSError | None:
    """Run until the mount ends; the reason if it is not an unmount."""
    lost: OSError | None = None
    try:
        await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
    except* OSError as group:
        lost = _first(group)
    return lost


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    """Any one of the errors in *group*: they come from one connection."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def terminate() -> None:
    """Make :func:`serve` return once the requests in work are done.  To be called on the event loop while it serves.

    A request that a member never answers holds it up for ever: cancel :func:`serve` to go without it.  What a program
    has written through mmap and not synced is not waited for: unmount first if that matters.
    """
    pyfuse3.terminate()


async def _announce(adapter: _Adapter, place: Path, task_status: trio.TaskStatus[None]) -> None:
    """Report the mount as usable.

    The handshake runs to its end, reply included, within the task that greets us, before this one can go on: what is
    tuned now is not reset by it any more.
    """
    await adapter.greeted.wait()
    logger.debug("mounted at %s, tuned %s", place, tune(place))
    task_status.started()
