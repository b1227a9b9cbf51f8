"""Roster: every member that an array holds: those in its slots, their copies, the spares, and who is out of service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orionfs.array.member import Member
from orionfs.array.superblock import ROLE_SPARE
from orionfs.errors import NotFound, UsageError
from orionfs.units import SECTOR

#: The ``slot`` of a member that has none.
NO_SLOT = -1


class Roster:
    """Who is who.  ``slots`` is the list that the engine works with, one member for each slot."""

    def __init__(self, slots: list[Member], spares: Sequence[Member] = ()) -> None:
        self.slots = slots
        self.spares = list(spares)
        #: Members whose slot somebody else has taken; their devices are still open.
        self.retired: list[Member] = []

    def copies(self) -> Iterator[Member]:
        """The replacements that are being made."""
        for member in self.slots:
            if member.copy is not None:
                yield member.copy

    def attached(self) -> list[Member]:
        """Everyone whose superblock is kept up to date: in sync, being filled, or spare."""
        filled = [member for member in self.slots if member.active or member.state == "rebuilding"]
        return [*filled, *self.copies(), *self.spares]

    def everyone(self) -> list[Member]:
        """All members, those in slots first."""
        return [*self.slots, *self.copies(), *self.spares, *self.retired]

    def gone(self) -> list[int]:
        """The slots without a member that is in sync throughout."""
        return [member.slot for member in self.slots if not member.active]

    def filling(self) -> Member | None:
        """The member that is being rebuilt, or the copy that is being made; None if there is none."""
        for member in self.slots:
            if member.state == "rebuilding":
                return member
        return next(self.copies(), None)

    def find(self, name: str) -> Member:
        """The member called *name*: its label, the last part of it, or its slot.

        Raises :class:`NotFound`, and :class:`UsageError` if several are called that.
        """
        members = self.everyone()
        for found in (
            [member for member in members if member.label == name],
            [member for member in members if member.label.rsplit("/", 1)[-1] == name],
            [member for member in self.slots if str(member.slot) == name],
        ):
            if len(found) > 1:
                labels = ", ".join(member.label for member in found)
                raise UsageError(f"{name} may be any of {labels}", hint="name the member in full")
            if found:
                return found[0]
        raise NotFound(f"there is no member {name}", hint=f"there is: {', '.join(member.label for member in members)}")

    def take_spare(self, wanted: Member | None, data_size: int) -> Member | None:
        """Take a spare out of the list: *wanted* itself, or else the smallest that has *data_size* bytes for data."""
        if wanted is None:
            fit = [spare for spare in self.spares if spare.data_size >= data_size]
            wanted = min(fit, key=lambda spare: spare.data_size, default=None)
        if wanted is not None:
            self.spares.remove(wanted)
        return wanted

    def seat(self, slot: int, member: Member) -> None:
        """Put *member* into *slot*; who was there is retired if it has a device."""
        before = self.slots[slot]
        if before.device is not None and before.device is not member.device:
            self.retired.append(before)
        member.slot = slot
        member.pending = before.pending
        self.slots[slot] = member

    def remove(self, member: Member) -> None:
        """Forget *member*, which is not in sync: its slot, if it has one, is empty now."""
        if member in self.spares:
            self.spares.remove(member)
        elif member in self.retired:
            self.retired.remove(member)
        else:
            empty = Member(member.slot, f"slot {member.slot}", None, None, "missing", f"{member.label} was removed")
            empty.pending = member.pending
            self.slots[member.slot] = empty


def recovery_sector(member: Member) -> int:
    """What the superblock of a member that is being filled says of how far that has got."""
    return member.checkpoint // SECTOR


def role_of(member: Member) -> int:
    """The role of an attached member in the superblocks."""
    return ROLE_SPARE if member.slot == NO_SLOT else member.slot
