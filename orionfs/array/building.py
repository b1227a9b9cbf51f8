"""Building: the engine that a superblock describes."""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.engine import Engine, Faults, MappedEngine
from orionfs.array.layout import LinearLayout, MirrorLayout, raid0_layout, raid4_layout, raid5_layout, raid6_layout
from orionfs.array.member import Member
from orionfs.array.mirror import MirrorEngine
from orionfs.array.parity import ParityEngine
from orionfs.array.raid10 import Raid10Engine
from orionfs.array.raid10_layout import Raid10Layout
from orionfs.array.superblock import Superblock
from orionfs.units import SECTOR, round_down


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
        case 4:
            return ParityEngine(members, raid4_layout(chunk, len(members), component), faults)
        case 5:
            return ParityEngine(members, raid5_layout(chunk, len(members), component, superblock.layout), faults)
        case 6:
            return ParityEngine(members, raid6_layout(chunk, len(members), component, superblock.layout), faults)
        case 10:
            copies = Raid10Layout(chunk, len(members), component, superblock.layout)
            return Raid10Engine(members, copies, faults)
    raise AssertionError(f"level {superblock.level} got past the verdict")
