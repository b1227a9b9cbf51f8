"""The daemon behind one mount: devices, the FUSE tree, the control socket, and a clean end however it is asked for.

It never looks at anything beneath its own mount, for it would wait for itself; unmounting is left to another process.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from orionfs.config.spec import Spec
from orionfs.control.array_verbs import ArrayVerbs
from orionfs.control.audit import AuditLog
from orionfs.control.runtime import register, socket_path, unregister
from orionfs.control.server import ControlServer
from orionfs.control.verbs import Answers
from orionfs.environment import Environment
from orionfs.errors import OrionError
from orionfs.fuse import binding
from orionfs.fuse.mounting import MountOptions as FuseOptions
from orionfs.fuse.operations import Operations
from orionfs.fuse.tree import Tree
from orionfs.manager import ManagerOptions, StorageManager
from orionfs.monitor.timestamps import rfc3339
from orionfs.tools.background import Herald
from orionfs.tools.holders import describe_holders, find_holders
from orionfs.tools.mountinfo import TYPE, mount_at, read_mounts
from orionfs.tools.mountpoint import delist_helper, enlist_helper, run_unmount
from orionfs.tools.reporting import Reporting
from orionfs.tools.request import MountRequest
from orionfs.tools.unmounting import failure_note, leave_failure

logger = logging.getLogger("orionfs.daemon")

#: The exit status of what a signal ended, as in a shell.
_INTERRUPTED = 130
_UNFORESEEN = OrionError("the daemon met an internal error")


def serve(request: MountRequest, herald: Herald) -> int:
    """Mount and serve until the mount is gone; the exit status.

    *herald* is told when it is usable, or why it never was.  No exception leaves this function: what is not an
    OrionError is logged with its traceback.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    daemon = _Daemon(request, herald)
    try:
        trio.run(daemon.run)
    except KeyboardInterrupt:  # outside of the daemon's own handling of signals
        herald.failed("interrupted", _INTERRUPTED)
        return _INTERRUPTED
    except BaseException as error:
        return _report(error, daemon, herald)
    if not daemon.usable:
        herald.failed("a signal ended it before the mount was usable", _INTERRUPTED)
        return _INTERRUPTED
    return 0


def _report(error: BaseException, daemon: _Daemon, herald: Herald) -> int:
    """Log *error*, tell whoever waits for the start or for the end, and choose the exit status."""
    cause = _cause(error)
    if not isinstance(cause, OrionError):
        logger.error("internal error", exc_info=error)
        cause = OrionError(_UNFORESEEN.message, hint="its log has the details")
    elif daemon.usable:
        logger.error("%s", cause)
    herald.failed(str(cause), cause.exit_code)
    if daemon.usable:
        leave_failure(daemon.request.mountpoint, cause)
    return cause.exit_code


def _cause(error: BaseException) -> BaseException:
    """The OrionError in a tree of exceptions if there is nothing else, else the tree itself."""
    if isinstance(error, BaseExceptionGroup):
        causes = [_cause(inner) for inner in error.exceptions]
        if all(isinstance(cause, OrionError) for cause in causes):
            return causes[0]
    return error


