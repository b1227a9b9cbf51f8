"""Catalog: every case that there is, in the order of the closing table, and which of them run each time."""

from __future__ import annotations

from tests.interop import kernel_endings as kernel
from tests.interop import orionfs_endings as orionfs
from tests.interop import orionfs_logs as logs
from tests.interop.case import Case
from tests.interop.shapes import TABLE, shape
from tests.interop.table_cases import FilledByKernel, FilledByOrionfs

RAID1 = shape("raid1", "", 2, 5)
RAID4 = shape("raid4", "", 3, 5)
RAID5 = shape("raid5", "left-symmetric", 3, 5)
RAID6 = shape("raid6", "left-symmetric", 4, 5)
RAID10 = shape("raid10", "n2", 4, 5)
#: One shape of each level that has redundancy.
REDUNDANT = [RAID1, RAID4, RAID5, RAID6, RAID10]
#: Where sync addresses are hardest to get right.
OTHER_COPIES = [shape("raid10", layout, members, 5) for layout, members in (("f2", 4), ("o2", 3), ("n3", 5))]


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
    for each in OTHER_COPIES:
        cases += [kind(each) for kind in (*BY_KERNEL, *BY_ORIONFS) if kind in BY_ADDRESS]
    for each in (RAID4, RAID5, RAID6):
        cases += [orionfs.KilledDegraded(each), logs.JournalCut(each)]
    cases += [kind(RAID5) for kind in PARTIAL_PARITY]
    cases.append(kernel.WriteMostly(RAID1))
    return cases


BY_KERNEL = (
    kernel.Cut,
    kernel.WithSpare,
    kernel.HalfResynced,
    kernel.HalfRecovered,
    kernel.HalfReplaced,
    kernel.Bitmap,
    kernel.BitmapCut,
    kernel.BitmapAbsence,
    kernel.BadBlocks,
)
PARTIAL_PARITY = (
    kernel.Ppl,
    kernel.PplCut,
    kernel.PplCutDegraded,
    logs.Ppl,
    logs.PplCut,
    logs.PplCutDegraded,
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

#: Those that have to translate between addresses of members and of the array.
BY_ADDRESS = (
    kernel.HalfResynced,
    kernel.HalfRecovered,
    kernel.HalfReplaced,
    kernel.BitmapCut,
    kernel.BitmapAbsence,
    orionfs.HalfResynced,
    orionfs.HalfRecovered,
    orionfs.HalfReplaced,
    logs.BitmapCut,
    logs.BitmapAbsence,
)

#: Layouts that are tried each time: one of each kind.
_KERNEL_FILLS = ("", "alternate", "left-symmetric", "right-asymmetric", "ddf-zero-restart", "ddf-N-continue")
_KERNEL_FILLS += ("left-symmetric-6", "parity-first-6", "n2", "f2", "o3")
_ORIONFS_FILLS = ("", "left-symmetric", "ddf-N-restart", "left-asymmetric-6", "n2", "f3", "o2")
_ENDINGS = {
    "raid1": (kernel.BitmapAbsence, kernel.HalfReplaced, orionfs.HalfRecovered, logs.BitmapCut, kernel.WriteMostly),
    "raid4": (orionfs.Degraded, kernel.HalfRecovered),
    "raid5": (
        kernel.BitmapCut,
        kernel.PplCutDegraded,
        orionfs.HalfResynced,
        orionfs.Spoiled,
        logs.PplCutDegraded,
        logs.JournalCut,
    ),
    "raid6": (kernel.Degraded, kernel.BadBlocks, orionfs.HalfReplaced, logs.JournalCut, logs.BitmapAbsence),
    "raid10": (kernel.HalfResynced, kernel.WithSpare, logs.BitmapCut, orionfs.WithSpare, orionfs.HalfRecovered),
}


def is_essential(case: Case) -> bool:
    """Whether it runs each time, and not only in the long campaign."""
    if isinstance(case, FilledByKernel):
        return case.shape.layout in _KERNEL_FILLS
    if isinstance(case, FilledByOrionfs):
        return case.shape.layout in _ORIONFS_FILLS
    return case.shape in REDUNDANT and type(case) in _ENDINGS[case.shape.level]
