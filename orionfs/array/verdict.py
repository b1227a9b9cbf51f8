"""Verdict: what the superblocks of some members add up to.  Pure: nothing is read here, and nothing is written.

The rules are those of the kernel and mdadm, and stricter where theirs can lose data:

- Only superblocks say what belongs together; labels and their order say nothing.
- The superblocks with the highest event count are the *newest* accounts.  A member one event behind is current too, for
  a cut between two superblock writes leaves that.  Two behind, or not in its slot by any newest account, is stale.  A
  member that its own superblock calls recovering is not read.
- Two sides that each ran without the other (split brain) are refused: no event count says which of them is right.
- Two copies of one member are refused, whatever their event counts: the order of a list never decides.
- Dirty and degraded arrays with parity are refused, for reading too: where a stripe was being written, its parity
  reconstructs wrong bytes for the missing member, and those may have been flushed long before.  A journal or a PPL
  lifts that: it tells which stripes these are.

Which geometries and features can be opened at all is :mod:`orionfs.array.support`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from orionfs.array import superblock as md
from orionfs.array.levels import BY_MD_LEVEL
from orionfs.array.superblock import RESYNC_DONE, ROLE_FAULTY, ROLE_JOURNAL, ROLE_SPARE, Superblock
from orionfs.array.support import (
    Expectation,
    Labelled,
    check_expectation,
    check_features,
    check_geometry,
    tolerated,
)
from orionfs.errors import IntegrityError, NotFound, OrionError, Refused
from orionfs.units import SECTOR, format_size

__all__ = ["Candidate", "Expectation", "SetAside", "State", "Verdict", "judge"]

State = Literal["missing", "stale", "foreign", "recovering", "spare", "damaged", "unsupported"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One member as the configuration names it.

    Without a ``superblock``, ``state`` and ``problem`` say why there is none: ``missing`` (no device), ``foreign`` (not
    a member of an array), ``unsupported`` (a feature that this release does not know) or ``damaged``.
    """

    label: str
    size: int = 0
    superblock: Superblock | None = None
    problem: str = ""
    state: State = "missing"

    @classmethod
    def without(cls, label: str, size: int, error: OrionError) -> Candidate:
        """The candidate whose device or superblock could not be had because of *error*."""
        if isinstance(error, md.NoSuperblock | md.UnsupportedVersion):
            state: State = "foreign"
        elif isinstance(error, md.UnknownFeature):
            state = "unsupported"
        elif isinstance(error, NotFound):
            state = "missing"
        else:
            state = "damaged"
        return cls(label, size, None, error.message, state)


