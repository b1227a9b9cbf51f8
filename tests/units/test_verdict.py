"""Verdict: every rule of assembly, on superblocks made up for it."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array import superblock as md
from orionfs.array.superblock import (
    RESYNC_DONE,
    ROLE_FAULTY,
    ROLE_JOURNAL,
    ROLE_SPARE,
    NoSuperblock,
    Superblock,
    UnknownFeature,
    roles_for,
)
from orionfs.array.support import NEVER
from orionfs.array.verdict import Candidate, Expectation, judge
from orionfs.errors import (
    AccessRefused,
    ConfigError,
    IntegrityError,
    NotFound,
    OrionError,
    Refused,
    Unsupported,
)

LINEAR, RAID0, RAID1, RAID5 = -1, 0, 1, 5
CTIME = 1_700_000_000


def superblock(number, *, level=RAID5, count=4, array=b"A", roles=None, **changes):
    """That of member *number* of a clean array at event 10, with *changes*."""
    fields = {
        "set_uuid": array * 16,
        "device_uuid": array * 8 + bytes([number]) * 8,
        "set_name": f"host:{array.decode()}",
        "level": level,
        "layout": {RAID5: 2, RAID0: 1}.get(level, 0),
        "chunksize": 128 if level in (RAID0, RAID5) else 0,
        "size": 2048 if level in (RAID1, RAID5) else 0,
        "raid_disks": count,
        "dev_number": number,
        "dev_roles": roles_for(count),
        "data_offset": 2048,
        "data_size": 2048,
        "feature_map": md.FEATURE_RAID0_LAYOUT if level == RAID0 else 0,
        "ctime": CTIME,
        "events": 10,
    }
    made = Superblock(**fields | changes)
    for index, role in (roles or {}).items():
        made.dev_roles[index] = role
    return made


def member(number, **changes):
    label = changes.pop("label", f"d{number}")
    return Candidate(label, 1 << 21, superblock(number, **changes))


def members(count=4, **changes):
    return [member(number, count=count, **changes) for number in range(count)]


def slots(verdict):
    return [candidate.label if candidate else None for candidate in verdict.slots]


def aside(verdict):
    return {item.candidate.label: item.state for item in verdict.set_aside}


# --- the table: every subset of four members x level x clean or dirty x what the user asked for -----------------------


def expected_outcome(level, present, dirty, force):
    """What MD does, stated a second time: None (starts) or the error."""
    needed = {LINEAR: 4, RAID0: 4, RAID1: 1, RAID5: 3}[level]
    if present == 0 or present < needed:
        return NotFound
    if level == RAID5 and present < 4 and dirty and not force:
        return Refused
    return None


@pytest.mark.parametrize("level", [LINEAR, RAID0, RAID1, RAID5])
@pytest.mark.parametrize("dirty", [False, True])
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("read_only", [False, True])
def test_every_subset_of_four_members(level, dirty, force, read_only):
    everyone = members(level=level, resync_offset=0 if dirty else RESYNC_DONE)
    for present in itertools.product([False, True], repeat=4):
        chosen = [
            candidate if there else Candidate(candidate.label, problem="no such file")
            for candidate, there in zip(everyone, present, strict=True)
        ]
        error = expected_outcome(level, sum(present), dirty, force)
        for order in (chosen, chosen[::-1]):
            if error is not None:
                with pytest.raises(error, match="vault"):
                    judge("vault", order, force=force, read_only=read_only)
                continue
            verdict = judge("vault", order, force=force, read_only=read_only)
            assert slots(verdict) == [f"d{slot}" if there else None for slot, there in enumerate(present)]
            assert verdict.empty == tuple(slot for slot, there in enumerate(present) if not there)
            assert verdict.dirty == (dirty and level in (RAID1, RAID5))
            assert verdict.resync_from == (0 if verdict.dirty else RESYNC_DONE)
            assert set(aside(verdict).values()) <= {"missing"}
            assert len(verdict.set_aside) == 4 - sum(present)
            assert bool(verdict.notices) == (verdict.dirty or not all(present))


@pytest.mark.parametrize(
    ("layout", "fatal"),
    [
        (0x102, [{0, 1}, {2, 3}]),
        (0x201, [{0, 1}, {1, 2}, {2, 3}, {3, 0}]),
        (0x10201, [{0, 1}, {1, 2}, {2, 3}, {3, 0}]),
        (0x103, [{0, 1, 2}, {1, 2, 3}, {2, 3, 0}, {3, 0, 1}]),
    ],
)
@pytest.mark.parametrize("dirty", [False, True])
def test_a_raid10_starts_while_every_chunk_has_a_copy(layout, fatal, dirty):
    everyone = members(level=10, layout=layout, chunksize=128, size=1920, resync_offset=0 if dirty else RESYNC_DONE)
    for gone in (set(some) for count in range(5) for some in itertools.combinations(range(4), count)):
        chosen = [candidate for number, candidate in enumerate(everyone) if number not in gone]
        if len(gone) == 4 or any(pair <= gone for pair in fatal):
            says = "vault has no members" if len(gone) == 4 else "raid10.* and not one with a copy of some of its data"
            with pytest.raises(NotFound, match=says):
                judge("vault", chosen)
        else:
            verdict = judge("vault", chosen)
            assert set(verdict.empty) == gone
            assert verdict.dirty == dirty


@pytest.mark.parametrize("level", [RAID1, RAID5])
@pytest.mark.parametrize("state", ["stale", "foreign", "damaged", "recovering", "spare"])
@pytest.mark.parametrize("which", range(4))
def test_one_member_that_cannot_be_used_leaves_a_degraded_array(level, state, which):
    chosen = members(level=level)
    chosen[which] = {
        "stale": member(which, level=level, events=8),
        "foreign": Candidate(f"d{which}", problem="holds no MD superblock", state="foreign"),
        "damaged": Candidate(f"d{which}", problem="the checksum is wrong", state="damaged"),
        "recovering": member(which, level=level, feature_map=md.FEATURE_RECOVERY_OFFSET, recovery_offset=1024),
        "spare": member(which, level=level, roles={which: ROLE_SPARE}),
    }[state]
    verdict = judge("vault", chosen)
    assert aside(verdict) == {f"d{which}": state}
    assert slots(verdict) == [None if slot == which else f"d{slot}" for slot in range(4)]
    told = any(f"d{which}" in notice and state in notice for notice in verdict.notices)
    assert told == (state not in ("recovering", "spare"))
    assert [item.label for item in verdict.filling] == ([f"d{which}"] if state == "recovering" else [])
    assert [item.label for item in verdict.spares] == ([f"d{which}"] if state == "spare" else [])
    if level == RAID5:
        with pytest.raises(OrionError, match=r"needs 3 of its 4 members and has 2") as caught:
            judge("vault", [chosen[which], *[other for other in chosen if other is not chosen[which]][:2]])
        assert f"d{which} is {state}" in str(caught.value)


@pytest.mark.parametrize("level", [LINEAR, RAID0])
@pytest.mark.parametrize("state", ["stale", "recovering"])
def test_without_redundancy_nothing_may_be_set_aside(level, state):
    changes = {"events": 8} if state == "stale" else {"feature_map": 0x1002}
    chosen = [*members(level=level)[:3], member(3, level=level, **changes)]
    with pytest.raises(Refused, match=f"needs 4 of its 4 members and has 3: slot 3 is empty .d3 is {state}"):
        judge("vault", chosen)


# --- events ----------------------------------------------------------------------------------------------------------


def test_one_event_behind_is_current_and_is_told():
    verdict = judge("vault", [member(0, events=9), *members()[1:]])
    assert slots(verdict) == ["d0", "d1", "d2", "d3"]
    assert verdict.notices == ("d0 is one event behind, as a cut between two superblock writes leaves it",)
    assert verdict.freshest.dev_number == 1


@pytest.mark.parametrize("events", [9, 10])
@pytest.mark.parametrize("role", [ROLE_FAULTY, ROLE_SPARE, 2])
def test_whom_the_newest_account_disowns_is_stale_at_any_event_count(events, role):
    chosen = [member(0, events=events), *[member(number, roles={0: role}) for number in (1, 2, 3)]]
    for order in itertools.permutations(chosen):
        verdict = judge("vault", order)
        assert aside(verdict) == {"d0": "stale"}
        assert slots(verdict) == [None, "d1", "d2", "d3"]
        assert verdict.freshest.role_of(0) == role


def test_a_member_that_calls_itself_faulty_is_stale():
    assert aside(judge("vault", [*members()[:3], member(3, roles={3: ROLE_FAULTY})])) == {"d3": "stale"}


def test_far_behind_everyone_is_refused_with_the_counts():
    with pytest.raises(Refused, match=r"event count is 10 and the newest is 12.*mdadm --assemble --force"):
        judge("vault", [member(0, events=12), *members()[1:]])


def test_the_order_of_events_after_a_failure_and_a_return():
    """d1 failed at 10, the others went on to 12; it comes back with its old account, in which all is well."""
    gone = {1: ROLE_FAULTY}
    chosen = [member(number, events=12, roles=gone) for number in (0, 2, 3)] + [member(1)]
    verdict = judge("vault", chosen)
    assert slots(verdict) == ["d0", None, "d2", "d3"]
    assert aside(verdict) == {"d1": "stale"}


def test_a_spare_may_have_the_newest_account():
    spare = member(4, events=11)
    verdict = judge("vault", [*members(), spare])
    assert slots(verdict) == ["d0", "d1", "d2", "d3"]
    assert aside(verdict) == {"d4": "spare"}


def test_a_spare_is_never_stale():
    assert aside(judge("vault", [*members(), member(4, events=2)])) == {"d4": "spare"}


def test_slots_come_from_the_roles_and_not_from_numbers_or_labels():
    """As mdadm creates RAID 5: the numbers have a gap."""
    roles = {3: ROLE_SPARE, 4: 3}
    chosen = [member(number, roles=roles) for number in (4, 2, 0, 1)]
    assert slots(judge("vault", chosen)) == ["d0", "d1", "d2", "d4"]


def test_a_recovering_member_does_not_take_part_in_a_dirty_array():
    """As mdadm creates RAID 5, cut while the last slot is filled."""
    fresh = member(3, feature_map=md.FEATURE_RECOVERY_OFFSET, recovery_offset=64, resync_offset=0)
    chosen = [*members(resync_offset=0)[:3], fresh]
    with pytest.raises(Refused, match=r"dirty and degraded.*d3 is recovering: it is rebuilt only up to 32 KiB"):
        judge("vault", chosen)


# --- dirty -----------------------------------------------------------------------------------------------------------


def test_a_resync_goes_on_where_it_was_stopped():
    verdict = judge("vault", members(resync_offset=4096))
    assert verdict.dirty
    assert verdict.resync_from == 4096


def test_the_most_careful_of_equally_new_accounts_counts():
    verdict = judge("vault", [*members()[:3], member(3, resync_offset=0)])
    assert verdict.resync_from == 0


def test_an_older_account_does_not_make_a_clean_array_dirty():
    """A cut in the middle of marking clean: everything was flushed before the first member was marked."""
    verdict = judge("vault", [*members(events=11)[:2], *members(resync_offset=0)[2:]])
    assert not verdict.dirty


def test_a_cut_in_the_middle_of_marking_dirty_is_dirty():
    verdict = judge("vault", [*members(events=11, resync_offset=0)[:2], *members()[2:]])
    assert verdict.dirty
    assert slots(verdict) == ["d0", "d1", "d2", "d3"]


def test_force_on_a_dirty_and_degraded_array_leaves_a_warning():
    verdict = judge("vault", members(resync_offset=0)[:3], force=True)
    assert verdict.dirty
    assert any("by force" in notice for notice in verdict.notices)


def test_force_changes_nothing_else():
    for chosen in (members()[:2], [member(0), member(0)], [member(0), member(1, array=b"B")]):
        with pytest.raises(OrionError):
            judge("vault", chosen, force=True)


# --- identity --------------------------------------------------------------------------------------------------------


def test_two_arrays_mixed_are_refused_with_both_names():
    with pytest.raises(Refused) as caught:
        judge("vault", [*members()[:3], member(3, array=b"B")])
    text = str(caught.value)
    assert "d0, d1 and d2 to host:A (41414141:41414141:41414141:41414141)" in text
    assert "d3 to host:B (42424242:42424242:42424242:42424242)" in text


@pytest.mark.parametrize("events", [10, 9, 3])
def test_a_copied_member_is_refused_with_both_labels(events):
    with pytest.raises(Refused, match="d1 and copy are copies of one member"):
        judge("vault", [*members(), member(1, label="copy", events=events)])


def test_two_members_that_claim_one_slot_are_refused():
    with pytest.raises(Refused, match="d1 and d4 both claim slot 1"):
        judge("vault", [member(number, roles={4: 1}) for number in range(5)])


@pytest.mark.parametrize(
    ("noun", "value"),
    [("level", 1), ("layout", 3), ("chunksize", 256), ("ctime", CTIME + 1), ("size", 1920), ("raid_disks", 5)],
)
def test_members_that_disagree_are_refused_with_both_views(noun, value):
    with pytest.raises(
        Refused, match=rf"disagree on their {noun} \({superblock_value(noun)} by d0, d1 and d2, {value}"
    ):
        judge("vault", [*members()[:3], member(3, **{noun: value})])


def superblock_value(noun):
    return getattr(superblock(0), noun)


def test_what_a_stale_member_says_of_the_geometry_does_not_matter():
    """It may be from before a reshape."""
    assert aside(judge("vault", [*members()[:3], member(3, events=2, chunksize=64)])) == {"d3": "stale"}


# --- split brain -----------------------------------------------------------------------------------------------------


def mirror(number, events=10, gone=(), role=ROLE_FAULTY, **changes):
    changes["roles"] = dict.fromkeys(gone, role) | changes.get("roles", {})
    return member(number, level=RAID1, count=2, events=events, **changes)


@pytest.mark.parametrize("role", [ROLE_FAULTY, ROLE_SPARE])
@pytest.mark.parametrize("events", [(12, 12), (12, 11), (40, 12)])
def test_two_sides_that_ran_without_each_other_are_refused_whatever_the_counts(role, events):
    one, other = mirror(0, events[0], [1], role), mirror(1, events[1], [0], role)
    for chosen in ([one, other], [other, one]):
        for force in (False, True):
            with pytest.raises(Refused, match="split brain"):
                judge("vault", chosen, force=force)


def test_one_side_that_went_on_alone_is_no_split_brain():
    verdict = judge("vault", [mirror(0, 12, [1]), mirror(1, 10)])
    assert slots(verdict) == ["d0", None]
    assert aside(verdict) == {"d1": "stale"}


def test_a_replaced_member_that_returns_is_stale_and_no_split_brain():
    """d1 was replaced by d2; in d1's account nobody but itself had slot 1."""
    replaced = {1: ROLE_FAULTY, 2: 1}
    chosen = [mirror(0, 20, roles=replaced), mirror(2, 20, roles=replaced), mirror(1, 10)]
    verdict = judge("vault", chosen)
    assert slots(verdict) == ["d0", "d2"]
    assert aside(verdict) == {"d1": "stale"}


