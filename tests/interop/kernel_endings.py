"""Arrays that the kernel leaves in the middle of something: OrionFS goes on with it, then the kernel checks them.

Bytes that are planted tell who has gone over what: :class:`~tests.interop.plants.Plant`.
"""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.array import Array
from orionfs.array.superblock import FEATURE_BAD_BLOCKS, FEATURE_RECOVERY_OFFSET, FEATURE_REPLACEMENT, Superblock
from tests.interop import scripts
from tests.interop.case import Case
from tests.interop.guest import Facts
from tests.interop.host import Events, assembled, contents, scribble, superblocks
from tests.interop.pattern import difference
from tests.interop.plants import Plant, block_at, data_offset, redundancy, sync_address
from tests.interop.shapes import MIB

#: Where the kernel stops what it is doing: sector of the member's data (half of them), but of the array's at RAID 10.
HALF = 4096
#: Two blocks of the array that are this far apart share no row, nor a bit of a bitmap.
FAR = 160


class LeftByKernel(Case):
    """Made and filled, then :meth:`end` happens.

    OrionFS takes it as it is (:meth:`look`, :meth:`spoil`, :meth:`go_on`), reads everything and writes a little.
    """

    maker = "kernel"
    #: More options of ``mdadm --create``.
    options = ""
    #: Members that are not there when OrionFS gets the array, and that the kernel has to take back in the end.
    away: tuple[int, ...] = ()

    async def prepare(self) -> None:
        self.make_empty()
        self.stay: list[Plant] = []
        self.go: list[Plant] = []

    def first(self) -> str:
        self.written = self.writes()
        return f"""
{scripts.create(self.shape, self.options)}
settle
started
{self.written.whole()}
{self.end()}
"""

    def end(self) -> str:
        """What happens when the array is full, and how it is left."""
        return "stop"

    async def between(self, facts: Facts) -> None:
        self.content = bytearray(self.written.expected(facts.number("size")))
        self.look(await superblocks(self.paths))
        self.spoil()
        events = Events()
        async with assembled(self.paths, without=self.away, events=events) as array:
            await self.go_on(array, events)
        self.judge_plants()
        async with assembled(self.paths, without=self.away) as array:
            assert difference(await contents(array), bytes(self.content)) == ""
            await scribble(array, self.content, self.name, 20)
        self.note("contents equal")

    def judge_plants(self) -> None:
        """Those that had to be rewritten are, and the others are as they were: they are taken back."""
        assert not any(plant.is_there for plant in self.go), "what had to be mended was not"
        for plant in self.stay:
            plant.revert()

    def look(self, found: Sequence[Superblock]) -> None:
        """Assert that the kernel has left what the case is about."""

    def spoil(self) -> None:
        """Plant bytes that must go, and bytes that must stay."""

    async def go_on(self, array: Array, events: Events) -> None:
        """What OrionFS does when it has it."""

    def second(self) -> str:
        return self.verify(self.away)

    async def after(self, facts: Facts) -> None:
        self.agree(facts, bytes(self.content))


class Degraded(LeftByKernel):
    """Members fail, and the array is filled once more without them; in the end the kernel gets them back."""

    def __init__(self, shape, lost: int) -> None:
        super().__init__(shape, f"degraded by {lost}")
        self.lost = lost

    def end(self) -> str:
        return f"mdadm --fail $md {self._disks()}\n{self.written.whole()}\nstop"

    def _disks(self) -> str:
        return " ".join(f"$d{slot}" for slot in range(self.lost))

    def look(self, found: Sequence[Superblock]) -> None:
        assert [superblock.role for superblock in found[: self.lost]] == list(range(self.lost)), "they know of it"
        assert found[0].events + 1 < found[-1].events

    async def go_on(self, array: Array, events: Events) -> None:
        slots = array.describe().details["slots"]
        assert slots == "_" * self.lost + "U" * (len(slots) - self.lost)

    def second(self) -> str:
        return self.verify(range(self.lost))


class Cut(LeftByKernel):
    """The power is cut while a block is being written; nobody knows which."""

    state = "power cut"
    cut = True

    def end(self) -> str:
        return f"""
stop
{scripts.assemble(self.shape)}
echo 0 >$sys/safe_mode_delay
{self.written.blocks(at=300)}
"""

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}

    def spoil(self) -> None:
        self.go += [self.plant(block) for block in (50, 400, 900)]

    async def go_on(self, array: Array, events: Events) -> None:
        await events.wait("resync.finished")
        self.note("all was resynced")