class SetAside(NamedTuple):
    """A candidate that is neither read nor written, and why."""

    candidate: Candidate
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An array that may be started.

    ``slots`` has one entry for each slot, None for an empty one.  ``filling`` are members that their own superblocks
    call recovering, in their slot or as the replacement of who is in it.  Both and ``spares`` are set aside too.

    Before the first write to a degraded array the empty slots must be recorded as such on all members, so that whoever
    held them is stale from then on.  ``resync_from`` is in sectors of the members' data area, :data:`RESYNC_DONE`
    unless ``dirty``.
    """

    freshest: Superblock
    slots: tuple[Candidate | None, ...]
    spares: tuple[Candidate, ...]
    filling: tuple[Candidate, ...]
    set_aside: tuple[SetAside, ...]
    dirty: bool
    resync_from: int
    notices: tuple[str, ...]

    @property
    def empty(self) -> tuple[int, ...]:
        """The slots that no member fills."""
        return tuple(slot for slot, candidate in enumerate(self.slots) if candidate is None)


class _Member(NamedTuple):
    """A candidate that has a superblock."""

    label: str
    superblock: Superblock
    candidate: Candidate


def judge(
    name: str,
    candidates: Sequence[Candidate],
    *,
    expect: Expectation | None = None,
    force: bool = False,
    read_only: bool = False,
    logged: bool = False,
    disowned: Collection[str] = (),
) -> Verdict:
    """Decide whether and how the array *name* may be started from *candidates*.

    *force* accepts a dirty and degraded array; *read_only* promises that nothing will be written; *logged* says that a
    journal or a PPL tells what was being written when a dirty array was left, and *disowned* are the labels of members
    that had failed by then, as a journal says.  Raises, always with the sentence for the user: NotFound (no member is
    there), IntegrityError (too much is damaged), Refused (members that do not belong together, are too few or too old,
    or a feature that forbids it), Unsupported (not in this release), ConfigError (the configuration contradicts the
    media).
    """
    aside = [SetAside(item, item.state, item.problem) for item in candidates if item.superblock is None]
    found = [_Member(item.label, item.superblock, item) for item in candidates if item.superblock is not None]
    if not found:
        raise _nothing(name, aside)
    _refuse_mixed(name, found)
    _refuse_copies(name, found)
    newest, current = _sort(found, aside, disowned)
    freshest = max(current or newest, key=lambda member: member.superblock.events).superblock
    _refuse_unfinished(name, found, freshest)
    _refuse_split_brain(name, current or newest, aside)
    _refuse_disagreement(name, current)
    labelled = [Labelled(member.label, member.superblock) for member in current or newest[:1]]
    check_geometry(name, labelled)
    check_expectation(name, freshest, expect or Expectation())
    check_features(name, labelled + _followers(aside))

    current, copies = _part_copies(current)
    aside += [SetAside(copy.candidate, "recovering", "it is a copy that is ready to take a slot") for copy in copies]
    slots = _fill(name, freshest, current)
    empty = [slot for slot, candidate in enumerate(slots) if candidate is None]
    level = BY_MD_LEVEL[freshest.level]
    if not level.survives(freshest.layout, freshest.raid_disks, empty):
        raise _too_few(name, freshest, slots, aside)
    resync_from = _resync_from(freshest, current)
    if resync_from != RESYNC_DONE and empty and level.has_parity and not force and not logged:
        raise _dirty_and_degraded(name, slots, aside)
    spares = tuple(item.candidate for item in aside if _is_spare(item))
    filling = tuple(item.candidate for item in aside if item.state == "recovering" and not read_only)
    taken = {id(candidate) for candidate in spares + filling}
    left = tuple(item for item in aside if id(item.candidate) not in taken)
    notices = _notices(freshest, current, slots, left, resync_from, logged)
    return Verdict(freshest, slots, spares, filling, tuple(aside), resync_from != RESYNC_DONE, resync_from, notices)


# --- who is who ------------------------------------------------------------------------------------------------------


def _sort(
    found: Sequence[_Member], aside: list[SetAside], disowned: Collection[str]
) -> tuple[list[_Member], list[_Member]]:
    """The newest of *found*, and those whose data are current; the others go to *aside*."""
    events = max(member.superblock.events for member in found)
    newest = [member for member in found if member.superblock.events == events]
    current: list[_Member] = []
    for member in found:
        reason = _reason_against(member.superblock, [item.superblock for item in newest])
        if reason is None and member.label in disowned:
            reason = "stale", "it had failed when the array was left, as the journal says"
        if reason is None:
            current.append(member)
        else:
            aside.append(SetAside(member.candidate, *reason))
    return newest, current


def _reason_against(superblock: Superblock, newest: Sequence[Superblock]) -> tuple[State, str] | None:
    """Why a member with *superblock* is set aside; None if its data are current."""
    role = superblock.role
    if role == ROLE_SPARE:
        return "spare", "it is a spare"
    if role == ROLE_JOURNAL:
        return "spare", "it is a write journal"
    if role == ROLE_FAULTY:
        return "stale", "its own superblock lists it as faulty"
    if newest[0].events - superblock.events > 1:
        return "stale", f"its event count is {superblock.events} and the newest is {newest[0].events}"
    if role >= superblock.raid_disks:
        return "damaged", f"it claims slot {role} of an array of {superblock.raid_disks}"
    for account in newest:
        listed = account.role_of(superblock.dev_number)
        if listed != role and account.role != ROLE_FAULTY:
            return "stale", f"a newest superblock lists it as {_role_text(listed)} and not in slot {role}"
    if superblock.is_recovering:
        done = superblock.recovery_offset * SECTOR
        return "recovering", f"it is rebuilt only up to {format_size(done)}"
    return None


def _is_spare(item: SetAside) -> bool:
    superblock = item.candidate.superblock
    return item.state == "spare" and superblock is not None and superblock.role == ROLE_SPARE


def _role_text(role: int) -> str:
    known = {ROLE_FAULTY: "faulty", ROLE_SPARE: "removed", ROLE_JOURNAL: "journal"}
    return known.get(role, f"slot {role}")


def _refuse_mixed(name: str, found: Sequence[_Member]) -> None:
    sets: dict[bytes, list[_Member]] = {}
    for member in found:
        sets.setdefault(member.superblock.set_uuid, []).append(member)
    if len(sets) == 1:
        return
    parts = [
        f"{_list(member.label for member in members)} to {_array_text(members[0].superblock)}"
        for members in sets.values()
    ]
    raise Refused(
        f"array {name}: its members belong to {len(sets)} different arrays ({'; '.join(parts)})",
        hint="correct the list of members",
    )


def _array_text(superblock: Superblock) -> str:
    uuid = md.format_uuid(superblock.set_uuid)
    return f"{superblock.set_name} ({uuid})" if superblock.set_name else uuid


def _refuse_copies(name: str, found: Sequence[_Member]) -> None:
    seen: dict[bytes, _Member] = {}
    for member in found:
        twin = seen.setdefault(member.superblock.device_uuid, member)
        if twin is not member:
            raise Refused(
                f"array {name}: {twin.label} and {member.label} are copies of one member"
                f" (device {md.format_uuid(member.superblock.device_uuid)}), and only one of them can be current",
                hint="leave the copy out of the list of members",
            )


def _refuse_unfinished(name: str, found: Sequence[_Member], freshest: Superblock) -> None:
    """Creation writes spares with event count 0 first, then the real roles with event count 1."""
    if freshest.events > 1:
        return
    left = [
        member.label
        for member in found
        if member.superblock.events == 0
        and member.superblock.role == ROLE_SPARE
        and (freshest.role == ROLE_SPARE or freshest.role_of(member.superblock.dev_number) < freshest.raid_disks)
    ]
    if left:
        raise Refused(
            f"array {name}: its creation was cut short before {_list(left)} got into place, so it holds no data",
            hint="create it again",
        )


def _refuse_split_brain(name: str, side: Sequence[_Member], aside: Sequence[SetAside]) -> None:
    """Refuse a stale member that went on without each member of the newer *side*, as they did without it.

    Whoever went on without a member has nobody in its slot.  A member that was replaced, or that knew at least one of
    the others, is simply older.
    """
    for item in aside:
        other = item.candidate.superblock
        if item.state != "stale" or other is None or other.role >= other.raid_disks:
            continue
        rest = [member for member in side if member.candidate is not item.candidate]
        if not any(not member.superblock.numbers_in(other.role) for member in rest):
            continue
        if all(not other.numbers_in(member.superblock.role) for member in rest):
            raise Refused(
                f"array {name}: {item.candidate.label} and {_list(member.label for member in rest)} each ran"
                " without the other, so nobody can tell which of them is right (split brain)",
                hint="leave one side out of the list of members, after looking at both read-only",
            )


def _part_copies(current: Sequence[_Member]) -> tuple[list[_Member], list[_Member]]:
    """The members that fill slots, and the complete copies of those that are still there."""
    held = {member.superblock.role for member in current if not member.superblock.feature_map & md.FEATURE_REPLACEMENT}
    copies = [
        member
        for member in current
        if member.superblock.feature_map & md.FEATURE_REPLACEMENT and member.superblock.role in held
    ]
    return [member for member in current if member not in copies], copies


def _fill(name: str, freshest: Superblock, current: Sequence[_Member]) -> tuple[Candidate | None, ...]:
    slots: list[Candidate | None] = [None] * freshest.raid_disks
    for member in current:
        role = member.superblock.role
        holder = slots[role]
        if holder is not None:
            raise Refused(
                f"array {name}: {holder.label} and {member.label} both claim slot {role}",
                hint="leave out the one that does not belong there",
            )
        slots[role] = member.candidate
    return tuple(slots)


def _followers(aside: Sequence[SetAside]) -> list[Labelled]:
    """Those set aside that still belong to the array as it is now, so that their features count."""
    return [
        Labelled(item.candidate.label, item.candidate.superblock)
        for item in aside
        if item.state in ("recovering", "spare") and item.candidate.superblock is not None
    ]


def _resync_from(freshest: Superblock, current: Sequence[_Member]) -> int:
    """From which sector on the redundancy is not known to be in order, by the most careful of the newest accounts."""
    if not tolerated(freshest):
        return RESYNC_DONE
    newest = [member.superblock for member in current if member.superblock.events == freshest.events]
    return min(superblock.resync_offset for superblock in [freshest, *newest])


# --- sentences -------------------------------------------------------------------------------------------------------


def _refuse_disagreement(name: str, current: Sequence[_Member]) -> None:
    for noun in ("level", "layout", "chunksize", "ctime", "size", "raid_disks"):
        views: dict[int, list[str]] = {}
        for member in current:
            views.setdefault(getattr(member.superblock, noun), []).append(member.label)
        if len(views) > 1:
            parts = ", ".join(f"{value} by {_list(labels)}" for value, labels in views.items())
            raise Refused(
                f"array {name}: its members have one identity but disagree on their {noun} ({parts})",
                hint="leave out the member whose superblock was altered",
            )


def _nothing(name: str, aside: Sequence[SetAside]) -> OrionError:
    """Why an array without a single superblock cannot start."""
    if not aside:
        return NotFound(f"array {name} has no members", hint="list them in the configuration")
    reasons = "; ".join(f"{item.candidate.label}: {item.reason}" for item in aside)
    return _kind_for(aside)(
        f"array {name} cannot start, for none of its members can be used ({reasons})", hint=_next(aside)
    )


def _too_few(
    name: str, freshest: Superblock, slots: Sequence[Candidate | None], aside: Sequence[SetAside]
) -> OrionError:
    needed = freshest.raid_disks - tolerated(freshest)
    present = freshest.raid_disks - slots.count(None)
    if freshest.level == 10:
        lack = f"has {present} of its {freshest.raid_disks} members, and not one with a copy of some of its data"
    else:
        lack = f"needs {needed} of its {freshest.raid_disks} members and has {present}"
    return _kind_for(aside)(
        f"array {name} ({md.LEVEL_NAMES[freshest.level]}) {lack}: {_whereabouts(slots, aside)}",
        hint=_next(aside),
    )


def _dirty_and_degraded(name: str, slots: Sequence[Candidate | None], aside: Sequence[SetAside]) -> OrionError:
    return Refused(
        f"array {name} is dirty and degraded: it was not closed properly and {_whereabouts(slots, aside)}, so the"
        " parity of what was being written last may reconstruct wrong data",
        hint="bring the missing member back, or insist with -o force and check the data afterwards",
    )


def _kind_for(aside: Sequence[SetAside]) -> type[OrionError]:
    """The error that says best what the caller can do about members that cannot be used."""
    states = {item.state for item in aside}
    if "damaged" in states:
        return IntegrityError
    return NotFound if states <= {"missing", "foreign"} else Refused


def _next(aside: Sequence[SetAside]) -> str:
    states = {item.state for item in aside}
    if "damaged" in states:
        return "put whole copies of these members back, or correct the list of members"
    if "unsupported" in states:
        return "use a newer release, or assemble the array with a kernel that knows these features"
    if "stale" in states and not states & {"missing", "foreign"}:
        return "only mdadm --assemble --force takes stale members, at the risk of mixing old data with new"
    return "bring the members back, or correct the list of members"


def _whereabouts(slots: Sequence[Candidate | None], aside: Sequence[SetAside]) -> str:
    """Which slots are empty, and what is known of those who might fill them."""
    text = _empty_text(slots)
    reasons = "; ".join(f"{item.candidate.label} is {item.state}: {item.reason}" for item in aside)
    return f"{text} ({reasons})" if reasons else f"{text} and no other member is listed"


def _empty_text(slots: Sequence[Candidate | None]) -> str:
    empty = [str(slot) for slot, candidate in enumerate(slots) if candidate is None]
    if len(empty) == 1:
        return f"slot {empty[0]} is empty"
    return f"slots {', '.join(empty)} are empty" if len(empty) <= 8 else f"{len(empty)} slots are empty"


def _notices(
    freshest: Superblock,
    current: Sequence[_Member],
    slots: Sequence[Candidate | None],
    aside: Sequence[SetAside],
    resync_from: int,
    logged: bool,
) -> tuple[str, ...]:
    """What a person should know of an array that starts nevertheless."""
    notices = [f"{item.candidate.label} is not used, it is {item.state}: {item.reason}" for item in aside]
    if None in slots:
        notices.append(f"degraded: {_empty_text(slots)}")
    for member in current:
        if member.superblock.events != freshest.events:
            notices.append(f"{member.label} is one event behind, as a cut between two superblock writes leaves it")
    if resync_from != RESYNC_DONE and logged:
        notices.append("it was not closed properly: its log tells what was being written, and is replayed")
    elif resync_from != RESYNC_DONE:
        if None in slots and BY_MD_LEVEL[freshest.level].has_parity:
            notices.append("dirty and degraded, started by force: data of the empty slot may be wrong, check them")
        else:
            notices.append("it was not closed properly: the redundancy has to be made to agree with the data again")
    return tuple(notices)


def _list(labels: Iterable[str]) -> str:
    *others, last = labels
    return f"{', '.join(others)} and {last}" if others else last