def test_a_stale_member_that_knew_one_of_the_current_is_no_split_brain():
    """Of three mirrors d2 went first, then d1; d0 got d3 in slot 2.  d1 never ran without d0."""
    late = {1: ROLE_FAULTY, 2: ROLE_FAULTY, 3: 2}
    chosen = [member(number, level=RAID1, count=3, events=30, roles=late) for number in (0, 3)]
    chosen.append(member(1, level=RAID1, count=3, events=12, roles={2: ROLE_FAULTY}))
    verdict = judge("vault", chosen)
    assert slots(verdict) == ["d0", None, "d3"]
    assert aside(verdict) == {"d1": "stale"}


# --- an interrupted creation -----------------------------------------------------------------------------------------


def prepared(number, **changes):
    return member(number, events=0, dev_roles=[ROLE_SPARE] * 128, **changes)


@pytest.mark.parametrize("level", [LINEAR, RAID0, RAID1, RAID5])
@pytest.mark.parametrize("done", range(4))
def test_an_array_whose_creation_was_cut_short_does_not_start(level, done):
    chosen = [
        member(number, level=level, events=1) if number < done else prepared(number, level=level) for number in range(4)
    ]
    for order in (chosen, chosen[::-1]):
        with pytest.raises(Refused, match="creation was cut short"):
            judge("vault", order)


