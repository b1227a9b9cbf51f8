"""Operator: the administrator of a simulated array, who fails, adds, replaces and restarts, and trips over cables.

Whatever it does, data survive: it never takes a member away that the rest could not do without, by the model's rule.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from orionfs.errors import MediaError, OrionError, Refused, TimedOut
from orionfs.testing.machine import OPERATIONS
from orionfs.testing.simdisk import SimDisk
from orionfs.testing.simulation import Simulation
from orionfs.units import SECTOR

from .redundancy import Model, model_of

#: How often each thing is done that can be done.
WEIGHTS = {
    "add": 4,
    "fail": 3,
    "remove": 3,
    "replace": 3,
    "readd": 4,
    "break": 3,
    "heal": 4,
    "check": 1,
    "repair": 1,
    "wait": 3,
    "restart": 3,
}


class Operator:
    """Acts on the array that *array* returns; *disks* are all there are.  *restart* stops it and starts it again.

    ``done`` lists what was done, for those who have to read of a failure.  ``moves`` says of a disk at some tick that
    it was taken away (True), or is wanted back.
    """

    def __init__(
        self,
        sim: Simulation,
        disks: Sequence[SimDisk],
        array: Callable[[], Any],
        restart: Callable[[], Awaitable[None]],
    ) -> None:
        self._sim = sim
        self._disks = disks
        self._array = array
        self._restart = restart
        self._random = sim.random("operator")
        self._lock = trio.Lock()
        self._broken: dict[str, Any] = {}
        self.done: list[str] = []
        self.moves: list[tuple[int, str, bool]] = []

    async def act(self, busy: bool) -> None:
        """Do one thing that makes sense; nothing that needs quiet while others are *busy*."""
        async with self._lock:
            options = self._options(busy)
            kinds = sorted({kind for kind, _name in options})
            kind = self._random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            name = self._random.choice([name for other, name in options if other == kind])
            note = f"{kind} {name}".strip()
            self._sim.trace("operator", note)
            try:
                await self._do(kind, name)
            except Refused as error:
                note += f" (refused: {error.message})"
            except OrionError as error:
                if not self._broken:
                    raise
                note += f" (failed: {error.message})"
            self.done.append(f"tick {self._sim.machine.tick}: {note}")

    def _options(self, busy: bool) -> list[tuple[str, str]]:
        array = self._array()
        roster = array.roster
        known = {id(member.device) for member in roster.everyone()}
        options = [("wait", "")]
        if not busy:
            options.append(("restart", ""))
        options += [("add", disk.name) for disk in self._disks if id(disk) not in known]
        options += [("heal", name) for name in self._broken]
        for member in roster.everyone():
            if member.device is None:
                continue
            if member.active:
                if member.copy is None and roster.spares:
                    options.append(("replace", member.label))
                if member.label not in self._broken and self._can_miss(member):
                    options += [("fail", member.label), ("break", member.label)]
            elif member.state in ("rebuilding", "replacing", "spare"):
                options.append(("fail", member.label))
                if member.label not in self._broken:
                    options.append(("break", member.label))
                if member.state == "spare":
                    options.append(("remove", member.label))
            else:
                options += [("remove", member.label), ("readd", member.label)]
        if array.engine.redundant:
            options += [("check", ""), ("repair", "")]
        return options

    def _can_miss(self, member: Any) -> bool:
        array = self._array()
        if array.engine.sync.needed or array.failed:
            return False
        empty = [other.slot for other in array.roster.slots if not other.active or other.label in self._broken]
        return self._model().survives({*empty, member.slot})

    def _model(self) -> Model:
        mark = self._array().freshest
        chunk, component = mark.chunksize * SECTOR, mark.size * SECTOR
        return model_of(mark.level, mark.raid_disks, mark.layout, chunk, component)

    async def _do(self, kind: str, name: str) -> None:
        array = self._array()
        if kind in ("fail", "break", "add", "readd"):
            self.moves.append((self._sim.machine.tick, name, kind in ("fail", "break")))
        match kind:
            case "wait":
                await self._sim.environment.clock.sleep(self._random.choice((0.1, 0.5, 2, 8)))
            case "restart":
                await self._restart()
            case "add":
                await array.add(name, self._disk(name), force=True)
            case "fail":
                await array.fail(name)
            case "remove":
                await array.remove(name)
            case "replace":
                await array.replace(name)
            case "readd":
                await array.readd(name)
            case "break":
                self._break(name)
            case "heal":
                self._sim.machine.faults.remove(self._broken.pop(name))
            case _:
                array.request(kind)

    def _break(self, name: str) -> None:
        kinds = self._random.choice((OPERATIONS, OPERATIONS, {"write"}, {"flush"}, {"read"}))
        error = self._random.choice((MediaError, MediaError, TimedOut))
        at = self._random.choice((1, 1, 2, 5))
        self._broken[name] = self._sim.machine.fail(kinds, at=at, error=error, disk=name, forever=True)

    def _disk(self, name: str) -> SimDisk:
        return next(disk for disk in self._disks if disk.name == name)