class HalfResynced(LeftByKernel):
    """A resync is under way, half of it done."""

    state = "half resynced"

    def end(self) -> str:
        return f"""
echo frozen >$sys/sync_action
echo 0 >$sys/resync_start
echo {HALF} >$sys/sync_max
echo idle >$sys/sync_action
wait_at {HALF}
stop
"""

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {HALF}

    def spoil(self) -> None:
        block = block_at(self.shape, HALF * 512)
        self.stay.append(self.plant(block - FAR))
        self.go.append(self.plant(block + FAR))

    async def go_on(self, array: Array, events: Events) -> None:
        await events.wait("resync.finished")
        self.note("resync went on")


class HalfRecovered(LeftByKernel):
    """A spare is half filled with what the failed member held."""

    state = "half recovered"
    extra = 1
    features = FEATURE_RECOVERY_OFFSET

    def end(self) -> str:
        spare = f"$d{len(self.shape.sizes)}"
        return f"""
echo {HALF} >$sys/sync_max
mdadm --add $md {spare}
{self.begin(spare)}
wait_at {HALF}
stop
"""

    def begin(self, spare: str) -> str:
        """What makes the kernel fill the spare."""
        return "mdadm --fail $md $d0"

    def look(self, found: Sequence[Superblock]) -> None:
        target = found[-1]
        assert (target.role, target.recovery_offset) == (0, HALF)
        assert target.feature_map == self.features

    def spoil(self) -> None:
        self.stay.append(Plant(self.paths[-1], HALF * 512 - 9000))

    async def go_on(self, array: Array, events: Events) -> None:
        await events.wait("recovery.finished")
        self.note("recovery went on")


class HalfReplaced(HalfRecovered):
    """Member 0 is half copied to its replacement."""

    state = "half replaced"
    features = FEATURE_RECOVERY_OFFSET | FEATURE_REPLACEMENT

    def begin(self, spare: str) -> str:
        return f"mdadm $md --replace $d0 --with {spare}"

    async def go_on(self, array: Array, events: Events) -> None:
        await events.wait("replacement.finished")
        self.note("replacement went on")


class WithSpare(LeftByKernel):
    """It has a spare, and in OrionFS a member fails."""

    state = "with a spare"
    extra = 1

    def end(self) -> str:
        return f"mdadm --add $md $d{len(self.shape.sizes)}\nstop"

    async def go_on(self, array: Array, events: Events) -> None:
        assert array.describe().details["spares"] == 1
        await array.fail("0")
        await events.wait("recovery.finished")
        self.note("spare took over")


class Bitmap(LeftByKernel):
    """Clean, with a bitmap that OrionFS has to keep."""

    state = "bitmap"
    options = "--bitmap internal --bitmap-chunk 64 --delay 600"

    def second(self) -> str:
        return f"""
{scripts.assemble(self.shape)}
fact bits $(mdadm -X $d0 | sed -n 's/^ *Bitmap : //p')
settle
sum
check
stop
"""

    async def after(self, facts: Facts) -> None:
        await super().after(facts)
        assert facts["bits"][3] == "0", f"a clean array with bits set: {facts['bits']}"


