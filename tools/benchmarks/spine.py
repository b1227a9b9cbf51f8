"""Suite ``spine``: arrays of sparse files on tmpfs, mounted, beside what people would use instead."""

from __future__ import annotations

from orionfs.tools.benchmarks.btrfs import btrfs
from orionfs.tools.benchmarks.daemon import limits
from orionfs.tools.benchmarks.nbd import NBDFUSE
from orionfs.tools.benchmarks.null import NULL
from orionfs.tools.benchmarks.orion import BARE, Shape, orion
from orionfs.tools.benchmarks.qemu import qemu
from orionfs.tools.benchmarks.suite import Bar, Suite, Workload
from orionfs.units import KIB, MIB

_QEMU = ("qemu-threads", "qemu-io_uring")

SUITE = Suite(
    name="spine",
    conditions=(
        "all stacks up at once over tmpfs, each file written once before the first round, fio with O_DIRECT",
        "OrionFS over 4 members, chunk 64 KiB; qemu and nbdkit over one raw file",
        "OrionFS protected: journal and bitmap, as by default; bare: neither, as its peers",
        "btrfs over 4 loop devices as mkfs makes it (64 KiB stripes, copy-on-write, checksums), metadata RAID 1",
        "figures are medians over the rounds; a ratio is the median of the ratios within each round",
    ),
    stacks=(
        orion("orionfs-raid0", Shape("raid0", 4)),
        orion("orionfs-raid5", Shape("raid5", 4), "protected"),
        orion("orionfs-raid5-bare", Shape("raid5", 4, BARE), "bare"),
        qemu("threads"),
        qemu("io_uring"),
        NBDFUSE,
        btrfs("raid0", 4),
        btrfs("raid5", 4),
        NULL,
    ),
    workloads=(
        Workload("read-1m", "1 MiB direct read", "read", MIB),
        Workload("write-1m", "1 MiB direct write", "write", MIB),
        Workload("randread-4k-qd1", "4 KiB random read, QD 1", "randread", 4 * KIB),
        Workload("randread-4k-qd16", "4 KiB random read, QD 16", "randread", 4 * KIB, 16),
        Workload("randwrite-4k-qd1", "4 KiB random write, QD 1", "randwrite", 4 * KIB),
    ),
    bars=(
        Bar("read-1m-raid0", "read-1m", "orionfs-raid0", _QEMU, 2.0),
        Bar("read-1m-raid5", "read-1m", "orionfs-raid5", _QEMU, 2.0),
        Bar("write-1m-raid5", "write-1m", "orionfs-raid5", ("btrfs-raid5",), 3.0),
        Bar("write-1m-raid0", "write-1m", "orionfs-raid0", _QEMU, 0.6),
        Bar("randread-4k-raid5", "randread-4k-qd1", "orionfs-raid5", ("null",), 0.8),
        Bar("randwrite-4k-raid5", "randwrite-4k-qd1", "orionfs-raid5-bare", ("btrfs-raid5",), 1.5),
        Bar("randread-4k-qd16-raid0", "randread-4k-qd16", "orionfs-raid0", ("null",), 0.6),
        Bar("randread-4k-qd16-raid5", "randread-4k-qd16", "orionfs-raid5", ("null",), 0.6),
    ),
    limits=limits("orionfs-raid5"),
)
