"""Assembly: from devices with MD superblocks to a running :class:`~orionfs.array.array.Array`.

Writes nothing: what a log has to put in place, a bitmap to mend or a spare to take over is left to
:meth:`Array.run <orionfs.array.array.Array.run>` and the first write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orionfs.array.array import Array, EventSink
from orionfs.array.bad_blocks import BadBlocks
from orionfs.array.building import build_engine
from orionfs.array.engine import Engine
from orionfs.array.journal_replay import Present
from orionfs.array.levels import BY_MD_LEVEL
from orionfs.array.logs import Logs, examine_logs, gap_of
from orionfs.array.member import Member
from orionfs.array.policies import Consistency, Policies
from orionfs.array.roster import NO_SLOT, Roster
from orionfs.array.superblock_io import read_superblock
from orionfs.array.verdict import Candidate, Expectation, SetAside, State, Verdict, judge
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import OrionError
from orionfs.units import SECTOR

_BY_FORCE = "it was started by force, dirty and degraded: check the data of the lost member"


class Source(NamedTuple):
    """A member as the configuration names it: its device, or why there is none and what it counts as."""

    label: str
    device: StorageDevice | None
    problem: str = ""
    state: State = "missing"


async def assemble(
    name: str,
    sources: Sequence[Source],
    *,
    environment: Environment,
    events: EventSink,
    read_only: bool = False,
    force: bool = False,
    expect: Expectation | None = None,
    spares: Sequence[Source] = (),
    policies: Policies | None = None,
    consistency: Consistency = "journal",
) -> Array:
    """The array *name*, running, from whichever of *sources* (and *spares*) belong to it.

    Reads the superblocks and judges them (:func:`~orionfs.array.verdict.judge` says what is refused); writes nothing.
    The array then owns all devices of *sources* and *spares*, also those it does not use.  If this raises, the caller
    still does.  *consistency* is what protects stripes of a parity array from being half written, unless its
    superblocks say that it has a PPL.
    """
    all_sources = [*sources, *spares]
    candidates = [await examine(source) for source in all_sources]
    devices = {id(candidate): source.device for candidate, source in zip(candidates, all_sources, strict=True)}
    listed = candidates[: len(sources)] + [each for each in candidates[len(sources) :] if each.superblock is not None]
    logs = await examine_logs(_present(listed, devices), consistency=consistency, force=force)
    verdict = judge(
        name, listed, expect=expect, force=force, read_only=read_only, logged=logs.usable, disowned=logs.disowned
    )
    roster = _roster(verdict, devices)
    used = {id(member.device) for member in roster.everyone()}
    faults = _FaultsLater()
    engine = build_engine(verdict.freshest, roster.slots, faults)
    array = Array(
        name,
        BY_MD_LEVEL[verdict.freshest.level],
        verdict.freshest,
        engine,
        roster,
        environment=environment,
        events=events,
        read_only=read_only,
        resync_from=verdict.resync_from,
        policies=policies,
        unsettled=verdict.dirty or _differ(verdict),
        notices=[_BY_FORCE] if _forced(verdict, engine, logs) and force else [],
        idle_devices=[device for device in devices.values() if device and id(device) not in used],
    )
    faults.array = array
    engine.policies, engine.clock, engine.read_only = array.policies, environment.clock, read_only
    for member in roster.everyone():
        if member.device is not None:
            member.bad = await array.bad_blocks_of(member)
    await logs.attach(array, verdict, environment)
    for notice in (*verdict.notices, *logs.notices):
        events.emit("array.notice", name, notice, severity="warning")
    return array


def _present(listed: Sequence[Candidate], devices: Mapping[int, StorageDevice | None]) -> list[Present]:
    """Those of *listed* that are there, as a journal wants to know them."""
    return [
        Present(each.label, device, each.superblock, gap_of(each.superblock))
        for each in listed
        if each.superblock is not None and (device := devices[id(each)]) is not None
    ]


async def examine(source: Source) -> Candidate:
    """What *source* says of itself."""
    device = source.device
    if device is None:
        return Candidate(source.label, problem=source.problem, state=source.state)
    size = device.geometry.size
    try:
        superblock = await read_superblock(device)
        await BadBlocks.load(device, superblock)  # one that cannot be read says that no data can be trusted
        return Candidate(source.label, size, superblock)
    except OrionError as error:
        return Candidate.without(source.label, size, error)


class _FaultsLater:
    """Breaks the ring: an engine wants its array's ear before the array exists."""

    array: Array

    async def member_failed(self, member: Member, error: OrionError) -> None:
        await self.array.member_failed(member, error)

    async def read_corrected(self, member: Member) -> None:
        await self.array.read_corrected(member)

    def sync_wanted(self) -> None:
        self.array.sync_wanted()


def _differ(verdict: Verdict) -> bool:
    """Whether the superblocks of the members that count differ: a cut came between their updates."""
    accounts = [candidate.superblock for candidate in verdict.slots if candidate is not None]
    return len({(account.events, account.resync_offset) for account in accounts if account is not None}) > 1


def _forced(verdict: Verdict, engine: Engine, logs: Logs) -> bool:
    parity = BY_MD_LEVEL[verdict.freshest.level].has_parity
    return verdict.dirty and parity and not all(member.active for member in engine.members) and not logs.usable


def _roster(verdict: Verdict, devices: dict[int, StorageDevice | None]) -> Roster:
    """One member for each slot; an empty slot gets whoever was set aside and most likely was in it."""
    members: list[Member | None] = [
        Member(slot, candidate.label, devices[id(candidate)], candidate.superblock) if candidate else None
        for slot, candidate in enumerate(verdict.slots)
    ]
    copies: list[Member] = []
    for candidate in verdict.filling:
        superblock = candidate.superblock
        assert superblock is not None
        member = Member(superblock.role, candidate.label, devices[id(candidate)], superblock, "filling")
        in_slot = members[member.slot]
        done = (superblock.recovery_offset if superblock.is_recovering else superblock.data_size) * SECTOR
        if verdict.dirty and (in_slot is not None or not BY_MD_LEVEL[verdict.freshest.level].has_parity):
            done = 0  # where something was being written, it may differ from what the others are made to agree on
        if in_slot is None:
            member.fill(done)
            members[member.slot] = member
        elif in_slot.active and in_slot.copy is None:
            member.fill(done, "replacing")
            in_slot.copy = member
            copies.append(member)
    taken = {id(candidate) for candidate in (*verdict.spares, *verdict.filling)}
    aside = [item for item in verdict.set_aside if id(item.candidate) not in taken]
    for item in aside:
        slot = _slot_of(item)
        if slot is not None and slot < len(members) and members[slot] is None:
            members[slot] = _absent(slot, item, devices)
    known = {member.label for member in [*members, *copies] if member is not None}
    rest = [item for item in aside if item.state != "spare" and item.candidate.label not in known]
    slots = [member or _absent(slot, rest.pop(0) if rest else None, devices) for slot, member in enumerate(members)]
    spares = [
        Member(NO_SLOT, candidate.label, devices[id(candidate)], candidate.superblock, "spare")
        for candidate in verdict.spares
    ]
    return Roster(slots, spares)


def _slot_of(item: SetAside) -> int | None:
    return item.candidate.superblock.role if item.candidate.superblock is not None else None


def _absent(slot: int, item: SetAside | None, devices: dict[int, StorageDevice | None]) -> Member:
    if item is None:
        return Member(slot, f"slot {slot}", None, None, "missing", "no member is listed for it")
    return Member(slot, item.candidate.label, devices[id(item.candidate)], None, item.state, item.reason)
