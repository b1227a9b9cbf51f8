"""What a daemon says of itself: the report, the documents of the tree, and the notes at the start of a mount."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orionfs import __version__
from orionfs.clock import Clock
from orionfs.manager import StorageManager
from orionfs.monitor import mdstat, metrics, status_text
from orionfs.monitor.report import MountFacts, build_report
from orionfs.tools.request import MountRequest

#: How often the event loop's lag is measured.
_LAG_INTERVAL_S = 1.0
_GOOD_STATES = frozenset({"clean", "active", "replacing"})


class Reporting:
    """Reports on *manager*, which *request* has mounted.  On the event loop; nothing waits for a device."""

    def __init__(self, manager: StorageManager, request: MountRequest, clock: Clock) -> None:
        self.manager = manager
        self._request = request
        self._clock = clock
        self._started_ns = clock.wall_ns()
        self._lag_s = 0.0

    def report(self) -> dict[str, Any]:
        """The report as of now, schema ``orionfs.status/1``."""
        facts = MountFacts(
            mountpoint=Path(self._request.mountpoint),
            spec=self.manager.spec.path,
            pid=os.getpid(),
            version=__version__,
            started_ns=self._started_ns,
            now_ns=self._clock.wall_ns(),
            read_only=self.manager.read_only,
            gauges={"event_loop_lag_seconds": self._lag_s},
        )
        return build_report(facts, self.manager.descriptions(), self.manager.spares.describe())

    def documents(self) -> dict[str, Callable[[], bytes]]:
        """The files of ``.orionfs``."""
        return {
            "status": lambda: status_text.render(self.report()).encode(),
            "status.json": lambda: json.dumps(self.report(), indent=1).encode() + b"\n",
            "mdstat": lambda: mdstat.render(self.report()).encode(),
            "metrics": lambda: metrics.render(self.report()).encode(),
            "config.toml": lambda: self.config_text().encode(),
        }

    def config_text(self) -> str:
        """The configuration as it was read last."""
        return self.manager.configuration.text or self._request.spec_text

    def notes(self) -> list[str]:
        """One sentence for each array that is not as it should be."""
        return [
            f"{array['name']} is {array['state']} [{array['slots']}]: {'; '.join(array['why'])}"
            for array in self.report()["mounts"][0]["arrays"]
            if array["state"] not in _GOOD_STATES
        ]

    async def watch_lag(self) -> None:
        """Measure how late the event loop wakes a task: the sign that something blocks it.  Until cancelled."""
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(_LAG_INTERVAL_S)
            self._lag_s = max(0.0, self._clock.monotonic() - before - _LAG_INTERVAL_S)
