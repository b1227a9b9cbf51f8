"""Cutting the transfers of a write: stripes that are journaled from those that are not, and records to their size.

In all parity levels of MD a stripe lies at the same addresses of all members, and parity is per byte column.  So the
parts of all transfers that lie in one range of addresses are a write of its own, which keeps parity true by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from orionfs.array.journal_format import BLOCK, record_length
from orionfs.array.transfer import Transfer
from orionfs.buffers import window
from orionfs.units import round_down


def clip(transfers: Iterable[Transfer], low: int, high: int) -> list[Transfer]:
    """The parts of *transfers* in the addresses [low, high)."""
    found = []
    for transfer in transfers:
        start, end = max(transfer.offset, low), min(transfer.end, high)
        if start >= end:
            continue
        if (start, end) == (transfer.offset, transfer.end):
            found.append(transfer)
        else:
            views = window(transfer.buffers, start - transfer.offset, end - start)
            found.append(Transfer(transfer.slot, start, end, views))
    return found


def select_rows(transfers: Sequence[Transfer], rows: Collection[int], chunk: int) -> list[Transfer]:
    """The parts of *transfers* in the stripes *rows*, neighbors together."""
    found: list[Transfer] = []
    ordered = sorted(set(rows))
    first = 0
    for index, row in enumerate(ordered):
        if index + 1 == len(ordered) or ordered[index + 1] != row + 1:
            found += clip(transfers, ordered[first] * chunk, (row + 1) * chunk)
            first = index + 1
    return found


def cut_to_size(transfers: list[Transfer], most: int, unit: int) -> list[list[Transfer]]:
    """*transfers* in parts whose records are at most *most* bytes long, or one block of all members."""
    if record_length(transfers, unit) <= most:
        return [transfers]
    low = min(transfer.offset for transfer in transfers)
    high = max(transfer.end for transfer in transfers)
    middle = max(round_down((low + high) // 2, BLOCK), round_down(low, BLOCK) + BLOCK)
    if middle >= high:
        return [transfers]
    return [
        *cut_to_size(clip(transfers, low, middle), most, unit),
        *cut_to_size(clip(transfers, middle, high), most, unit),
    ]
