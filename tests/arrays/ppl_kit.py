"""A RAID 5 engine with its partial parity log, without an array around it."""

from orionfs.array.layout import LEFT_SYMMETRIC, raid5_layout
from orionfs.array.member import Member
from orionfs.array.parity import ParityEngine
from orionfs.array.ppl import PartialParityLog
from orionfs.array.ppl_format import last_record, signature_of
from orionfs.array.superblock import FEATURE_PPL, Superblock
from orionfs.errors import MediaError
from orionfs.testing.faulty import FaultyDevice
from orionfs.testing.ram import RamDevice

KIB, MIB = 1 << 10, 1 << 20
UUID = bytes(range(16))
SIGNATURE = signature_of(UUID)
PLACE = 8192
DATA = MIB


def superblock(size, area):
    return Superblock(
        UUID,
        bytes(16),
        5,
        3,
        0,
        [0, 1, 2],
        data_offset=DATA // 512,
        data_size=size // 512,
        size=size // 512,
        feature_map=FEATURE_PPL,
        bitmap_offset=8 | area // 512 << 16,
    )


class Losses:
    """The array's part: whoever fails is lost, unless that is one too many."""

    def __init__(self):
        self.lost = []
        self.wanted = 0
        self.stack = None

    async def member_failed(self, member, error):
        if member.valid and not self.lost:
            member.lose(error.message)
            self.lost.append(member.label)
            self.stack.engine.member_changed()
            await self.stack.log.member_changed()
        elif member.valid:
            raise MediaError(f"nothing can stand in for {member.label}")

    async def read_corrected(self, member):
        pass

    def sync_wanted(self):
        self.wanted += 1


class Stack:
    """A RAID 5 engine with its log, without an array around it."""

    def __init__(self, devices, size, *, chunk=4 * KIB, area=64 * KIB, missing=(), kind=PartialParityLog):
        self.members = []
        for slot, device in enumerate(devices):
            block = superblock(size, area)
            if slot in missing:
                self.members.append(Member(slot, f"d{slot}", None, None, "missing", "not there"))
            else:
                self.members.append(Member(slot, f"d{slot}", device, block))
        self.faults = Losses()
        self.faults.stack = self
        self.layout = raid5_layout(chunk, len(devices), size, LEFT_SYMMETRIC)
        self.engine = ParityEngine(self.members, self.layout, self.faults)
        self.log = kind(
            self.members,
            self.layout,
            self.faults,
            set_uuid=UUID,
            sync=self.engine.sync,
            busy=self.engine.busy,
        )
        self.engine.log = self.log

    async def write(self, offset, data):
        await self.engine.write(offset, [data], len(data))

    async def read(self, offset, length):
        buffer = bytearray(length)
        await self.engine.read(offset, [buffer], length)
        return bytes(buffer)

    async def start(self):
        """As an array does: replay what a dirty one left, and prove the rest if there is enough to prove it with."""
        notices = await self.log.load()
        replayed = await self.log.replay()
        whole = all(member.active for member in self.members)
        if not replayed.proven and whole:
            self.engine.sync.position = 0
            self.engine.sync.believed = replayed.believed
        await self.log.start()
        return replayed, notices


def ram(count=4, size=256 * KIB, **options):
    faulty = [FaultyDevice(RamDevice(f"d{slot}", DATA + size)) for slot in range(count)]
    return Stack(faulty, size, **options), faulty


def raw(device):
    return device.child.data if isinstance(device, FaultyDevice) else device.data


def record_on(device, area=64 * KIB):
    return last_record(raw(device)[PLACE : PLACE + area], SIGNATURE)


def consistent(devices, size):
    total = 0
    for device in devices:
        total ^= int.from_bytes(raw(device)[DATA : DATA + size], "little")
    return total == 0
