"""Member: one slot of an array, the device in it (if any), and its part of the superblocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orionfs.array.superblock import Superblock
from orionfs.device import Counters, Description, Geometry, StorageDevice
from orionfs.units import SECTOR

#: :attr:`Member.valid` of a member that is in sync throughout.
WHOLE = 1 << 63


class Overlay(Protocol):
    """What a member will hold, and its device does not hold yet.  Addresses are bytes of the data area."""

    def over(self, offset: int, end: int) -> Sequence[tuple[int, memoryview]]:
        """The parts of [offset, end) that differ from the device: where each begins, and its bytes.

        The views stay as they are, whatever is written later.
        """


class Unreadable(Protocol):
    """What a member holds no good data for.  Addresses are bytes of the data area."""

    changed: bool

    def __bool__(self) -> bool:
        """Whether there is any such range."""

    async def store(self, device: StorageDevice) -> None:
        """Make the list on *device* say what this says, durably."""

    def add(self, offset: int, end: int) -> None:
        """[offset, end) has no good data."""

    def touches(self, offset: int, end: int) -> bool:
        """Whether [offset, end) has any of them."""

    def forget(self, offset: int, end: int) -> None:
        """[offset, end) has been written: it is good again."""


class Member:
    """A slot, or the copy that is being made of one.

    ``valid`` decides what may be read and must be written: the bytes of the data area, from its start, that are in
    sync.  It is :data:`WHOLE` for an active member, 0 for one that is not there, and moves from one to the other while
    the member is rebuilt.  A request may be served from a member if it ends within ``valid``; it must be written to
    every member in whose ``valid`` it begins.
    """

    __slots__ = (
        "active",
        "bad",
        "checkpoint",
        "copy",
        "counters",
        "data_offset",
        "data_size",
        "device",
        "label",
        "pending",
        "slot",
        "state",
        "superblock",
        "valid",
        "why",
        "write_mostly",
    )

    def __init__(
        self,
        slot: int,
        label: str,
        device: StorageDevice | None,
        superblock: Superblock | None,
        state: str = "active",
        why: str = "",
    ) -> None:
        self.slot = slot
        self.label = label
        self.device = device
        self.superblock = superblock
        self.active = state == "active"
        self.valid = WHOLE if self.active else 0
        #: How much of ``valid`` is durable, and so may be recorded while the member is being filled.
        self.checkpoint = 0
        self.state = state
        self.why = why
        self.counters = Counters()
        self.data_offset = superblock.data_offset * SECTOR if superblock else 0
        self.data_size = superblock.data_size * SECTOR if superblock else 0
        self.write_mostly = bool(superblock and superblock.devflags & 1)
        #: The replacement that is being made of this member: every write goes to both.
        self.copy: Member | None = None
        #: What a journal holds for this member and has not put in place yet.
        self.pending: Overlay | None = None
        #: Its bad blocks.
        self.bad: Unreadable | None = None

    @property
    def present(self) -> StorageDevice:
        """The device of a member that has one."""
        assert self.device is not None, f"slot {self.slot} is empty"
        return self.device

    def plain(self, offset: int, end: int) -> bool:
        """Whether the device has the right bytes for [offset, end) itself, and may be asked for them."""
        if end > self.valid:
            return False
        if self.pending is not None and self.pending.over(offset, end):
            return False
        return not self.bad or not self.bad.touches(offset, end)

    def lose(self, why: str) -> None:
        """From now on the member is neither read nor written."""
        self.active = False
        self.valid = 0
        self.state = "failed"
        self.why = why

    def fill(self, valid: int, state: str = "rebuilding") -> None:
        """The member is being filled, and in sync, durably, up to *valid* (bytes of the data area).

        *state* is ``rebuilding`` in a slot, ``replacing`` for the copy of another member.
        """
        self.active = False
        self.valid = self.checkpoint = valid
        self.state = state
        self.why = ""

    def admit(self) -> None:
        """The member is in sync throughout."""
        self.active = True
        self.valid = WHOLE
        self.state = "active"
        self.why = ""

    def describe(self) -> Description:
        """The slot for status: the device's own description is its child."""
        device = self.device.describe() if self.device is not None else None
        counters = self.counters
        return Description(
            kind="member",
            name=self.label,
            state=self.state,
            geometry=device.geometry if device else Geometry(0),
            where=device.where if device else "",
            children=(device,) if device else (),
            counters={
                "read_errors": counters.read_errors,
                "write_errors": counters.write_errors,
                "checksum_errors": counters.checksum_errors,
            },
            details={"slot": self.slot, "why": self.why, "write_mostly": self.write_mostly},
        )
