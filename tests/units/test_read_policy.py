"""Read policies: who is chosen, with times that the test decides."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.raid10_layout import Place
from orionfs.array.read_policy import SAMPLE_EVERY, Adaptive, Nearest, Readable, RoundRobin, make_choice
from orionfs.array.transfer import Transfer

MIB = 1 << 20
MS = 1_000_000


class Clock:
    """Nanoseconds that pass only when a test says so."""

    def __init__(self):
        self.now = 0

    def elapsed_ns(self):
        return self.now


def mirror(members):
    return Readable.of([Place(slot, 0, 0) for slot in range(members)])


FAR = Readable.of([Place(2, 0, 0), Place(0, 64 * MIB, 1)])


def read(choice, clock, readable, took, base=0, length=4096):
    """One read on its own that has to wait for as long as its member takes; the slot."""
    place = choice.choose(readable, base)
    began = choice.began(place.slot)
    clock.now += took[place.slot]
    low = base + place.delta
    choice.ended(Transfer(place.slot, low, low + length, []), began)
    return place.slot


def reads(choice, clock, readable, took, count, **options):
    return Counter(read(choice, clock, readable, took, **options) for _read in range(count))


# --- round robin -----------------------------------------------------------------------------------------------------


def test_round_robin_gives_each_its_turn():
    choice = RoundRobin()
    assert Counter(choice.choose(mirror(3), 0).slot for _read in range(300)) == {0: 100, 1: 100, 2: 100}
    assert [choice.choose(FAR, 0).slot for _read in range(4)] in ([2, 0, 2, 0], [0, 2, 0, 2])


# --- nearest ---------------------------------------------------------------------------------------------------------


def test_each_of_several_streams_gets_a_member_of_its_own():
    choice = Nearest(2)
    at = [0, 512 * MIB]
    slots = [[], []]
    for turn in range(20):
        stream = turn % 2
        place = choice.choose(mirror(2), at[stream])
        at[stream] += 65536
        choice.served(place.slot, at[stream])
        slots[stream].append(place.slot)
    assert len(set(slots[0][1:])) == len(set(slots[1][1:])) == 1
    assert slots[0][-1] != slots[1][-1]


def test_the_way_is_measured_where_the_copies_lie():
    choice = Nearest(3)
    choice.ended(Transfer(2, 60 * MIB, 61 * MIB, []), 0)
    choice.ended(Transfer(0, 60 * MIB, 61 * MIB, []), 0)
    assert choice.choose(FAR, 0).slot == 0, "64 MiB is nearer to 61 than 0 is"
    assert choice.choose(FAR, 50 * MIB).slot == 2, "50 MiB is nearer to 61 than 114 is"


# --- adaptive --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_a_slow_member_soon_gets_almost_no_reads(slow):
    clock = Clock()
    choice = Adaptive(3, clock)
    took = [MS] * 3
    took[slow] = 50 * MS
    for base in range(3):
        reads(choice, clock, mirror(3), took, 4, base=base * MIB)
    assert reads(choice, clock, mirror(3), took, 100)[slow] <= 1
    began = clock.now
    sampled = reads(choice, clock, mirror(3), took, 100 * SAMPLE_EVERY)[slow]
    assert 5 <= sampled <= 50
    assert sampled * took[slow] <= (clock.now - began) / 10, "looking whether it still is slow costs little"


def test_a_member_that_is_fast_again_is_found_out():
    clock = Clock()
    choice = Adaptive(2, clock)
    took = [MS, 50 * MS]
    reads(choice, clock, mirror(2), took, 50, base=MIB)
    assert reads(choice, clock, mirror(2), took, 50, base=MIB)[1] <= 1
    took[1] = MS // 10
    reads(choice, clock, mirror(2), took, 60 * SAMPLE_EVERY, base=MIB)
    assert reads(choice, clock, mirror(2), took, 100, base=MIB)[1] >= 99, "now the other one is the slow one"


def test_equal_members_share_the_reads_by_region():
    for took in ([100] * 3, [5 * MS, 6 * MS, 7 * MS]):
        clock = Clock()
        choice = Adaptive(3, clock)
        for base in range(30):
            reads(choice, clock, mirror(3), took, 3, base=base * MIB)
        regions = [reads(choice, clock, mirror(3), took, 5, base=base * MIB) for base in range(3)]
        assert all(len(region) == 1 for region in regions)
        assert set().union(*regions) == {0, 1, 2}


def test_who_hangs_is_not_asked_again_and_again():
    clock = Clock()
    choice = Adaptive(2, clock)
    reads(choice, clock, mirror(2), [MS, MS], 20)
    hanging = 0
    for _read in range(200):
        place = choice.choose(mirror(2), 0)
        began = choice.began(place.slot)
        if place.slot == 0:
            hanging += 1  # and never ends
            continue
        clock.now += MS
        choice.ended(Transfer(1, 0, 4096, []), began)
    assert hanging <= 4


def test_waiting_reads_go_where_fewer_wait():
    clock = Clock()
    choice = Adaptive(2, clock)
    asked = Counter()
    for _read in range(12):
        place = choice.choose(mirror(2), 0)
        choice.began(place.slot)
        asked[place.slot] += 1
    assert min(asked.values()) >= 4


def test_a_member_that_answers_at_once_is_forgiven_one_slow_read():
    clock = Clock()
    choice = Adaptive(2, clock)
    assert reads(choice, clock, mirror(2), [5 * MS, MS], 1) == {0: 1}
    assert choice.curious
    for _read in range(40):
        choice.served(0, 4096)
        choice.served(1, 4096)
    assert not choice.curious
    assert choice.choose(mirror(2), 0).slot == 0


def test_far_copies_are_read_from_the_first_zone_unless_that_is_slow():
    clock = Clock()
    choice = Adaptive(3, clock)
    assert {choice.choose(FAR, base * MIB).slot for base in range(4)} == {2}
    reads(choice, clock, FAR, [MS] * 3, 20)
    for base in range(4):
        assert reads(choice, clock, FAR, [MS] * 3, 5, base=base * MIB) == {2: 5}
    assert reads(choice, clock, FAR, [MS, MS, 40 * MS], 100)[2] <= 2


def test_long_reads_do_not_make_a_member_look_slow():
    clock = Clock()
    choice = Adaptive(2, clock)
    for _round in range(50):
        began = choice.began(0)
        clock.now += 8 * MS
        choice.ended(Transfer(0, 0, MIB, []), began)
        began = choice.began(1)
        clock.now += MS
        choice.ended(Transfer(1, 0, 4096, []), began)
    assert choice.choose(mirror(2), 0).slot == 0


@given(
    policy=st.sampled_from(["adaptive", "round-robin", "nearest"]),
    members=st.integers(2, 5),
    events=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**9), st.integers(0, 2**40)), max_size=60),
)
def test_whatever_happens_it_is_one_of_those_that_may_serve(policy, members, events):
    clock = Clock()
    choice = make_choice(policy, members, clock)
    running = []
    for kind, took, base in events:
        places = [Place(slot, slot * 4096, slot % 2) for slot in range(members) if (base >> slot) % 2] or [
            Place(0, 0, 0)
        ]
        readable = Readable.of(sorted(places, key=lambda place: place.zone))
        place = choice.choose(readable, base)
        assert place in readable.places
        if kind == 0:
            choice.served(place.slot, base)
        elif kind < 3:
            running.append((place.slot, choice.began(place.slot)))
        clock.now += took
        if kind == 4 and running:
            slot, began = running.pop()
            choice.ended(Transfer(slot, base, base + 512, []), began)
