"""A daemon for tests: mounts RAM devices, and takes commands on stdin while it serves.

Run as ``python served.py CONFIGURATION MOUNTPOINT``; a process of its own, because a test that blocks in a system call
on a mount that its own event loop serves would wait for itself.  Commands and answers are JSON, one per line; the first
answer comes when the mount is usable.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import trio

from orionfs.attributes import AttributeStore
from orionfs.environment import Environment
from orionfs.errors import MediaError, OrionError
from orionfs.exposed import Exposed
from orionfs.fuse import binding
from orionfs.fuse.mounting import MountOptions
from orionfs.fuse.operations import Operations
from orionfs.fuse.tree import Tree
from orionfs.layers.bytewise import Bytewise
from orionfs.layers.gone import Gone
from orionfs.monitor.events import EventLog
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

#: What the mount calls its source: all that has to be escaped on the way to the kernel.
SOURCE = "test, spec\\ \u00e9"


class CountingOperations(Operations):
    """Counts the upcalls for extended attributes, which the kernel makes on its own account."""

    def __init__(self, tree: Tree, store: AttributeStore | None) -> None:
        super().__init__(tree, store)
        self.getxattrs: Counter[str] = Counter()

    async def getxattr(self, inode: int, name: bytes) -> bytes:
        self.getxattrs[name.decode()] += 1
        return await super().getxattr(inode, name)


FAILURES = {
    "media": partial(MediaError, "the medium failed"),
    "bug": partial(RuntimeError, "nobody thought of this"),
}


class Daemon:
    """One mount with its commands."""

    def __init__(
        self,
        devices: dict[str, FaultyDevice],
        exposed: list[Exposed],
        operations: CountingOperations,
        events: EventLog,
    ) -> None:
        self.devices = devices
        self.exposed = {one.name: one for one in exposed}
        self.operations = operations
        self.events = events
        self.gate = trio.Event()
        self.scope = trio.CancelScope()

    def command(self, verb: str, **arguments: Any) -> Any:
        return getattr(self, "do_" + verb)(**arguments)

    def do_emit(self, kind: str, subject: str, message: str) -> int:
        return self.events.emit(kind, subject, message).sequence

    def do_getxattrs(self) -> dict[str, int]:
        return dict(self.operations.getxattrs)

    def do_calls(self, name: str) -> dict[str, int]:
        return dict(self.devices[name].calls)

    def do_fail(self, name: str, operation: str, kind: str) -> None:
        self.devices[name].fail(operation, FAILURES[kind], forever=True)

    def do_heal(self, name: str) -> None:
        self.devices[name].heal()

    def do_stall(self, name: str, operation: str) -> None:
        self.gate = trio.Event()
        self.devices[name].block(operation, self.gate, forever=True)

    def do_resume(self) -> None:
        self.gate.set()

    def do_peek(self, name: str, offset: int, length: int) -> str:
        ram = self.devices[name].child
        assert isinstance(ram, RamDevice)
        return bytes(ram.data[offset : offset + length]).hex()

    def do_digest(self, name: str) -> str:
        ram = self.devices[name].child
        assert isinstance(ram, RamDevice)
        return hashlib.sha256(ram.data).hexdigest()

    def do_open_count(self, name: str) -> int:
        return self.exposed[name].open_count

    def do_take_away(self, name: str) -> None:
        exposed = self.exposed[name]
        self.operations.tree.remove_device(exposed)
        exposed.device.child = Gone(exposed.device.child)

    def do_bring_back(self, name: str, fill: int) -> None:
        former = self.exposed[name]
        ram = RamDevice(name, former.device.geometry.size)
        ram.data[:] = bytes([fill]) * len(ram.data)
        self.exposed[name] = Exposed(name, "arrays", Bytewise(ram), former.attributes)
        self.operations.tree.add_device(self.exposed[name])

    def do_terminate(self) -> None:
        binding.terminate()

    def do_cancel(self) -> None:
        self.scope.cancel()


def answer(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


async def listen(daemon: Daemon) -> None:
    rest = b""
    async with trio.lowlevel.FdStream(os.dup(0)) as stream:
        while chunk := await stream.receive_some():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                answer(result=daemon.command(**json.loads(line)))


async def main(configuration: dict[str, Any], mountpoint: Path) -> None:
    environment = Environment()
    events = EventLog(environment.clock)
    state = mountpoint.parent / "state" / "attributes.json"
    store = await AttributeStore.open(state, environment=environment, events=events)
    devices = {one["name"]: make_device(one) for one in configuration["devices"]}
    exposed = []
    for one in configuration["devices"]:
        name = one["name"]
        attributes = store.get(f"arrays/{name}", mode=one.get("mode", 0o600), uid=os.getuid(), gid=os.getgid())
        terms = {key: one[key] for key in ("read_only", "truncate", "claimed_by") if key in one}
        exposed.append(Exposed(name, "arrays", Bytewise(devices[name]), attributes, **terms))
    documents = {
        "status": lambda: f"all is well at event {events.last}\n".encode(),
        "config.toml": lambda: b"# as written\n",
        "long": lambda: b"0123456789abcdef" * 20000,
    }
    tree = Tree(exposed, documents, events, uid=os.getuid(), gid=os.getgid(), clock=environment.clock)
    operations = CountingOperations(tree, store)
    options = MountOptions(**{"source": SOURCE, **configuration.get("options", {})})
    daemon = Daemon(devices, exposed, operations, events)
    try:
        with daemon.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(serve_until_unmounted, nursery, operations, mountpoint, options)
                answer(result="ready")
                nursery.start_soon(listen, daemon)
    finally:
        await store.aclose()


def make_device(one: dict[str, Any]) -> FaultyDevice:
    ram = RamDevice(one["name"], one.get("size", 16 << 20), one.get("block", 512))
    return FaultyDevice(ram, inline=not one.get("wait", False))


async def serve_until_unmounted(
    nursery: trio.Nursery,
    operations: Operations,
    mountpoint: Path,
    options: MountOptions,
    task_status: trio.TaskStatus[None],
) -> None:
    await binding.serve(operations, mountpoint, options, task_status=task_status)
    nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        trio.run(main, json.loads(sys.argv[1]), Path(sys.argv[2]))
    except* OrionError as group:
        error = group.exceptions[0]
        answer(error={"kind": type(error).__name__, "text": str(error), "exit_code": error.exit_code})
