"""Catalog: every case that there is, in the order of the closing table, and which of them run each time."""

from __future__ import annotations

from tests.interop import kernel_endings as kernel
from tests.interop import orionfs_endings as orionfs
from tests.interop import orionfs_logs as logs
from tests.interop.case import Case
from tests.interop.shapes import TABLE, shape
from tests.interop.table_cases import FilledByKernel, FilledByOrionfs

RAID1 = shape("raid1", "", 2)
RAID4 = shape("raid4", "", 3)
RAID5 = shape("raid5", "left-symmetric", 3)
RAID6 = shape("raid6", "left-symmetric", 4)
RAID10 = shape("raid10", "n2", 4)
#: One shape of each level that has redundancy.
REDUNDANT = [RAID1, RAID4, RAID5, RAID6, RAID10]
#: Where sync addresses are hardest to get right.
OTHER_COPIES = [shape("raid10", "f2", 4), shape("raid10", "o2", 3), shape("raid10", "n3", 5)]


def table_cases() -> list[Case]:
    """Every level and layout, filled by the kernel and filled by OrionFS."""
    return [kind(shape) for kind in (FilledByKernel, FilledByOrionfs) for shape in TABLE]


def ending_cases() -> list[Case]:
    """Arrays that were not just filled and closed."""
    cases: list[Case] = []
    for each in REDUNDANT:
        cases += [kind(each) for kind in (*BY_KERNEL, *BY_ORIONFS)]
        for lost in range(1, each.tolerates + 1):
            cases += [kernel.Degraded(each, lost), orionfs.Degraded(each, lost)]
    for each in (RAID4, RAID5, RAID6):
        cases += [orionfs.KilledDegraded(each), logs.JournalCut(each)]
    cases += [kind(RAID5) for kind in (kernel.Ppl, kernel.PplCut, logs.Ppl, logs.PplCut)]
    cases.append(kernel.WriteMostly(RAID1))
    return cases


BY_KERNEL = (
    kernel.WithSpare,
    kernel.HalfResynced,
    kernel.HalfRecovered,
    kernel.HalfReplaced,
    kernel.Bitmap,
    kernel.BitmapCut,
    kernel.BitmapAbsence,
    kernel.BadBlocks,
)
BY_ORIONFS = (
    orionfs.Spoiled,
    orionfs.Killed,
    orionfs.WithSpare,
    orionfs.HalfResynced,
    orionfs.HalfRecovered,
    orionfs.HalfReplaced,
    logs.Bitmap,
    logs.BitmapCut,
    logs.BitmapAbsence,
    logs.BadBlocks,
)


def is_essential(case: Case) -> bool:
    """Whether it runs each time, and not only in the long campaign."""
    return True
