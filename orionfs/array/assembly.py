"""Assembly: from devices with MD superblocks to a running :class:`~orionfs.array.array.Array`.  Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orionfs.array.array import Array, EventSink
from orionfs.array.engine import Engine, Faults, MappedEngine
from orionfs.array.layout import LinearLayout, MirrorLayout, raid0_layout, raid5_layout
from orionfs.array.levels import BY_MD_LEVEL
from orionfs.array.member import Member
from orionfs.array.mirror import MirrorEngine
from orionfs.array.parity import ParityEngine
from orionfs.array.superblock import Superblock
from orionfs.array.superblock_io import read_superblock
from orionfs.array.verdict import Candidate, Expectation, SetAside, State, Verdict, judge
from orionfs.device import StorageDevice
from orionfs.environment import Environment
from orionfs.errors import OrionError
from orionfs.units import SECTOR, round_down

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
) -> Array:
    """The array *name*, running, from whichever of *sources* belong to it.

    Reads the superblocks and judges them (:func:`~orionfs.array.verdict.judge` says what is refused); writes nothing.
    The array then owns all devices of *sources*, also those it does not use.  If this raises, the caller still does.
    """
    candidates = [await examine(source) for source in sources]
    verdict = judge(name, candidates, expect=expect, force=force, read_only=read_only)
    devices = {id(candidate): source.device for candidate, source in zip(candidates, sources, strict=True)}
    members = _members(verdict, devices)
    faults = _FaultsLater()
    engine = build_engine(verdict.freshest, members, faults)
    array = Array(
        name,
        BY_MD_LEVEL[verdict.freshest.level],
        verdict.freshest,
        engine,
        clock=environment.clock,
        events=events,
        read_only=read_only,
        resync_from=verdict.resync_from,
        notices=[_BY_FORCE] if verdict.dirty and engine.redundant and not engine.can_sync and force else [],
        idle_devices=[
            device for device in devices.values() if device and all(device is not member.device for member in members)
        ],
    )
    faults.array = array
    for notice in verdict.notices:
        events.emit("array.notice", name, notice, severity="warning")
    return array


async def examine(source: Source) -> Candidate:
    """What *source* says of itself."""
    device = source.device
    if device is None:
        return Candidate(source.label, problem=source.problem, state=source.state)
    size = device.geometry.size
    try:
        return Candidate(source.label, size, await read_superblock(device))
    except OrionError as error:
        return Candidate.without(source.label, size, error)


def build_engine(superblock: Superblock, members: Sequence[Member], faults: Faults) -> Engine:
    """The data path that the (sound) *superblock* describes over *members*, one for each slot."""
    chunk = superblock.chunksize * SECTOR
    component = superblock.size * SECTOR
    match superblock.level:
        case -1:
            sizes = [round_down(member.data_size, chunk) if chunk else member.data_size for member in members]
            return MappedEngine(members, LinearLayout(sizes), faults)
        case 0:
            layout = raid0_layout(chunk, [member.data_size for member in members], superblock.layout)
            return MappedEngine(members, layout, faults)
        case 1:
            return MirrorEngine(members, MirrorLayout(component), faults)
        case 5:
            return ParityEngine(members, raid5_layout(chunk, len(members), component, superblock.layout), faults)
    raise AssertionError(f"level {superblock.level} got past the verdict")


class _FaultsLater:
    """Breaks the ring: an engine wants its array's ear before the array exists."""

    array: Array

    async def member_failed(self, member: Member, error: OrionError) -> None:
        await self.array.member_failed(member, error)

    def sync_wanted(self) -> None:
        self.array.sync_wanted()


def _members(verdict: Verdict, devices: dict[int, StorageDevice | None]) -> list[Member]:
    """One member for each slot; an empty slot gets whoever was set aside and most likely was in it."""
    members: list[Member | None] = [
        Member(slot, candidate.label, devices[id(candidate)], candidate.superblock) if candidate else None
        for slot, candidate in enumerate(verdict.slots)
    ]
    aside = [item for item in verdict.set_aside if item.state != "spare"]
    for item in aside:
        slot = _slot_of(item)
        if slot is not None and slot < len(members) and members[slot] is None:
            members[slot] = _absent(slot, item, devices)
    rest = [item for item in aside if not any(member and member.label == item.candidate.label for member in members)]
    return [member or _absent(slot, rest.pop(0) if rest else None, devices) for slot, member in enumerate(members)]


def _slot_of(item: SetAside) -> int | None:
    return item.candidate.superblock.role if item.candidate.superblock is not None else None


def _absent(slot: int, item: SetAside | None, devices: dict[int, StorageDevice | None]) -> Member:
    if item is None:
        return Member(slot, f"slot {slot}", None, None, "missing", "no member is listed for it")
    return Member(slot, item.candidate.label, devices[id(item.candidate)], None, item.state, item.reason)
