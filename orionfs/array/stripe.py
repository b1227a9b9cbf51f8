"""Stripe: which of its chunks can be computed from which, and computing them.  Pure arithmetic, no I/O.

Everything is per byte column, so that it holds for any span of a stripe, and for many stripes of one kind at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from orionfs.array.layout import Row
from orionfs.kernels.galois import recover_from_q, recover_two, syndromes
from orionfs.kernels.parity import Cells, xor


def sources(row: Row, lost: Collection[int]) -> list[int] | None:
    """The slots from whose chunks those in the slots *lost* can be computed; None if that cannot be done.

    Those are all data chunks that are left, and as many parity chunks as data chunks are lost.
    """
    kept = [slot for slot in row.data if slot not in lost]
    checks = [slot for slot in (row.parity, row.q) if slot >= 0 and slot not in lost]
    gone = len(row.data) - len(kept)
    return kept + checks[:gone] if gone <= len(checks) else None


def solve(row: Row, chunks: Mapping[int, Cells], lost: Collection[int]) -> None:
    """Compute the chunks in the slots *lost*: every data chunk that is lost, and parity chunks as one likes.

    *chunks* has what :func:`sources` asks for, by slot, and room for those in *lost*.
    """
    kept = [column for column, slot in enumerate(row.data) if slot not in lost]
    gone = [column for column, slot in enumerate(row.data) if slot in lost]
    data = [chunks[row.data[column]] for column in kept]
    if gone:
        targets = [chunks[row.data[column]] for column in gone]
        if len(gone) == 1 and row.parity not in lost and row.parity in chunks:
            xor(targets[0], [chunks[row.parity], *data])
        else:
            kept_exponents = [row.exponents[column] for column in kept]
            gone_exponents = [row.exponents[column] for column in gone]
            if len(gone) == 1:
                recover_from_q(targets[0], gone_exponents[0], chunks[row.q], data, kept_exponents)
            else:
                pair, powers = (targets[0], targets[1]), (gone_exponents[0], gone_exponents[1])
                recover_two(pair, powers, chunks[row.parity], chunks[row.q], data, kept_exponents)
    compute_parity(
        row,
        [chunks[slot] for slot in row.data],
        chunks[row.parity] if row.parity in lost else None,
        chunks[row.q] if row.q in lost else None,
    )


def compute_parity(row: Row, data: Sequence[Cells], p: Cells | None, q: Cells | None) -> None:
    """*p* and *q*, where they are not None, become the parity of *data*, the chunks in array order."""
    if q is not None:
        syndromes(p, q, data, row.exponents)
    elif p is not None:
        xor(p, data)