def test_a_spare_of_a_new_array_is_just_a_spare():
    """As mdadm creates with --assume-clean and a spare: every count is 0."""
    chosen = [*members(events=0), member(4, events=0)]
    assert aside(judge("vault", chosen)) == {"d4": "spare"}


# --- what this release can open --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", [bit for bit in md.FEATURE_NAMES if bit & NEVER])
@pytest.mark.parametrize("read_only", [False, True])
def test_features_that_forbid_opening_are_named(bit, read_only):
    chosen = [*members()[:3], member(3, feature_map=bit)]
    with pytest.raises(Refused, match="cannot open") as caught:
        judge("vault", chosen, force=True, read_only=read_only)
    assert "d3" in str(caught.value)
    assert md.FEATURE_NAMES[bit] in str(caught.value)
    assert f"({bit:#x})" in str(caught.value)


@pytest.mark.parametrize(("level", "more"), [(RAID1, 0), (RAID5, md.FEATURE_BITMAP)])
def test_a_partial_parity_log_where_none_can_be_is_refused(level, more):
    chosen = [*members(level=level)[:3], member(3, level=level, feature_map=md.FEATURE_PPL | more)]
    with pytest.raises(Refused, match="only RAID 5 without a bitmap"):
        judge("vault", chosen)


def test_the_features_of_a_stale_member_do_not_matter():
    assert aside(judge("vault", [*members()[:3], member(3, events=2, feature_map=md.FEATURE_BITMAP)])) == {
        "d3": "stale"
    }


