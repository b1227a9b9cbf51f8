"""A daemon that exists only on its control socket: what commands ask of it is noted, what it answers is made up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from orionfs.clock import SystemClock
from orionfs.control.array_schema import ARRAY_VERBS
from orionfs.control.runtime import register, unregister
from orionfs.control.server import ControlServer
from orionfs.control.verbs import Answers
from orionfs.device import Description, Geometry
from orionfs.monitor.events import EventLog
from orionfs.monitor.report import MountFacts, build_report
from orionfs.units import MIB


class Daemon:
    """A mount that exists only on its control socket, served by a thread."""

    def __init__(self, mountpoint: Path, *, arrays: dict[str, str]) -> None:
        self.mountpoint = mountpoint
        self.arrays = arrays
        self.spec = mountpoint.parent / f"{mountpoint.name}.toml"
        self.events = EventLog(SystemClock())
        self.events.emit("mount.ready", str(mountpoint), "it is mounted")
        self.asked: list[tuple[str, dict[str, Any]]] = []
        #: Further details of every array, and its members (instead of two that are active).
        self.details: dict[str, Any] = {}
        self.members: list[Description] = []
        #: What is done before the next reports are made, one for each.
        self.script: list[Callable[[], None]] = []
        self.spares: list[dict[str, Any]] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), name=f"daemon of {mountpoint}")

    def __enter__(self) -> Daemon:
        self.registration = register(self.mountpoint, self.spec, tuple(self.arrays), "2026-11-20T17:48:03.250Z")
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_reason: object) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        unregister(self.registration)

    async def _serve(self) -> None:
        async def no_audit(record: dict[str, Any], *, durable: bool = False) -> None:
            await trio.lowlevel.checkpoint()

        self._token = trio.lowlevel.current_trio_token()
        answers = Answers(report=self.report, events=self.events, config_text=lambda: "# as mounted\n")
        asked = {verb.name: partial(self.carry_out, verb.name) for verb in ARRAY_VERBS}
        verbs = {**asked, **answers.verbs()}
        server = ControlServer(self.registration.socket, verbs, audit=no_audit, clock=SystemClock())
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                self._ready.set()

    async def carry_out(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Every verb that changes something is only noted here."""
        await trio.lowlevel.checkpoint()
        self.asked.append((verb, arguments))
        answer = {"schema": f"orionfs.{verb}/1", "array": arguments.get("array", ""), "done": [f"{verb} done"]}
        return {**answer, "next": "orionctl status"}

    def report(self) -> dict[str, Any]:
        if self.script:
            self.script.pop(0)()
        facts = MountFacts(
            mountpoint=self.mountpoint, spec=self.spec, pid=os.getpid(), version="0.1.0", started_ns=0, now_ns=10**9
        )
        usual = [Description("member", f"d{slot}", "active", Geometry(8 * MIB), f"/srv/d{slot}") for slot in range(2)]
        members = self.members or usual
        details = {"level": "raid1", "slots": "UU", "read_only": False, **self.details}
        described = [
            Description("array", name, state, Geometry(7 * MIB), "", tuple(members), {}, details)
            for name, state in self.arrays.items()
        ]
        return build_report(facts, described, self.spares)
