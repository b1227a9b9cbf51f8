"""JournalRing: records lie side by side, none across the end, and space comes back in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.journal_ring import JournalRing

SIZE = 64
actions = st.lists(st.tuples(st.sampled_from(("take", "take", "retire")), st.integers(1, 20), st.integers(0, 9)))


@given(actions)
def test_live_records_never_overlap(actions):
    ring = JournalRing(SIZE)
    live = []
    for kind, length, row in actions:
        if kind == "take":
            record = ring.take(length, (row,))
            if record is None:
                assert live
                continue
            end = record.offset + length
            assert 0 <= record.offset < end <= SIZE
            assert all(end <= other.offset or other.offset + other.length <= record.offset for other in live)
            before = live[-1] if live else None
            assert record.offset == 0 or (before is not None and record.offset == before.offset + before.length)
            assert before is None or record.sequence == before.sequence + 1
            live.append(record)
        elif live:
            limit = live[min(length, len(live)) - 1].sequence + 1
            ring.retire(limit)
            live = [record for record in live if record.sequence >= limit]
        assert ring.used == sum(record.length for record in live)
        assert len(ring) == len(live)
        assert ring.tail == (live[0].sequence if live else ring.next)
        for number in range(10):
            assert ring.touches(number, number + 1) == any(number in record.rows for record in live)
        assert ring.touches(2, 7) == any(2 <= row < 7 for record in live for row in record.rows)
        assert ring.touches(0, 1000) == bool(live)
        for record in live:
            assert ring.place_of(record.sequence) == record.offset


def test_an_empty_ring_takes_whatever_fits():
    ring = JournalRing(SIZE)
    for _ in range(5):
        assert ring.take(30, (1,)) is not None
        ring.retire(ring.next)
        record = ring.take(SIZE, (1,))
        assert record is not None
        assert record.offset == 0
        assert ring.take(1, (1,)) is None
        ring.retire(ring.next)
    assert ring.take(SIZE + 1, (1,)) is None


def test_a_full_ring_does_not_look_like_an_empty_one():
    ring = JournalRing(SIZE)
    first, second = ring.take(32, (1,)), ring.take(32, (2,))
    assert first is not None
    assert second is not None
    ring.retire(second.sequence)
    assert ring.take(32, (3,)) is None
    third = ring.take(31, (3,))
    assert third is not None
    assert third.offset == 0