def test_a_replacement_under_way_is_filled_further():
    flags = md.FEATURE_REPLACEMENT | md.FEATURE_RECOVERY_OFFSET
    chosen = [member(number, roles={4: 1}) for number in range(4)] + [member(4, roles={4: 1}, feature_map=flags)]
    for read_only in (False, True):
        verdict = judge("vault", chosen, read_only=read_only)
        assert slots(verdict) == ["d0", "d1", "d2", "d3"]
        assert aside(verdict) == {"d4": "recovering"}
        assert [item.label for item in verdict.filling] == ([] if read_only else ["d4"])


@pytest.mark.parametrize(("level", "noun"), [(-5, "faulty"), (-4, "multipath")])
def test_a_level_of_another_release_is_named(level, noun):
    with pytest.raises(Unsupported, match=f"vault is {noun}, which this release of OrionFS does not have"):
        judge("vault", members(level=level))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"chunksize": 24}, Unsupported, "chunk of 12 KiB"),
        ({"chunksize": 0}, Unsupported, "chunk of 0 B"),
        ({"chunksize": 4}, Unsupported, "chunk of 2 KiB"),
        ({"layout": 6}, Unsupported, "layout 6"),
        ({"layout": 16}, Unsupported, "layout 16"),
        (
            {"level": 6, "layout": 2, "chunksize": 128, "size": 2048, "raid_disks": 3},
            IntegrityError,
            "a raid6 of 3 members",
        ),
        ({"size": 64}, IntegrityError, "less than one chunk"),
        ({"level": 10, "chunksize": 128, "layout": 0x202}, Unsupported, "layout 514.* for raid10"),
        ({"level": 10, "chunksize": 128, "layout": 0x20201}, Unsupported, "layout 131585.* for raid10"),
        ({"level": 10, "chunksize": 128, "layout": 0x104, "raid_disks": 3}, IntegrityError, "a raid10 of 3 members"),
        (
            {"level": 10, "chunksize": 128, "layout": 0x201, "size": 128},
            IntegrityError,
            "less than the 2 chunks of its",
        ),
        ({"level": RAID0, "chunksize": 24}, Unsupported, "chunk of 12 KiB"),
        ({"level": RAID1, "size": 0, "chunksize": 0, "layout": 0}, IntegrityError, "less than one chunk"),
        ({"level": LINEAR, "data_size": 0, "chunksize": 0, "layout": 0}, IntegrityError, "less than one chunk"),
    ],
)
def test_a_geometry_that_cannot_be_is_named(changes, error, says):
    with pytest.raises(error, match=says):
        judge("vault", members(**changes))


