"""InlineRule: writes run inline while the 99th percentile of the recent ones is under a millisecond."""

import math

from hypothesis import given
from hypothesis import strategies as st

from orionfs.backends.inline import RECENT, SLOW_NS, STALL_NS, InlineRule

SWIFT = 1000


def percentile(values, percent):
    """By nearest rank."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def test_it_begins_inline_and_one_slow_write_is_chance():
    rule = InlineRule()
    rule.record(SLOW_NS)
    assert rule.inline


def test_two_recent_slow_writes_end_it_and_two_old_ones_do_not():
    rule = InlineRule()
    rule.record(SLOW_NS)
    for _ in range(RECENT - 1):
        rule.record(SWIFT)
    rule.record(SLOW_NS)
    assert rule.inline
    for _ in range(RECENT - 2):
        rule.record(SWIFT)
    rule.record(SLOW_NS)
    assert not rule.inline


def test_one_write_that_everybody_felt_ends_it():
    rule = InlineRule()
    rule.record(STALL_NS)
    assert not rule.inline


def test_it_takes_as_many_swift_writes_as_are_recent_to_come_back():
    rule = InlineRule()
    rule.record(STALL_NS)
    for _ in range(RECENT - 1):
        rule.record(SWIFT)
        assert not rule.inline
    rule.record(SWIFT)
    assert rule.inline


times = st.lists(
    st.one_of(st.integers(10, 200).map(lambda count: [SWIFT] * count), st.just([SLOW_NS]), st.just([SLOW_NS * 2])),
    max_size=30,
).map(lambda runs: [time for run in runs for time in run])


@given(times)
def test_it_agrees_with_the_percentile(plan):
    """Writes as if of no time at all stand for those from before the mode last changed, while it is inline."""
    rule = InlineRule()
    seen = [0] * RECENT
    inline = True
    for took in plan:
        rule.record(took)
        seen.append(took)
        swift = len(seen) >= RECENT and percentile(seen[-RECENT:], 99) < SLOW_NS
        if swift != inline and (took >= SLOW_NS or not inline):
            inline = swift
            seen = [0] * RECENT if inline else []
        assert rule.inline == inline
