"""Member: one slot of an array, the device in it (if any), and its part of the superblocks."""

from __future__ import annotations

from orionfs.array.superblock import Superblock
from orionfs.device import Counters, Description, Geometry, StorageDevice


class Member:
    """A slot.  ``active`` says whether its data may be read and must be written; nothing else decides that."""

    __slots__ = (
        "active",
        "counters",
        "data_offset",
        "data_size",
        "device",
        "label",
        "slot",
        "state",
        "superblock",
        "why",
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
        self.state = state
        self.why = why
        self.counters = Counters()
        self.data_offset = superblock.data_offset * 512 if superblock else 0
        self.data_size = superblock.data_size * 512 if superblock else 0

    @property
    def present(self) -> StorageDevice:
        """The device of a member that has one."""
        assert self.device is not None, f"slot {self.slot} is empty"
        return self.device

    def lose(self, why: str) -> None:
        """From now on the member is neither read nor written."""
        self.active = False
        self.state = "failed"
        self.why = why

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
            details={"slot": self.slot, "why": self.why},
        )
