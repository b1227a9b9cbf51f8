"""Pending: what a journal holds for one member, against a model of single bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.pending import Pending

SIZE = 64
ranges = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 20)).map(lambda r: (r[0], min(r[0] + r[1], SIZE)))
actions = st.lists(st.one_of(st.tuples(st.just("add"), ranges), st.tuples(st.just("forget"), st.integers(0, 12))))


@given(actions, ranges)
def test_it_holds_what_came_last(actions, window):
    pending = Pending()
    model: dict[int, tuple[int, int]] = {}
    sequence = 0
    for kind, what in actions:
        if kind == "add":
            sequence += 1
            low, high = what
            pending.add(low, memoryview(bytes([sequence % 256]) * (high - low)), sequence)
            model |= dict.fromkeys(range(low, high), (sequence % 256, sequence))
        else:
            limit = sequence - what
            pending.forget(limit)
            model = {at: value for at, value in model.items() if value[1] >= limit}
    low, high = window
    seen: dict[int, int] = {}
    last = low
    for offset, data in pending.over(low, high):
        assert last <= offset
        assert offset + len(data) <= high
        last = offset + len(data)
        seen |= {offset + at: value for at, value in enumerate(data)}
    assert seen == {at: value for at, (value, _sequence) in model.items() if low <= at < high}
    assert bool(pending) == bool(model)
    assert {at for start, (end, _data, _sequence) in pending.snapshot() for at in range(start, end)} == set(model)


@given(st.lists(ranges, min_size=1), ranges)
def test_what_it_gave_out_stays_as_it_was(before, later):
    pending = Pending()
    for number, (low, high) in enumerate(before, 1):
        pending.add(low, memoryview(bytes([number % 256]) * (high - low)), number)
    views, copies = pending.over(0, SIZE), [(offset, bytes(data)) for offset, data in pending.over(0, SIZE)]
    pending.add(later[0], memoryview(b"\xff" * (later[1] - later[0])), 999)
    pending.forget(1000)
    assert [(offset, bytes(data)) for offset, data in views] == copies


def test_nothing_is_over_what_it_does_not_hold():
    pending = Pending()
    assert not pending.over(0, 100)
    pending.add(10, memoryview(b"x" * 10), 1)
    for low, high in ((0, 10), (20, 30), (5, 6)):
        assert not pending.over(low, high)
    assert pending.over(19, 20)
