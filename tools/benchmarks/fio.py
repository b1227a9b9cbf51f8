"""One burst of fio against one file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orionfs.tools.benchmarks.suite import NotMeasured, Workload


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst did.

    ``median_us`` and ``p99_us`` are fio's completion latency; ``cpu_us`` the servers' CPU per operation, or None if the
    kernel serves the file; ``company`` the MiB per second of the job beside it, or None if there was none.
    """

    bytes_per_second: float
    operations_per_second: float
    operations: int
    p99_us: float
    median_us: float = 0.0
    cpu_us: float | None = None
    company: float | None = None


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
    if workload.sync_every:
        argv.append(f"--fdatasync={workload.sync_every}")
    if not burst_ms:
        return [*argv, f"--loops={loops}", "--end_fsync=1"]
    ramp = [f"--ramp_time={workload.ramp_ms}ms"] if workload.ramp_ms else []
    return [*argv, "--time_based", f"--runtime={burst_ms}ms", *ramp]


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
        p99_us=_percentile(side, "99.000000"),
        median_us=_percentile(side, "50.000000"),
    )


def _percentile(side: dict[str, Any], name: str) -> float:
    latency = side["clat_ns"]
    return float(latency.get("percentile", {}).get(name, latency["max"])) / 1000


def run(argv: list[str], *, timeout_s: float, meanwhile: Callable[[], None] | None = None) -> Burst:
    """Run *argv* of :func:`command` to its end, and *meanwhile* as soon as it has been started.

    Raises NotMeasured if fio fails or hangs for *timeout_s*.
    """
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            if meanwhile is not None:
                meanwhile()
            out, complaints = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"fio did not end within {timeout_s:.0f} s: the file hangs") from None
        finally:
            process.kill()
    try:
        # fio writes its complaints in front of the JSON.
        return parse(json.loads(out[out.index("{") :]))
    except (ValueError, KeyError) as error:
        complaint = (complaints.strip() or out.strip() or str(error)).splitlines()[0]
        raise NotMeasured(f"fio failed: {complaint}") from error
