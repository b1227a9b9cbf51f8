"""The two faces of a result: aligned text for the terminal and JSON (schema ``orionfs.bench/1``)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orionfs.tools.benchmarks.rounds import Samples
from orionfs.tools.benchmarks.suite import Bar, Limit, Suite, Workload
from orionfs.tools.benchmarks.verdict import Status, Verdict, spread
from orionfs.units import MIB, format_size

SCHEMA = "orionfs.bench/1"


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.  ``verdicts`` is keyed by the names of the suite's bars and limits."""

    suite: Suite
    samples: Samples
    verdicts: dict[str, Verdict]
    versions: dict[str, str]
    machine: dict[str, str | int]
    run: dict[str, Any]

    @property
    def met(self) -> bool:
        """Whether every row with something to reach is met; one that was not measured is not."""
        counted = [row.name for row in self.suite.rows if row.judged]
        return all(self.verdicts[name].status is Status.MET for name in counted)


def to_json(result: Result) -> dict[str, Any]:
    """The run as JSON: every burst of every round, every verdict with its bar, versions and machine."""
    return {
        "schema": SCHEMA,
        "suite": result.suite.name,
        "met": result.met,
        "run": result.run,
        "machine": result.machine,
        "versions": result.versions,
        "conditions": list(result.suite.conditions),
        "workloads": {workload.name: asdict(workload) for workload in result.suite.workloads},
        "stacks": {stack.name: stack.title for stack in result.suite.stacks},
        "bursts": [
            {"workload": workload, "stack": stack, "rounds": [asdict(burst) for burst in bursts]}
            for (workload, stack), bursts in result.samples.bursts.items()
        ],
        "failed": result.samples.failed,
        "rows": [_row_to_json(row, result.verdicts[row.name]) for row in result.suite.rows],
    }


def _row_to_json(row: Bar | Limit, verdict: Verdict) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in row.__slots__ if name != "measure"}
    return fields | {"verdict": asdict(verdict)}


def to_text(result: Result) -> str:
    """The run as text: conditions, one table per workload, the bars, the limits, and one last line."""
    parts = [_heading(result)]
    parts += [_workload_table(result, workload) for workload in result.suite.workloads]
    parts += [table for table in (_bar_table(result), _limit_table(result), _reasons(result)) if table]
    counted = [status for verdict in result.verdicts.values() if (status := verdict.status) is not Status.INFORMATION]
    parts.append(f"{counted.count(Status.MET)} of {len(counted)} rows met")
    return "\n\n".join(parts) + "\n"


def _heading(result: Result) -> str:
    machine = result.machine
    lines = [
        f"suite {result.suite.name}: {result.run['rounds']} rounds of {result.run['burst_ms']} ms bursts over "
        f"{format_size(result.run['size'])} per stack",
        f"machine: {machine['processor']}, {machine['cores']} cores, {format_size(int(machine['memory']))}, "
        f"{machine['system']}",
        "versions: " + ", ".join(f"{name} {version}" for name, version in result.versions.items()),
        *result.suite.conditions,
    ]
    return "\n".join(lines)


def _workload_table(result: Result, workload: Workload) -> str:
    unit, divisor = ("MiB/s", MIB) if workload.in_bytes else ("IOPS", 1)
    lines = [(workload.title, f"median {unit}", "quartiles", "median us", "p99 us", "server CPU us/op")]
    for stack in result.suite.stacks:
        rates = result.samples.rates(workload, stack.name)
        if not rates:
            continue
        bursts = result.samples.bursts[workload.name, stack.name]
        figure = spread(rates)
        cpu = [burst.cpu_us for burst in bursts if burst.cpu_us is not None]
        lines.append(
            (
                stack.title,
                f"{figure.median / divisor:.0f}",
                f"{figure.low / divisor:.0f}-{figure.high / divisor:.0f}",
                f"{statistics.median(burst.median_us for burst in bursts):.0f}",
                f"{statistics.median(burst.p99_us for burst in bursts):.0f}",
                f"{statistics.median(cpu):.1f}" if cpu else "-" if stack.company else "in the kernel",
            )
        )
    return align(lines)


def _bar_table(result: Result) -> str:
    if not result.suite.bars:
        return ""
    titles = {stack.name: stack.title for stack in result.suite.stacks}
    workloads = {workload.name: workload.title for workload in result.suite.workloads}
    lines = [("row", "workload", "stack", "against", "of", "ratio", "quartiles", "bar", "verdict")]
    for bar in result.suite.bars:
        verdict = result.verdicts[bar.name]
        against = titles[verdict.peer] if verdict.peer else " or ".join(titles[peer] for peer in bar.peers) or "-"
        ratio, quartiles = _figures(verdict)
        lines.append(
            (
                bar.name,
                workloads[bar.workload],
                titles[bar.stack],
                against,
                bar.metric,
                ratio,
                quartiles,
                _bound("at least", bar.at_least) or _bound("at most", bar.at_most) or "-",
                verdict.status.value,
            )
        )
    return align(lines)


def _limit_table(result: Result) -> str:
    if not result.suite.limits:
        return ""
    lines = [("row", "figure", "unit", "median", "quartiles", "bar", "verdict")]
    for limit in result.suite.limits:
        verdict = result.verdicts[limit.name]
        median, quartiles = _figures(verdict)
        bar = _bound("below", limit.below) or _bound("at least", limit.at_least) or "-"
        lines.append((limit.name, limit.title, limit.unit, median, quartiles, bar, verdict.status.value))
    return align(lines)


def _bound(words: str, value: float | None) -> str:
    return "" if value is None else f"{words} {value:g}"


def _figures(verdict: Verdict) -> tuple[str, str]:
    figure = verdict.figure
    return (f"{figure.median:.2f}", f"{figure.low:.2f}-{figure.high:.2f}") if figure else ("-", "-")


def _reasons(result: Result) -> str:
    """Why rows have no verdict, each reason once, and what else failed on the way."""
    rows: dict[str, list[str]] = {f"{name}: {reason}": [] for name, reason in result.samples.failed.items()}
    for name, verdict in result.verdicts.items():
        if verdict.reason:
            rows.setdefault(verdict.reason, []).append(name)
    return "\n".join(f"{reason} (rows: {', '.join(names)})" if names else reason for reason, names in rows.items())


def align(lines: Sequence[Sequence[str]]) -> str:
    """A table with a heading line: columns as wide as their widest cell, numbers to the right, words to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    right = [all(_is_figure(cell) for cell in column[1:]) for column in zip(*lines, strict=True)]
    table = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(table)


def _is_figure(cell: str) -> bool:
    return cell in ("-", "in the kernel") or cell.replace("-", "").replace(".", "").replace("e", "").isdecimal()