class _Daemon:
    """One mount from its beginning to its end."""

    def __init__(self, request: MountRequest, herald: Herald) -> None:
        self.request = request
        #: Whether the mount has been usable, so that its end is no longer a failed start.
        self.usable = False
        self._herald = herald
        self._environment = Environment()
        self._started_ns = self._environment.clock.wall_ns()
        self._worker = self._environment.threads.worker("mount")
        self._manager: StorageManager | None = None

    async def run(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                with _registered(self.request, rfc3339(self._started_ns)):
                    await self._mount()
                nursery.cancel_scope.cancel()
        self._worker.close()

    async def _mount(self) -> None:
        """Open, mount, serve; returns when the mount is gone and the members are clean."""
        request = self.request
        failure_note(request.mountpoint).unlink(missing_ok=True)
        options = request.options
        self._manager = manager = await StorageManager.open(
            request.spec,
            environment=self._environment,
            options=ManagerOptions(
                read_only=options.read_only,
                force=options.force,
                lock=options.lock,
                direct=options.direct,
                mode=options.mode,
                uid=options.uid,
                gid=options.gid,
            ),
        )
        reporting = Reporting(manager, request, self._environment.clock)
        audit = AuditLog(request.spec.state_folder / "audit.log", self._environment)
        try:
            async with manager.running(), trio.open_nursery() as nursery:
                await nursery.start(self._control_server(reporting, audit).run)
                nursery.start_soon(reporting.watch_lag)
                await self._serve_tree(reporting, nursery)
                manager.events.emit("mount.ended", request.mountpoint, "unmounted; closing the members")
                nursery.cancel_scope.cancel()
        finally:
            audit.close()
        await self._worker.run(delist_helper, request.mountpoint)
        logger.info("all members are closed")

    async def _serve_tree(self, reporting: Reporting, nursery: trio.Nursery) -> None:
        """Serve the mount itself.  Returns when it is gone."""
        request, manager = self.request, reporting.manager
        clock = self._environment.clock
        options = request.options
        owner = os.geteuid() if options.uid is None else options.uid
        group = os.getegid() if options.gid is None else options.gid
        tree = Tree(manager.exposed, reporting.documents(), manager.events, uid=owner, gid=group, clock=clock)
        manager.on_show, manager.on_hide = tree.add_device, tree.remove_device
        manager.on_spec = self._register_anew
        fuse = FuseOptions(
            request.source,
            allow_other=options.allow_other or manager.spec.mount.allow_other,
            xattrs=options.xattrs,
            read_only=manager.read_only,
            kernel=options.kernel,
        )
        ended = trio.Event()

        async def serve(task_status: trio.TaskStatus[None]) -> None:
            operations = Operations(tree, manager.attributes)
            await binding.serve(operations, Path(request.mountpoint), fuse, task_status=task_status)
            ended.set()

        await nursery.start(serve)
        failure = await self._worker.run(enlist_helper, request.source, request.mountpoint)
        if failure:
            logger.debug("umount(8) will not find its helper by an absolute path: %s", failure)
        self.usable = True
        manager.events.emit("mount.ready", request.mountpoint, f"{request.source} is mounted")
        self._herald.ready(reporting.notes())
        await ended.wait()

    async def _register_anew(self) -> None:
        """The configuration has other arrays now: whoever looks for this mount by their names has to find it."""
        assert self._manager is not None
        names = _names(self._manager.spec)
        started = rfc3339(self._started_ns)
        await self._worker.run(register, Path(self.request.mountpoint), self._manager.spec.path, names, started)

    def _control_server(self, reporting: Reporting, audit: AuditLog) -> ControlServer:
        manager = reporting.manager
        answers = Answers(report=reporting.report, events=manager.events, config_text=reporting.config_text)
        verbs = {**answers.verbs(), **ArrayVerbs(manager).verbs()}
        path = socket_path(Path(self.request.mountpoint))
        return ControlServer(path, verbs, audit=audit.append, clock=self._environment.clock)

    async def _obey(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """End cleanly on a signal: unmount if that is possible, detach if somebody still uses the mount."""
        async for number in signals:
            name = signal.Signals(number).name
            if not self.usable or self._manager is None:
                logger.info("%s before the mount was usable", name)
                scope.cancel()
                return
            self._manager.events.emit("daemon.ending", self.request.mountpoint, f"{name}: unmounting")
            await self._unmount()

    async def _unmount(self) -> None:
        """From a process of its own, while this one goes on serving: unmounting writes back what is not written yet."""
        assert self._manager is not None
        mountpoint, worker = self.request.mountpoint, self._worker
        failure = await worker.run(run_unmount, mountpoint)
        if not failure or not _is_mounted(mountpoint):
            return
        holders = await worker.run(find_holders, mountpoint, read_mounts())
        who = describe_holders(holders) if holders else failure
        self._manager.events.emit(
            "mount.detached",
            mountpoint,
            f"still in use by {who}; detached, its users get errors from now on",
            severity="warning",
        )
        await self._flush()
        failure = await worker.run(lambda: run_unmount(mountpoint, lazy=True))
        if failure:
            logger.warning("cannot detach %s: %s", mountpoint, failure)
        binding.terminate()

    async def _flush(self) -> None:
        """Make durable what has been written so far; closing does it again, for what comes in meanwhile."""
        assert self._manager is not None
        for exposed in self._manager.exposed:
            if exposed.writable:
                try:
                    await exposed.device.flush()
                except OrionError as error:
                    logger.error("cannot flush %s: %s", exposed.key, error)


def _is_mounted(mountpoint: str) -> bool:
    mount = mount_at(read_mounts(), mountpoint)
    return mount is not None and mount.type == TYPE


def _names(spec: Spec) -> tuple[str, ...]:
    """What people may call the arrays of *spec*: those of its tables, and the parts that they stand for."""
    return tuple(dict.fromkeys([*spec.names, *(array.name for array in spec.arrays)]))


@contextmanager
def _registered(request: MountRequest, started: str) -> Iterator[None]:
    """In the registry of this user's mounts, from before the mount until the members are closed."""
    registration = register(Path(request.mountpoint), request.spec.path, _names(request.spec), started)
    try:
        yield
    finally:
        unregister(registration)