@pytest.mark.parametrize("flag", [0, md.FEATURE_RAID0_LAYOUT])
@pytest.mark.parametrize("layout", [0, 1, 2])
@pytest.mark.parametrize(
    ("sizes", "ambiguous"),
    [((2048, 2048, 2048), False), ((2048, 2048, 4096), False), ((2048, 4096, 4096), True), ((2048, 4096, 8192), True)],
)
def test_raid0_of_unequal_members_needs_a_recorded_layout(flag, layout, sizes, ambiguous):
    chosen = [
        member(number, level=RAID0, count=3, data_size=size, layout=layout, feature_map=flag)
        for number, size in enumerate(sizes)
    ]
    if ambiguous and not (flag and layout):
        with pytest.raises(Refused, match="--update=layout-original"):
            judge("vault", chosen)
    else:
        assert len(judge("vault", chosen).slots) == 3


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (Expectation(level=RAID1), "level raid1 and the members say raid5"),
        (Expectation(level=6), "level raid6 and"),
        (Expectation(chunksize=1024), "chunk 512 KiB and the members say 64 KiB"),
        (Expectation(layout=4), "layout parity-first and the members say left-symmetric"),
    ],
)
def test_a_configuration_that_contradicts_the_media_touches_nothing(expect, says):
    with pytest.raises(ConfigError, match=f"{says}.*nothing was touched"):
        judge("vault", members(), expect=expect)
    assert judge("vault", members(), expect=Expectation(RAID5, 128, 2)).dirty is False


