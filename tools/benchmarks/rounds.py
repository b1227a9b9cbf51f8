"""The measurement itself: every stack up at once, short bursts, side by side, in an order that balances out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TypeVar

from orionfs.tools.benchmarks import fio
from orionfs.tools.benchmarks.server import cpu_ns
from orionfs.tools.benchmarks.suite import Metric, NotMeasured, Setting, Stack, Suite, Target, Workload
from orionfs.units import MIB

#: fio's own start and end, far beyond what a burst needs; a file that hangs must not hang the benchmark.
BURST_TIMEOUT_S = 60.0

Progress = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(slots=True)
class Samples:
    """What the rounds gave: ``bursts`` by (workload, stack), one per round; ``failed`` says why a stack has none."""

    bursts: dict[tuple[str, str], list[fio.Burst]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def rates(self, workload: Workload, stack: str) -> list[float]:
        """Bytes or operations per second, in the order of the rounds."""
        return self.figures(workload, stack, "rate")

    def figures(self, workload: Workload, stack: str, metric: Metric) -> list[float]:
        """What *metric* asks for, in the order of the rounds; latencies are microseconds."""
        return [_figure(burst, workload, metric) for burst in self.bursts.get((workload.name, stack), [])]


def _figure(burst: fio.Burst, workload: Workload, metric: Metric) -> float:
    if metric == "median latency":
        return burst.median_us
    if metric == "p99 latency":
        return burst.p99_us
    if metric == "company":
        assert burst.company is not None, "a row about company that its stack does not have"
        return burst.company
    return burst.bytes_per_second if workload.in_bytes else burst.operations_per_second


def balanced(items: Sequence[Item], index: int) -> list[Item]:
    """*items* in their order for round *index*: a row of a Williams design.

    Over as many rounds as there are items each is once at every place; over twice as many (as many, if their count is
    even) each directly follows every other equally often.  So what one stack leaves behind, in caches or as work put
    off, falls on all others alike; plain rotation would let the same two meet every time.
    """
    count = len(items)
    # 0, 1, n-1, 2, n-2 ...: the differences of neighbors are all different.
    zigzag = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(count)]
    order = [items[(step + index) % count] for step in zigzag]
    return order[::-1] if index // max(count, 1) % 2 else order


def missing(stack: Stack, setting: Setting) -> str:
    """The sentence that says what *stack* lacks on this machine; empty if nothing."""
    if stack.on_disk and setting.disk is None:
        return "there is no folder on a disk: name one with --disk"
    for program, package in stack.programs.items():
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    if stack.root and os.geteuid() != 0:
        return f"needs root for {stack.root}"
    return ""


def start_stacks(
    suite: Suite, setting: Setting, exits: ExitStack, samples: Samples, tell: Progress
) -> dict[str, Target]:
    """Bring every stack of *suite* up and write its file once, so that all reads hit allocated pages.

    A stack that cannot be had is noted in *samples* and left out: the others are measured all the same.
    """
    targets = {}
    for stack in suite.stacks:
        reason = missing(stack, setting)
        if reason:
            samples.failed[stack.name] = reason
            continue
        tell(f"starting {stack.title}")
        # What a failed start leaves behind goes at once; what stands is handed on to the caller's stack.
        with ExitStack() as own:
            try:
                target = stack.start(setting, own)
                if stack.prefill:
                    fio.run(
                        fio.command(_PREFILL, target.file, size=setting.size, seed=0),
                        timeout_s=BURST_TIMEOUT_S + setting.size / (8 * MIB),
                    )
            except NotMeasured as error:
                samples.failed[stack.name] = str(error)
                continue
            exits.push(own.pop_all())
        targets[stack.name] = target
    return targets


_PREFILL = Workload("prefill", "first write", "write", MIB)


def measure_rounds(
    suite: Suite, setting: Setting, targets: dict[str, Target], rounds: int, samples: Samples, tell: Progress
) -> None:
    """Measure each workload on each target once per round and append to *samples*.

    All stacks of one workload follow each other before the next workload, so that the bursts that a ratio compares lie
    within seconds.  A stack that fails is noted, its bursts are dropped, and the rounds go on without it.
    """
    stacks = {stack.name: stack for stack in suite.stacks}
    for index in range(rounds):
        for workload in suite.workloads:
            tell(f"round {index + 1} of {rounds}: {workload.title}")
            up = [name for name in suite.stacks_for(workload) if name in targets and name not in samples.failed]
            for name in balanced(up, index):
                try:
                    burst = measure(workload, stacks[name], targets[name], setting, seed=index + 1)
                except NotMeasured as error:
                    samples.failed[name] = str(error)
                    continue
                samples.bursts.setdefault((workload.name, name), []).append(burst)
    for key in [key for key in samples.bursts if key[1] in samples.failed]:
        del samples.bursts[key]


def measure(workload: Workload, stack: Stack, target: Target, setting: Setting, *, seed: int) -> fio.Burst:
    """One burst, beside the stack's company if it has one.  Raises NotMeasured if fio, a server or the company fails.

    The servers' CPU per operation is without the ramp of *workload*, whose part is taken to be as large as its time.
    """
    argv = fio.command(workload, target.file, size=setting.size, seed=seed, burst_ms=setting.burst_ms)
    before = cpu_ns(target.pids)
    if stack.company is None:
        burst = fio.run(argv, timeout_s=BURST_TIMEOUT_S)
    else:
        with stack.company(target) as company:
            burst = fio.run(argv, timeout_s=BURST_TIMEOUT_S, meanwhile=company.begin)
            # What a job beside the requests costs is no cost of the requests.
            return replace(burst, company=company.rate())
    if not target.pids:
        return burst
    spent_us = (cpu_ns(target.pids) - before) / 1000 * setting.burst_ms / (setting.burst_ms + workload.ramp_ms)
    return replace(burst, cpu_us=spent_us / burst.operations)
