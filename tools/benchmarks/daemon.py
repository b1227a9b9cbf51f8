"""What the daemon itself has to keep to: how fast it answers and starts, and what it costs when nothing happens."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from orionfs.clock import SystemClock
from orionfs.control.client import ControlClient
from orionfs.control.runtime import find
from orionfs.tools.benchmarks import fio, server
from orionfs.tools.benchmarks.orion import Shape, call, make_store, program
from orionfs.tools.benchmarks.suite import Limit, NotMeasured, Setting, Target, Workload
from orionfs.units import MIB

_REQUESTS = 50
_STARTS = 9


def limits(stack: str) -> tuple[Limit, ...]:
    """The limits of the daemon that serves *stack*."""
    return (
        Limit("control-idle", "control request, daemon idle", "ms", 20, stack, control_latency),
        Limit(
            "control-loaded", "control request, 4 KiB random writes running", "ms", 20, stack, control_latency_loaded
        ),
        Limit("orionctl-start", "orionctl status from start to end", "ms", 100, stack, orionctl_start),
        Limit("mount", "mount.orionfs to first read, 4 members", "ms", 1000, stack, mount_time),
        Limit("idle-cpu", "CPU of an idle daemon", "%", 1, stack, idle_cpu),
        Limit("rss", "resident memory after traffic", "MiB", 120, stack, resident_after_traffic),
    )


def control_latency(target: Target, setting: Setting) -> Sequence[float]:
    """Milliseconds for a ``status`` request, connecting included, as every orionctl does."""
    assert target.mountpoint is not None
    mount = find(target.mountpoint)

    def request() -> None:
        with ControlClient.to(mount) as client:
            client.call("status")

    return [_milliseconds(request) for _ in range(_REQUESTS)]


def control_latency_loaded(target: Target, setting: Setting) -> Sequence[float]:
    """The same while fio keeps 16 random 4 KiB writes in flight."""
    workload = Workload("load", "load", "randwrite", 4096, 16)
    argv = fio.command(workload, target.file, size=setting.size, seed=0, burst_ms=60_000)
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
        try:
            # fio is writing once the daemon burns CPU; before that there is no load to measure under.
            before = server.cpu_ns(target.pids)
            while server.cpu_ns(target.pids) - before < 50_000_000:
                if server.wait_ended(load.pid, 0.05):
                    raise NotMeasured("fio ended before it put the daemon under load")
            return control_latency(target, setting)
        finally:
            load.terminate()


def orionctl_start(target: Target, setting: Setting) -> Sequence[float]:
    """Milliseconds from starting ``orionctl status`` to its end."""
    argv = [program("orionctl"), "status", str(target.mountpoint)]
    return [_milliseconds(lambda: call(*argv)) for _ in range(_STARTS)]


def mount_time(target: Target, setting: Setting) -> Sequence[float]:
    """Milliseconds from starting ``mount.orionfs`` until the first block of a RAID 5 of four members has been read.

    A store of its own, since the measured one is mounted.
    """
    store = make_store(setting.folder / "mount-store", Shape("raid5", 4), 64 * MIB)
    place = setting.folder / "mount"
    place.mkdir()

    def mount() -> None:
        call(program("mount.orionfs"), str(store), str(place))
        _read_block(place / "arrays" / "array")

    figures = []
    for _ in range(_STARTS):
        try:
            figures.append(_milliseconds(mount))
            call(program("umount.orionfs"), str(place))
        finally:
            server.unmount(place)
    return figures


def idle_cpu(target: Target, setting: Setting) -> Sequence[float]:
    """Percent of one core that the daemon uses while nobody asks anything of it."""
    started, before = SystemClock.elapsed_ns(), server.cpu_ns(target.pids)
    if server.wait_ended(target.pids[0], setting.idle_s):
        raise NotMeasured("the daemon ended while it was idle")
    return [100 * (server.cpu_ns(target.pids) - before) / (SystemClock.elapsed_ns() - started)]


def resident_after_traffic(target: Target, setting: Setting) -> Sequence[float]:
    """MiB in RAM after ``setting.traffic`` bytes, half written and half read, 1 MiB each; no caches are configured."""
    loops = max(1, setting.traffic // 2 // setting.size)
    for rw in ("write", "read"):
        argv = fio.command(Workload(rw, rw, rw, MIB), target.file, size=setting.size, seed=0, loops=loops)
        fio.run(argv, timeout_s=60 + setting.traffic / (8 * MIB))
    status = Path(f"/proc/{target.pids[0]}/status").read_text()
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    if resident is None:
        raise NotMeasured("the daemon ended under traffic")
    return [int(resident[1]) / 1024]


def _read_block(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        if len(os.pread(descriptor, 4096, 0)) != 4096:
            raise NotMeasured(f"{file} gave a short read")
    finally:
        os.close(descriptor)


def _milliseconds(action: Callable[[], object]) -> float:
    started = SystemClock.elapsed_ns()
    action()
    return (SystemClock.elapsed_ns() - started) / 1e6