# --- too few ---------------------------------------------------------------------------------------------------------


def test_no_members_at_all():
    with pytest.raises(NotFound, match="no members"):
        judge("vault", [])


@pytest.mark.parametrize(
    ("states", "error", "code"),
    [
        (["missing", "missing"], NotFound, 3),
        (["missing", "foreign"], NotFound, 3),
        (["missing", "damaged"], IntegrityError, 4),
        (["missing", "unsupported"], Refused, 5),
        (["damaged", "unsupported"], IntegrityError, 4),
    ],
)
def test_the_error_says_what_can_be_done(states, error, code):
    candidates = [Candidate(f"x{index}", problem="why", state=state) for index, state in enumerate(states)]
    for chosen in (candidates, [*members()[:2], *candidates]):
        with pytest.raises(error, match=r"x1.*why") as caught:
            judge("vault", chosen)
        assert caught.value.exit_code == code


def test_a_long_list_of_empty_slots_is_counted():
    with pytest.raises(NotFound, match="1899 slots are empty") as caught:
        judge("vault", [member(0, level=RAID0, count=1900)])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (NotFound("no such file"), "missing"),
        (NoSuperblock("holds none"), "foreign"),
        (UnknownFeature("0x4000"), "unsupported"),
        (AccessRefused("no permission"), "damaged"),
    ],
)
def test_a_candidate_from_an_error(error, state):
    candidate = Candidate.without("d0", 512, error)
    assert (candidate.state, candidate.problem, candidate.superblock) == (state, error.message, None)


def test_a_journal_is_neither_read_nor_written():
    roles = {4: ROLE_JOURNAL}
    chosen = [member(number, roles=roles) for number in range(5)]
    assert aside(judge("vault", chosen)) == {"d4": "spare"}


# --- anything --------------------------------------------------------------------------------------------------------

FIELDS = {
    "level": st.sampled_from([-4, -1, 0, 1, 4, 5, 6]),
    "layout": st.integers(0, 8),
    "chunksize": st.sampled_from([0, 1, 8, 24, 128, 2**31]),
    "size": st.sampled_from([0, 64, 2048]),
    "raid_disks": st.sampled_from([1, 2, 4, 5, 1920]),
    "dev_number": st.integers(0, 6) | st.just(2**32 - 1),
    "events": st.sampled_from([0, 1, 8, 9, 10, 11, md.MAX_EVENTS]),
    "feature_map": st.sampled_from([0, 0x1000, *md.FEATURE_NAMES]),
    "resync_offset": st.sampled_from([0, 1, RESYNC_DONE]),
    "dev_roles": st.lists(st.sampled_from([0, 1, 2, 3, 4, 2000, 0xFFFD, ROLE_FAULTY, ROLE_SPARE]), max_size=6),
    "set_uuid": st.sampled_from([b"A" * 16, b"B" * 16]),
    "device_uuid": st.binary(min_size=16, max_size=16),
}


@given(
    changes=st.lists(st.fixed_dictionaries({}, optional=FIELDS), min_size=4, max_size=4),
    read_only=st.booleans(),
    force=st.booleans(),
)
def test_whatever_the_superblocks_say_there_is_a_verdict_or_one_sentence(changes, read_only, force):
    candidates = []
    for number, change in enumerate(changes):
        made = superblock(number, **change)
        candidates.append(Candidate(f"d{number}", 1 << 21, Superblock.parse(made.encode())))
    refusal = None
    try:
        verdict = judge("vault", candidates, read_only=read_only, force=force)
    except OrionError as error:
        refusal = error
    if refusal is not None:
        assert refusal.hint
        assert "\n" not in str(refusal)
        return
    used = [candidate for candidate in verdict.slots if candidate is not None]
    assert len(used) + len(verdict.set_aside) == 4
    for slot, candidate in enumerate(verdict.slots):
        if candidate is None:
            continue
        assert candidate.superblock.role == slot
        assert verdict.freshest.events - candidate.superblock.events in (0, 1)
        assert verdict.freshest.role_of(candidate.superblock.dev_number) == slot
        assert not candidate.superblock.is_recovering
        assert not candidate.superblock.feature_map & NEVER


def test_the_constants_are_those_of_the_format():
    assert struct.unpack("<3H", bytes.fromhex("fdfffeffffff")) == (ROLE_JOURNAL, ROLE_FAULTY, ROLE_SPARE)
