"""What a suite is made of: stacks, workloads, bars and limits.  Data only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol


class NotMeasured(Exception):
    """A stack or a figure cannot be had here; the text says why and what would help, in one sentence."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how large a run is.

    ``folder`` is on tmpfs, private to this run, and removed at its end; ``disk`` is the same on a disk, None if the
    suite has nothing to do there.  ``size`` bytes of every stack's file are written before the first round and are what
    the workloads run over.  ``burst_ms`` is the length of one measurement, ``samples`` how many are taken of a figure
    that has no rounds, ``traffic`` the bytes that pass before memory is looked at, ``idle_s`` the window of the idle
    CPU.
    """

    folder: Path
    size: int
    burst_ms: int
    traffic: int
    idle_s: float
    samples: int = 7
    disk: Path | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A stack that is up: the file to measure and the processes that serve it (none: the kernel does).

    ``mountpoint`` is there for stacks of ours, whose daemon can be asked.
    """

    file: Path
    pids: tuple[int, ...] = ()
    mountpoint: Path | None = None


class Company(Protocol):
    """Background work that goes on in a stack while it is measured."""

    def begin(self) -> None:
        """Called as soon as fio has been started: returns when the work goes on."""

    def rate(self) -> float:
        """MiB per second that it has done since.  Raises :class:`NotMeasured` if it has ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Stack:
    """One way to turn members into a file.

    ``start`` brings it up, pushes onto the exit stack what takes it down again, and raises :class:`NotMeasured` if it
    cannot.  ``programs`` maps each program that it runs to the Debian package that has it.  ``on_disk``: its members
    are in the disk's folder of the setting, not in memory.

    ``company`` is what a stack does beside each burst; leaving its context waits until it has ended, so that it falls
    on no other stack.
    """

    name: str
    title: str
    start: Callable[[Setting, ExitStack], Target]
    programs: Mapping[str, str] = field(default_factory=dict)
    root: str = ""
    prefill: bool = True
    on_disk: bool = False
    company: Callable[[Target], AbstractContextManager[Company]] | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One fio job, always O_DIRECT.

    ``block`` is bytes, ``rw`` fio's word, ``depth`` requests in flight, ``sync_every`` the requests between two calls
    of fdatasync (0: none).  The first ``ramp_ms`` do not count: what a stack can put off is full by then.
    """

    name: str
    title: str
    rw: str
    block: int
    depth: int = 1
    sync_every: int = 0
    ramp_ms: int = 0

    @property
    def in_bytes(self) -> bool:
        """Large blocks are told in MiB/s, small ones in operations per second."""
        return self.block >= 1 << 16


#: What of a burst is compared: its rate, a percentile of fio's completion latency, or the rate of its company.
Metric = Literal["rate", "median latency", "p99 latency", "company"]


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of the speed table: the median of (stack / peer) over the rounds has to be ``at_least`` or ``at_most``.

    With neither it is there for information and gets no verdict.  Of several peers the better one counts: the one with
    the higher median rate or the lower median latency.
    """

    name: str
    workload: str
    stack: str
    peers: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    metric: Metric = "rate"

    @property
    def judged(self) -> bool:
        """Whether there is anything to reach."""
        return self.at_least is not None or self.at_most is not None


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure that has to stay ``below``, or be ``at_least``; with neither it is there for information.

    ``measure`` returns samples, of which the median counts.
    """

    name: str
    title: str
    unit: str
    below: float | None
    stack: str
    measure: Callable[[Target, Setting], Sequence[float]]
    at_least: float | None = None

    @property
    def judged(self) -> bool:
        """Whether there is anything to reach."""
        return self.below is not None or self.at_least is not None


@dataclass(frozen=True, slots=True)
class Suite:
    """What ``tools/bench NAME`` measures.  ``conditions`` are the sentences that make the figures readable.

    ``compared_only``: measure no stack on a workload where no bar needs it.
    """

    name: str
    conditions: tuple[str, ...]
    stacks: tuple[Stack, ...]
    workloads: tuple[Workload, ...]
    bars: tuple[Bar, ...]
    limits: tuple[Limit, ...] = ()
    compared_only: bool = False

    @property
    def rows(self) -> tuple[Bar | Limit, ...]:
        """All that gets a verdict, in the order of the report."""
        return (*self.bars, *self.limits)

    def only(self, rows: Sequence[str]) -> Suite:
        """The suite cut down to the bars and limits named in *rows*, and to what they need.

        Raises ValueError, with the names that exist, for a row that does not.
        """
        known = [row.name for row in self.rows]
        for row in rows:
            if row not in known:
                raise ValueError(f"suite {self.name} has no row {row!r}; its rows are: {', '.join(known)}")
        return self.with_rows(
            tuple(bar for bar in self.bars if bar.name in rows),
            tuple(limit for limit in self.limits if limit.name in rows),
        )

    def judged_only(self) -> Suite:
        """The suite cut down to the rows that get a verdict, and to what they need."""
        return self.with_rows(
            tuple(bar for bar in self.bars if bar.judged), tuple(limit for limit in self.limits if limit.judged)
        )

    def with_rows(self, bars: tuple[Bar, ...], limits: tuple[Limit, ...]) -> Suite:
        """The suite with just these rows, and only the stacks and workloads that they need."""
        stacks = {name for bar in bars for name in (bar.stack, *bar.peers)} | {limit.stack for limit in limits}
        workloads = {bar.workload for bar in bars}
        return Suite(
            self.name,
            self.conditions,
            tuple(stack for stack in self.stacks if stack.name in stacks),
            tuple(workload for workload in self.workloads if workload.name in workloads),
            bars,
            limits,
            compared_only=True,
        )

    def stacks_for(self, workload: Workload) -> list[str]:
        """The names of the stacks to measure *workload* on."""
        compared = {name for bar in self.bars if bar.workload == workload.name for name in (bar.stack, *bar.peers)}
        return [stack.name for stack in self.stacks if not self.compared_only or stack.name in compared]
