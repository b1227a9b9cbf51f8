"""What the daemon answers: the handlers of the verbs that look, over a report, an event log and a configuration.

They read, cheaply, and never wait for a device: control stays quick while a member is slow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import trio

from orionfs.control.server import Verbs
from orionfs.errors import NotFound
from orionfs.monitor import metrics
from orionfs.monitor.events import EventLog

#: The tree's folder of each kind of object.
FOLDERS = {"array": "arrays"}


class Answers:
    """The handlers.  *report* gives a fresh report of one mount (schema orionfs.status/1)."""

    def __init__(
        self, *, report: Callable[[], dict[str, Any]], events: EventLog, config_text: Callable[[], str]
    ) -> None:
        self._report = report
        self._events = events
        self._config_text = config_text

    def verbs(self) -> Verbs:
        """One handler for each verb that only looks."""
        return {
            "ping": self.ping,
            "status": self.status,
            "list": self.list,
            "show": self.show,
            "events": self.events,
            "metrics": self.metrics,
            "config": self.config,
        }

    async def ping(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """Who answers."""
        mount = self._mount()
        return {"pid": os.getpid(), "version": mount["version"], "mountpoint": mount["mountpoint"]}

    async def status(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """The report that ``.orionfs/status.json`` holds."""
        return self._report()

    async def list(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """Every object of the mount, in a line each."""
        mount = self._mount()
        objects = [
            {
                "kind": "array",
                "name": array["name"],
                "path": _path(mount, array),
                "level": array["declared_level"] or array["level"],
                "state": array["state"],
                "size": array["size"],
                "slots": array["slots"],
                "part_of": array["part_of"],
                "job": array["job"],
            }
            for array in mount["arrays"]
        ]
        return {"schema": "orionfs.list/1", "mountpoint": mount["mountpoint"], "objects": objects}

    async def show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The object by its name, its place in the tree (``arrays/vault``) or its path."""
        wanted = arguments["object"]
        mount = self._mount()
        for array in mount["arrays"]:
            path = _path(mount, array)
            if wanted in (array["name"], f"{FOLDERS['array']}/{array['name']}", path):
                shown = {"kind": "array", "path": path, **array}
                return {"schema": "orionfs.show/1", "mountpoint": mount["mountpoint"], "object": shown}
        listed = ", ".join(array["name"] for array in mount["arrays"]) or "nothing"
        raise NotFound(f"{mount['mountpoint']} has no object {wanted}", hint=f"it has: {listed}")

    async def events(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The events after ``since``; waits up to ``wait_s`` seconds for the first."""
        since = arguments.get("since", 0)
        with trio.move_on_after(arguments.get("wait_s", 0)):
            await self._events.wait(since)
        events = [event.to_json() for event in self._events.since(since)]
        return {"schema": "orionfs.events/1", "last": self._events.last, "events": events}

    async def metrics(self, _arguments: dict[str, Any]) -> str:
        """The counters, in the text format of Prometheus."""
        return metrics.render(self._report())

    async def config(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        """The configuration as the daemon has read it last."""
        return {"schema": "orionfs.config/1", "path": self._mount()["spec"], "text": self._config_text()}

    def _mount(self) -> dict[str, Any]:
        mount: dict[str, Any] = self._report()["mounts"][0]
        return mount


def _path(mount: dict[str, Any], array: dict[str, Any]) -> str:
    return f"{mount['mountpoint']}/{FOLDERS['array']}/{array['name']}"
