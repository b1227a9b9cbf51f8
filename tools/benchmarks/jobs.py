"""Rebuilds and scrubs of a mounted array: how fast they are alone, and as company of requests.

What a job moves is *member data*: the bytes that it reads from and writes to all members together.  A rebuild of a
RAID 5 of four members moves four bytes for each that it makes: three are read, one is written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from orionfs.clock import SystemClock
from orionfs.control.client import ControlClient
from orionfs.control.runtime import find
from orionfs.errors import OrionError
from orionfs.tools.benchmarks.suite import Company, NotMeasured, Setting, Target
from orionfs.units import MIB

Kind = Literal["rebuild", "scrub"]

#: What the jobs are called in status and events.
_NAMES: dict[Kind, str] = {"rebuild": "recovery", "scrub": "check"}
#: A job of a few hundred MB that takes longer does not go on any more.
_TIMEOUT_S = 60.0
#: So many reads have to be served before company sets in: fio is past its start then.
_UNDER_WAY = 100
#: What a superblock of version 1.2 and the bytes before it take.
_SUPERBLOCK_END = 8192


class Array:
    """The array of *target*, as orionctl and the control socket show it."""

    def __init__(self, target: Target) -> None:
        assert target.mountpoint is not None, "only stacks of ours have jobs"
        self._target = target
        self._mountpoint = target.mountpoint

    def status(self) -> dict[str, Any]:
        """The array's part of the report."""
        report = self._ask("status")
        array: dict[str, Any] = report["mounts"][0]["arrays"][0]
        return array

    def last_event(self) -> int:
        """The number of the newest event."""
        return int(self._ask("events")["last"])

    def wait_for(self, kind: str, since: int) -> dict[str, Any]:
        """The first event *kind* after *since*.  Raises NotMeasured if none comes, or an error comes first."""
        deadline = SystemClock.elapsed_ns() + _TIMEOUT_S * 1e9
        while SystemClock.elapsed_ns() < deadline:
            answer = self._ask("events", since=since, wait_s=1)
            for event in answer["events"]:
                if event["kind"] == kind:
                    found: dict[str, Any] = event
                    return found
                if event["severity"] == "error" and event["kind"] != "member.failed":  # that is what was asked for
                    raise NotMeasured(f"{event['kind']}: {event['message']}")
            since = answer["last"]
        raise NotMeasured(f"no event {kind} within {_TIMEOUT_S:.0f} s")

    def order(self, verb: str, **arguments: Any) -> None:
        """Have the daemon do ``array.VERB``, as orionctl would.  Raises NotMeasured if it refuses."""
        try:
            self._ask(f"array.{verb}", array="array", **arguments)
        except OrionError as error:
            raise NotMeasured(f"array.{verb} failed: {error.message}") from error

    def moved(self) -> int:
        """Bytes that the daemon has read and written so far; while nothing is asked of it, those of its members."""
        counts = Path(f"/proc/{self._target.pids[0]}/io").read_text().split()
        return int(counts[counts.index("rchar:") + 1]) + int(counts[counts.index("wchar:") + 1])

    def _ask(self, verb: str, **arguments: Any) -> Any:
        with ControlClient.to(find(self._mountpoint)) as client:
            return client.call(verb, **arguments)


def rates(kind: Kind) -> Callable[[Target, Setting], Sequence[float]]:
    """A figure: GB/s of member data of a job of *kind* while nobody asks anything of the array, from its event that it
    has begun to its event that it is done."""

    def measure(target: Target, setting: Setting) -> Sequence[float]:
        array = Array(target)
        return [_rate(array, kind) for _ in range(setting.samples)]

    return measure


def _rate(array: Array, kind: Kind) -> float:
    name, since, before = _NAMES[kind], array.last_event(), array.moved()
    _start(array, kind)
    began = array.wait_for(f"{name}.started", since)
    ended = array.wait_for(f"{name}.finished", since)
    moved = array.moved() - before
    _tidy_up(array, kind)
    return moved / 1e9 / (_seconds(ended) - _seconds(began))


def company(kind: Kind) -> Callable[[Target], Any]:
    """Company for a stack: a job of *kind* that goes on from the first requests of each burst on."""

    @contextmanager
    def keep(target: Target) -> Iterator[Company]:
        array = Array(target)
        since = array.last_event()
        array.order("pause")
        _start(array, kind)
        array.wait_for(f"{_NAMES[kind]}.started", since)
        yield _Company(array, kind, array.status()["counters"]["reads"])
        array.wait_for(f"{_NAMES[kind]}.finished", since)
        _tidy_up(array, kind)

    return keep


@dataclass
class _Company:
    """A job that waits, and goes on when there have been requests; ``reads`` are those that the array had before."""

    array: Array
    kind: Kind
    reads: int
    _began: int = 0
    _done: int = 0

    def begin(self) -> None:
        deadline = SystemClock.elapsed_ns() + _TIMEOUT_S * 1e9
        while self.array.status()["counters"]["reads"] < self.reads + _UNDER_WAY:
            if SystemClock.elapsed_ns() > deadline:
                raise NotMeasured("fio did not begin to read")
            time.sleep(0.005)
        self._done = self.array.status()["job"]["done"]
        self.array.order("resume")
        self._began = SystemClock.elapsed_ns()

    def rate(self) -> float:
        job = self.array.status()["job"]
        if job is None or job["kind"] != _NAMES[self.kind]:
            raise NotMeasured(f"the {self.kind} came to its end before fio did: it needs more data")
        return float(job["done"] - self._done) / MIB / ((SystemClock.elapsed_ns() - self._began) / 1e9)


def _start(array: Array, kind: Kind) -> None:
    """Make the array begin a job: a scrub, or a rebuild of slot 0 onto the spare."""
    if kind == "scrub":
        array.order("scrub", kind="check")
        return
    array.order("fail", member=_in_slot_0(array.status())["name"])


def _in_slot_0(status: dict[str, Any]) -> dict[str, Any]:
    found = [each for each in status["members"] if each["slot"] == 0 and each["state"] == "active"]
    if not found:
        raise NotMeasured("slot 0 has no active member")
    member: dict[str, Any] = found[0]
    return member


def _tidy_up(array: Array, kind: Kind) -> None:
    """See that the job found what it should, and make the member that was failed a spare again."""
    status = array.status()
    if kind == "scrub":
        scrub = status["scrub"]
        if scrub["mismatches"] or scrub["unreadable"]:
            raise NotMeasured(f"the scrub found {scrub['mismatches']} mismatches: the array is not in order")
        return
    _in_slot_0(status)
    for member in status["members"]:
        if member["state"] == "failed":
            array.order("remove", member=member["name"])
            _forget(member["where"])
            array.order("add", devices=[member["where"]])


def _forget(path: str) -> None:
    """Make a former member a stranger, so that nothing of it is taken for what it should be."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, bytes(_SUPERBLOCK_END), 0)
    finally:
        os.close(descriptor)


def _seconds(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()
