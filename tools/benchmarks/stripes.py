"""Whole stripes: whether writing them reads anything, by the array's own counters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orionfs.tools.benchmarks import fio
from orionfs.tools.benchmarks.jobs import Array
from orionfs.tools.benchmarks.orion import CHUNK, DATA_MEMBERS, Shape
from orionfs.tools.benchmarks.suite import NotMeasured, Setting, Target, Workload


def reads_of_whole_stripes(shape: Shape) -> Callable[[Target, Setting], Sequence[float]]:
    """A figure: how many chunks an array of *shape* reads while it is written once, a whole stripe at a time.

    Not measured unless it counts each of these writes as one whole stripe.
    """
    width = DATA_MEMBERS[shape.level](shape.members) * CHUNK

    def measure(target: Target, setting: Setting) -> Sequence[float]:
        array = Array(target)
        stripes = setting.size // width
        before = array.status()["details"]
        argv = fio.command(Workload("stripes", "", "write", width), target.file, size=stripes * width, seed=0)
        fio.run(argv, timeout_s=120)
        after = array.status()["details"]
        whole = after["full_stripe_writes"] - before["full_stripe_writes"]
        if whole != stripes:
            raise NotMeasured(f"{stripes} whole stripes were written and {whole} counted as such")
        return [after["stripe_reads"] - before["stripe_reads"]]

    return measure
