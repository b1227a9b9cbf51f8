"""Suite ``raid``: what protection, failed members and background jobs cost, each beside the same array without."""

from __future__ import annotations

from orionfs.array.policies import Policies
from orionfs.tools.benchmarks.jobs import company, rates
from orionfs.tools.benchmarks.orion import BARE, Shape, orion
from orionfs.tools.benchmarks.stripes import reads_of_whole_stripes
from orionfs.tools.benchmarks.suite import Bar, Limit, Suite, Workload
from orionfs.units import GIB, KIB, MIB

_RAID5 = Shape("raid5", 4)
_DISK = 128 * GIB
_RAID6 = Shape("raid6", 6)

#: What a job has to do at least beside requests: the default floor, MiB per second of each member.
_FLOOR = Policies().rebuild_floor / MIB


def _job_limits() -> tuple[Limit, ...]:
    limits = []
    for level in ("raid5", "raid1", "raid6", "raid10"):
        at_least = 1.0 if level == "raid5" else None
        stack = f"{level}-spare"
        limits += [
            Limit(f"rebuild-{level}", f"rebuild, {level} x4", "GB/s", None, stack, rates("rebuild"), at_least),
            Limit(f"scrub-{level}", f"scrub, {level} x4", "GB/s", None, stack, rates("scrub"), at_least),
        ]
    return tuple(limits)


SUITE = Suite(
    name="raid",
    conditions=(
        "all stacks up at once over sparse files on tmpfs, or on a disk where it says so, chunk 64 KiB, each file"
        " written once before the first round, fio with O_DIRECT",
        'protected is the default: consistency "journal" and a bitmap; bare is consistency "resync" and bitmap = false',
        "writes count after 200 ms of them, when what a journal can put off is full; on disk members are sparse files"
        " of 128 GiB, the size of a disk, which leaves the journal 128 MiB, and 1 MiB where they are said to be small",
        "rebuilds and scrubs: bytes read from and written to all members together, per second; the spare has been a"
        " member before, so that its pages are there",
        "company: MiB of each member that a job has done per second beside the reads",
        "figures are medians over the rounds; a ratio is the median of the ratios within each round",
    ),
    stacks=(
        orion("raid5", _RAID5, "protected"),
        orion("raid5-bare", Shape("raid5", 4, BARE), "bare"),
        orion("raid5-ppl", Shape("raid5", 4, {"consistency": "ppl"}), "PPL"),
        orion("raid5-degraded", Shape("raid5", 4, missing=1), "degraded"),
        orion("raid6", _RAID6, "protected"),
        orion("raid6-bare", Shape("raid6", 6, BARE), "bare"),
        orion("raid5-rebuilding", Shape("raid5", 4, spares=1), "being rebuilt", company=company("rebuild")),
        orion("raid5-scrubbing", Shape("raid5", 4), "being scrubbed", company=company("scrub")),
        *(orion(f"{level}-spare", Shape(level, 4, spares=1), "with a spare") for level in ("raid5", "raid1")),
        *(orion(f"{level}-spare", Shape(level, 4, spares=1), "with a spare") for level in ("raid6", "raid10")),
        orion("disk", Shape("raid5", 4, member_bytes=_DISK), "protected, on disk", on_disk=True),
        orion("disk-bare", Shape("raid5", 4, BARE, member_bytes=_DISK), "bare, on disk", on_disk=True),
        orion("disk-small", _RAID5, "protected, on disk, small", on_disk=True),
    ),
    workloads=(
        Workload("read-1m", "1 MiB direct read", "read", MIB),
        Workload("write-1m", "1 MiB direct write", "write", MIB, ramp_ms=200),
        Workload("write-960k", "960 KiB direct write, 5 whole stripes", "write", 960 * KIB, ramp_ms=200),
        Workload("randread-4k-qd1", "4 KiB random read, QD 1", "randread", 4 * KIB, ramp_ms=200),
        Workload("randwrite-4k-qd16", "4 KiB random write, QD 16", "randwrite", 4 * KIB, 16, ramp_ms=200),
        Workload(
            "randwrite-4k-fsync", "4 KiB random write, fsync every 32", "randwrite", 4 * KIB, sync_every=32, ramp_ms=200
        ),
    ),
    bars=(
        Bar("rebuild-median", "randread-4k-qd1", "raid5-rebuilding", ("raid5",), at_most=1.5, metric="median latency"),
        Bar("rebuild-p99", "randread-4k-qd1", "raid5-rebuilding", ("raid5",), at_most=4, metric="p99 latency"),
        Bar("rebuild-floor", "randread-4k-qd1", "raid5-rebuilding", (), at_least=_FLOOR, metric="company"),
        Bar("scrub-median", "randread-4k-qd1", "raid5-scrubbing", ("raid5",), at_most=1.5, metric="median latency"),
        Bar("scrub-p99", "randread-4k-qd1", "raid5-scrubbing", ("raid5",), at_most=4, metric="p99 latency"),
        Bar("scrub-floor", "randread-4k-qd1", "raid5-scrubbing", (), at_least=_FLOOR, metric="company"),
        Bar("degraded-read-1m", "read-1m", "raid5-degraded", ("raid5",), 0.5),
        Bar("raid6-read-1m", "read-1m", "raid6", ("raid5",), 0.9),
        Bar("raid6-write-1m", "write-1m", "raid6", ("raid5",), 0.7),
        Bar("protected-randwrite-4k", "randwrite-4k-qd16", "raid5", ("raid5-bare",), 0.5),
        Bar("protected-write-1m", "write-1m", "raid5", ("raid5-bare",), 0.9),
        Bar("protected-fsync-disk", "randwrite-4k-fsync", "disk", ("disk-bare",), 0.4),
        Bar("protected-whole-stripes", "write-960k", "raid5", ("raid5-bare",)),
        Bar("protected-fsync-small-disk", "randwrite-4k-fsync", "disk-small", ("disk-bare",)),
        Bar("raid6-protected-randwrite-4k", "randwrite-4k-qd16", "raid6", ("raid6-bare",)),
        Bar("ppl-randwrite-4k", "randwrite-4k-qd16", "raid5-ppl", ("raid5-bare",)),
        Bar("ppl-write-1m", "write-1m", "raid5-ppl", ("raid5-bare",)),
    ),
    limits=(
        Limit(
            "full-stripes-raid5",
            "chunks read by writes of whole stripes, raid5 x4",
            "",
            1,
            "raid5",
            reads_of_whole_stripes(_RAID5),
        ),
        Limit(
            "full-stripes-raid6",
            "chunks read by writes of whole stripes, raid6 x6",
            "",
            1,
            "raid6",
            reads_of_whole_stripes(_RAID6),
        ),
        *_job_limits(),
    ),
    compared_only=True,
)