class BitmapCut(Bitmap):
    """The power is cut while two blocks are being written: only the chunks that the bitmap lists are resynced."""

    state = "bitmap, power cut"
    cut = True
    block = 300

    def end(self) -> str:
        # A stop clears all bits; a new array has all of them set.
        return f"""
stop
{scripts.assemble(self.shape)}
echo 0 >$sys/safe_mode_delay
{self.written.blocks(at=self.block, count=2)}
"""

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}
        assert bits_of(self.paths[0]) == [sync_address(self.shape, self.block) // (64 << 10)]

    def spoil(self) -> None:
        self.go.append(self.plant(self.block))
        self.stay += [self.plant(self.block - FAR), self.plant(self.block + FAR)]

    async def go_on(self, array: Array, events: Events) -> None:
        await events.wait("resync.finished")
        self.note("only the marked were resynced")


class BitmapAbsence(Bitmap):
    """A member was away while something was written: only that is brought up to date."""

    state = "bitmap, member away"

    def end(self) -> str:
        return f"""
stop
{scripts.assemble(self.shape)}
mdadm --fail $md $d0
mdadm --remove $md $d0
{self.written.blocks(at=300, count=2)}
stop
"""

    def spoil(self) -> None:
        self.stay.append(Plant(self.paths[0], 3 * MIB))

    async def go_on(self, array: Array, events: Events) -> None:
        await array.readd(self.paths[0].name)
        await events.wait("recovery.finished")
        self.note("only the marked were copied")


class BadBlocks(LeftByKernel):
    """Member 0 has bad blocks, which are full of garbage; OrionFS writes to them in the end."""

    state = "bad blocks"
    first_bad, count = 1000, 24

    def end(self) -> str:
        return f"""
echo $(($(cat $sys/rd0/offset) + {self.first_bad})) {self.count} >$sys/rd0/bad_blocks
{self.written.blocks(at=800, count=1)}
stop
"""

    def look(self, found: Sequence[Superblock]) -> None:
        flagged = [bool(superblock.feature_map & FEATURE_BAD_BLOCKS) for superblock in found]
        assert flagged == [True, *[False] * (len(found) - 1)]

    def spoil(self) -> None:
        with self.paths[0].open("r+b") as file:
            file.seek(data_offset(self.paths[0]) + self.first_bad * 512)
            file.write(b"\xdb" * self.count * 512)

    async def go_on(self, array: Array, events: Events) -> None:
        assert difference(await contents(array), bytes(self.content)) == ""
        self.note("bad blocks not read")
        for offset in range(0, len(self.content), MIB):
            await array.write(offset, [memoryview(self.content)[offset : offset + MIB]])

    def second(self) -> str:
        return f"""
{scripts.assemble(self.shape)}
fact bad $(cat $sys/rd0/bad_blocks)
settle
sum
check
stop
"""

    async def after(self, facts: Facts) -> None:
        await super().after(facts)
        assert facts["bad"] == [], "they have been written since"


class WriteMostly(LeftByKernel):
    """Member 1 is write-mostly, and so what it holds is not read."""

    state = "write-mostly"

    def first(self) -> str:
        return super().first().replace("$d1", "--write-mostly $d1", 1)

    def look(self, found: Sequence[Superblock]) -> None:
        assert [superblock.devflags for superblock in found] == [0, 1]

    def spoil(self) -> None:
        self.stay += [Plant(self.paths[1], step * MIB // 4) for step in range(16)]

    async def go_on(self, array: Array, events: Events) -> None:
        assert difference(await contents(array), bytes(self.content)) == ""
        self.note("not read")


class Ppl(LeftByKernel):
    """Clean, with a PPL that OrionFS has to keep."""

    state = "PPL"
    options = "--consistency-policy ppl"


class PplCut(Ppl):
    """The power is cut while a block is being written: the stripe that the PPL has is mended, no other is.

    Only the last record of a member counts, and dd would write two blocks one after the other.
    """

    state = "PPL, power cut"
    cut = True
    block = 512

    def end(self) -> str:
        return f"""
stop
{scripts.assemble(self.shape)}
echo 0 >$sys/safe_mode_delay
{self.written.blocks(at=self.block, count=1)}
"""

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}

    def spoil(self) -> None:
        self.go.append(self.plant(self.block))
        self.stay += [self.plant(self.block - FAR), self.plant(self.block + FAR)]

    async def go_on(self, array: Array, events: Events) -> None:
        self.note("only the logged stripe was mended")


class PplCutDegraded(PplCut):
    """A member is lost with the power: what it held of the stripe that was being written is made from the PPL."""

    state = "PPL, power cut, a member lost"
    away = (0,)

    def spoil(self) -> None:
        assert redundancy(self.shape, self.block)[0] == 1, "member 0 has data in this stripe that nobody wrote to"
        self.go.append(self.plant(self.block))

    async def go_on(self, array: Array, events: Events) -> None:
        assert difference(await contents(array), bytes(self.content)) == ""
        self.note("lost data made from the PPL")


def bits_of(path) -> list[int]:
    """Which bits are set in the bitmap of the member *path*, by the format: a header of 256 bytes, then the bits.

    Those behind the last chunk do not count.
    """
    with path.open("rb") as file:
        file.seek(8192)
        page = file.read(4096)
    assert page[:4] == b"bitm"
    count = int.from_bytes(page[40:48], "little") * 512 // int.from_bytes(page[52:56], "little")
    return [bit for bit in range(count) if page[256 + bit // 8] >> bit % 8 & 1]
