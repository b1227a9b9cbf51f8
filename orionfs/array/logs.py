"""Logs: what an array has beside its superblocks to survive an unclean stop: bitmap, journal, PPL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orionfs.array.bitmap import BitmapError
from orionfs.array.journal import Journal, Site
from orionfs.array.journal_replay import JournalVerdict, Present, current_members, examine
from orionfs.array.levels import BY_MD_LEVEL
from orionfs.array.member import Member
from orionfs.array.parity import ParityEngine
from orionfs.array.placement import free_gap
from orionfs.array.policies import Consistency
from orionfs.array.ppl import PartialParityLog
from orionfs.array.ppl_area import read_record
from orionfs.array.ppl_format import UNPROVEN, signature_of
from orionfs.array.superblock import FEATURE_BITMAP, FEATURE_MULTIPLE_PPLS, FEATURE_PPL, Superblock
from orionfs.array.verdict import Verdict
from orionfs.array.write_intent import WriteIntent, find_bitmap
from orionfs.environment import Environment
from orionfs.errors import IntegrityError, OrionError
from orionfs.units import SECTOR

if TYPE_CHECKING:
    from orionfs.array.array import Array

_PPL = FEATURE_PPL | FEATURE_MULTIPLE_PPLS


@dataclass(slots=True)
class Logs:
    """What was found.

    ``usable``: it tells what was being written when the array was left, so that everything else may be believed.
    ``disowned`` are the labels of members that had failed by then, whatever their superblocks say.
    """

    consistency: Consistency
    force: bool = False
    journal: JournalVerdict = field(default_factory=lambda: JournalVerdict(False))
    usable: bool = False
    disowned: tuple[str, ...] = ()
    notices: list[str] = field(default_factory=list)

    async def attach(self, array: Array, verdict: Verdict, environment: Environment) -> None:
        """Give *array* what it needs to go on; nothing is written.

        Raises :class:`~orionfs.array.bitmap.BitmapError` for a bitmap that could not be kept up to date, and
        :class:`~orionfs.errors.Refused` if there is no room for a journal.
        """
        if verdict.freshest.feature_map & FEATURE_BITMAP:
            await self._attach_bitmap(array, verdict)
        if verdict.freshest.feature_map & _PPL:
            await self._attach_ppl(array, verdict)
        elif array.level.has_parity:
            self._attach_journal(array, verdict, environment)

    async def _attach_bitmap(self, array: Array, verdict: Verdict) -> None:
        current = [
            (member.label, member.superblock, member.device)
            for member in array.engine.members
            if member.active and member.superblock is not None and member.device is not None
        ]
        sync = array.engine.sync
        sync_size = verdict.freshest.size
        if verdict.freshest.level == 10:
            sync_size = array.engine.layout.size // SECTOR
        try:
            found = await find_bitmap(current, freshest=verdict.freshest, sync_size=sync_size)
        except BitmapError as error:
            if not array.read_only:
                raise
            self.notices.append(error.message)
            return
        self.notices += found.notices
        array.use_bitmap(WriteIntent(array.engine.members, found.bitmap, stale=found.stale))
        if verdict.dirty and not found.stale and sync.needed:
            begun = sync.position * sync.unit_size
            sync.position = sync.unit_count
            for low, high in found.bitmap.dirty_ranges():
                if high > begun:
                    sync.doubt(max(low, begun), high)

    def _attach_journal(self, array: Array, verdict: Verdict, environment: Environment) -> None:
        found = self.journal
        if self.consistency != "journal" and not found.usable:
            return
        sync = array.engine.sync
        site = Site(
            array.uuid, array.freshest.chunksize * SECTOR, array.level.tolerates(len(array.engine.members)), _gap
        )
        journal = Journal(
            array.engine.members,
            site,
            faults=array,
            policies=array.policies,
            environment=environment,
            proven=lambda: not sync.suspects and (sync.believed or not sync.needed),
            report=lambda message: array.emit("journal.waiting", message, severity="warning"),
            read_only=array.read_only,
        )
        if not array.read_only:
            journal.check()
        journal.load(found)
        sync.believed = sync.believed or found.proven
        # Whoever is missing is on record before the first byte is put in place: he must not be believed later.
        array.use_log(journal, witnessed=True, late=verdict.dirty)

    async def _attach_ppl(self, array: Array, verdict: Verdict) -> None:
        """The one thing that assembly writes: parity that a cut left wrong, so that nobody reconstructs from it."""
        engine = array.engine
        assert isinstance(engine, ParityEngine), "the verdict lets only RAID 5 have a PPL"
        log = PartialParityLog(
            engine.members, engine.layout, array, set_uuid=array.uuid, sync=engine.sync, busy=engine.busy
        )
        self.notices += await log.load()
        if verdict.dirty and not array.read_only:
            replayed = await log.replay()
            engine.sync.believed = replayed.believed
            if replayed.proven:
                engine.sync.settle()
            elif engine.can_sync is False and (replayed.mismatches or replayed.failures) and not self.force:
                raise IntegrityError(
                    f"array {array.name}: {replayed.mismatches} parts of its partial parity log cannot be believed,"
                    " and a member is missing",
                    hint="bring the missing member back, or insist with -o force and check the data afterwards",
                )
            for member, error in replayed.failures:
                await array.member_failed(member, error)
            self.notices.append(f"its partial parity log was replayed: {replayed.entries} entries")
        array.use_log(log, witnessed=False, late=verdict.dirty)


async def examine_logs(members: Sequence[Present], *, consistency: Consistency, force: bool) -> Logs:
    """Read what there is, for the verdict and for :meth:`Logs.attach`.

    Raises :class:`IntegrityError` for a journal that would have to be replayed and cannot be, unless by *force*.
    """
    logs = Logs(consistency, force)
    if not members:
        return logs
    level = BY_MD_LEVEL.get(members[0].superblock.level)
    if level is None or not level.has_parity:
        return logs
    if members[0].superblock.feature_map & _PPL:
        logs.usable = await _ppl_is_usable(members)
        return logs
    found = await examine(members)
    if found.damaged and not force:
        raise IntegrityError(
            f"the journal should be replayed and cannot be: {found.reason}; what was flushed last may be lost",
            hint="bring all members back, or insist with -o force and check the data afterwards",
        )
    logs.journal = found
    logs.usable = found.proven
    logs.disowned = found.disowned if found.usable else ()
    if found.usable and found.records:
        logs.notices.append(f"its journal is replayed: {len(found.records)} writes had not reached their stripes yet")
    elif found.discarded:
        logs.notices.append(f"its journal was discarded: {found.reason}")
    return logs


async def _ppl_is_usable(members: Sequence[Present]) -> bool:
    """Whether the partial parity logs of all current members tell what was being written."""
    current = current_members([present.superblock for present in members])
    for present in members:
        superblock = present.superblock
        if superblock not in current or (superblock.is_recovering and not superblock.recovery_offset):
            continue  # no parity on it counts yet
        try:
            record, _area = await read_record(present.device, superblock, signature_of(superblock.set_uuid))
        except OrionError:
            return False
        if record is None or UNPROVEN in record.entries:
            return False
    return True


def gap_of(superblock: Superblock) -> tuple[int, int] | None:
    """The place before the data of a member that MD leaves alone: offset and length in bytes."""
    try:
        offset, length = free_gap(superblock)
    except OrionError:
        return None
    return offset * SECTOR, length * SECTOR


def _gap(member: Member) -> tuple[int, int] | None:
    return gap_of(member.superblock) if member.superblock is not None else None
