"""One burst of fio against one file."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orionfs.tools.benchmarks.suite import NotMeasured, Workload


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst did.  ``p99_us`` is fio's completion latency; ``cpu_us`` the servers' CPU per operation, or None
    if the kernel serves the file."""

    bytes_per_second: float
    operations_per_second: float
    operations: int
    p99_us: float
    cpu_us: float | None = None


def command(workload: Workload, file: Path, *, size: int, seed: int, burst_ms: int = 0, loops: int = 1) -> list[str]:
    """The fio call for *workload* over the first *size* bytes of *file*.

    With *burst_ms* the job runs for that long, else until it has passed *loops* times over *size*.  The same *seed*
    gives every stack the same offsets.  fio may neither create nor lay out the file: a stack that lost its file must
    fail, not be measured on a new one.
    """
    # psync at depth 1: io_submit for a single request would only add a system call to every stack.
    engine = "psync" if workload.depth == 1 else "libaio"
    argv = [
        "fio",
        f"--name={workload.name}",
        f"--filename={file}",
        f"--size={size}",
        f"--rw={workload.rw}",
        f"--bs={workload.block}",
        f"--iodepth={workload.depth}",
        f"--ioengine={engine}",
        f"--randseed={seed}",
        "--direct=1",
        "--norandommap",
        "--allow_file_create=0",
        "--thread",
        "--output-format=json",
    ]
    return [*argv, "--time_based", f"--runtime={burst_ms}ms"] if burst_ms else [*argv, f"--loops={loops}"]


def parse(report: dict[str, Any]) -> Burst:
    """The burst in a fio JSON *report* of one job.  Raises ValueError if the job failed or did nothing."""
    job = report["jobs"][0]
    if job["error"]:
        raise ValueError(f"fio's job ended with error {job['error']}")
    side = max((job["read"], job["write"]), key=lambda candidate: candidate["total_ios"])
    if not side["total_ios"]:
        raise ValueError("fio completed no request")
    return Burst(
        bytes_per_second=side["bw_bytes"],
        operations_per_second=side["iops"],
        operations=side["total_ios"],
        p99_us=side["clat_ns"].get("percentile", {}).get("99.000000", side["clat_ns"]["max"]) / 1000,
    )


def run(argv: list[str], *, timeout_s: float) -> Burst:
    """Run *argv* of :func:`command` to its end.  Raises NotMeasured if fio fails or hangs for *timeout_s*."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"fio did not end within {timeout_s:.0f} s: the file hangs") from None
    try:
        # fio writes its complaints in front of the JSON.
        return parse(json.loads(done.stdout[done.stdout.index("{") :]))
    except (ValueError, KeyError) as error:
        complaint = (done.stderr.strip() or done.stdout.strip() or str(error)).splitlines()[0]
        raise NotMeasured(f"fio failed: {complaint}") from error
