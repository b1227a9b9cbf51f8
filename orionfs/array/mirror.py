"""RAID 1: every member holds everything, at the same place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orionfs.array.copies import UNIT
from orionfs.array.copies_upkeep import CopiesUpkeep
from orionfs.array.engine import Faults
from orionfs.array.layout import Layout
from orionfs.array.member import Member
from orionfs.array.raid10_layout import Held, Place
from orionfs.array.transfer import Transfer
from orionfs.buffers import Buffer
from orionfs.errors import OrionError


class MirrorEngine(CopiesUpkeep):
    """One kind of chunk, with a copy in every slot.  Sync addresses are both member and array addresses."""

    def __init__(self, members: Sequence[Member], layout: Layout, faults: Faults) -> None:
        places = tuple(Place(slot, 0, 0) for slot in range(len(members)))
        super().__init__(members, layout, faults, [places], UNIT)
        self.rebuild_end = layout.size

    def try_read(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        # What the base class does, in the case that decides how fast a mirror is: all is well, and the policy is known.
        readable = self._readable[0]
        choice = self._choice
        if (
            len(readable.places) < 2
            or self._changing
            or self.sync.needed
            or choice.curious
            or self.policies.read_policy is not self._policy
        ):
            return super().try_read(offset, buffers)
        place = choice.choose(readable, offset)
        member = self.members[place.slot]
        try:
            return not member.bad and member.present.try_read(member.data_offset + offset, buffers)
        except OrionError:
            self._stumbled = offset, place
            return False

    def member_changed(self) -> None:
        super().member_changed()
        self._slots = [place.slot for place in self._targets[0]]

    def _plan_write(self, offset: int, views: list[memoryview], length: int) -> list[Transfer]:
        self._check_written(0)
        end = offset + length
        return [Transfer(slot, offset, end, views) for slot in self._slots]

    def _find(self, offset: int) -> tuple[int, int, int]:
        return 0, offset, self.layout.size - offset

    def _held(self, slot: int, low: int, high: int) -> Iterator[Held]:
        while low < high:
            cut = min((low // UNIT + 1) * UNIT, high)
            yield Held(low, low, cut - low)
            low = cut

    def allocated(self) -> int:
        return max((member.present.allocated() for member in self.members if member.active), default=0)
