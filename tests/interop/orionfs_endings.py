"""Arrays that OrionFS leaves in the middle of something: the kernel goes on with it, then both look at it.

Bytes that are planted tell who has gone over what: :class:`~tests.interop.plants.Plant`.
"""

from __future__ import annotations

from collections.abc import Sequence

from orionfs.array.policies import Policies
from orionfs.array.superblock import FEATURE_RECOVERY_OFFSET, FEATURE_REPLACEMENT, Superblock
from tests.interop import scripts
from tests.interop.case import Case, digest
from tests.interop.guest import Facts
from tests.interop.host import (
    Events,
    assembled,
    contents,
    create,
    filled,
    half_done,
    killed,
    new_member,
    scribble,
    superblocks,
)
from tests.interop.kernel_endings import FAR
from tests.interop.pattern import difference
from tests.interop.plants import Plant, block_at
from tests.interop.shapes import MIB, Shape

#: At least so much of each member (bytes) is behind a job that OrionFS stops, and as much is before it.
PART = MIB


class LeftByOrionfs(Case):
    """Made and filled, then :meth:`leave` happens.  The kernel does :meth:`go_on`, and OrionFS gets it back.

    In the end the kernel checks it once more, when the plants that had to stay are taken back.
    """

    maker = "orionfs"
    #: What keeps the array consistent, and whether it has a bitmap.
    consistency = "resync"
    bitmap = False
    #: Members that are not there when the kernel gets the array.
    away: tuple[int, ...] = ()

    async def prepare(self) -> None:
        self.stay: list[Plant] = []
        self.go: list[Plant] = []
        await create(self.shape, self.paths[: self.shape.members], bitmap=self.bitmap, consistency=self.consistency)
        async with assembled(self.paths[: self.shape.members], consistency=self.consistency) as array:
            self.content = await filled(array, self.name)
        await self.leave()
        self.look(await superblocks(self.paths))
        self.spoil()

    async def leave(self) -> None:
        """What OrionFS does with the full array in the end."""

    def look(self, found: Sequence[Superblock]) -> None:
        """Assert that OrionFS has left what the case is about."""

    def spoil(self) -> None:
        """Plant bytes that must go, and bytes that must stay."""

    def first(self) -> str:
        self.written = self.writes()
        # With a plant that stays, what is read depends on the member that is asked.
        return f"""
{scripts.assemble(self.shape, self.away)}
{self.go_on()}
{"" if self.stay else "sum"}
fact degraded $(cat $sys/degraded)
{self.written.blocks(at=self.untouched, count=2)}
stop
"""

    def go_on(self) -> str:
        """What the kernel does when it has it."""
        return "settle"

    #: A block of the array that is in no row with a plant; the kernel writes there.
    untouched = 5

    async def between(self, facts: Facts) -> None:
        if not self.stay:
            assert facts.word("sum") == digest(self.content), "the kernel reads something else"
            self.note("sha256 equal")
        assert facts.word("degraded") == "0"
        self.written.over(self.content)
        self.judge_plants()
        async with assembled(self.paths, consistency=self.consistency) as array:
            assert difference(await contents(array), bytes(self.content)) == ""
        self.note("contents equal")

    def judge_plants(self) -> None:
        """Those that had to be rewritten are, and the others are as they were: they are taken back."""
        assert not any(plant.is_there for plant in self.go), "what had to be mended was not"
        for plant in self.stay:
            plant.revert()

    def second(self) -> str:
        return self.verify()

    async def after(self, facts: Facts) -> None:
        self.agree(facts, bytes(self.content))


class Degraded(LeftByOrionfs):
    """Written to without members, which the kernel then gets back as new ones."""

    def __init__(self, shape: Shape, lost: int) -> None:
        super().__init__(shape, f"degraded by {lost}")
        self.lost = lost

    async def leave(self) -> None:
        async with assembled(self.paths, without=range(self.lost), consistency=self.consistency) as array:
            await scribble(array, self.content, f"{self.name} again", 20)

    def go_on(self) -> str:
        return f"sum without\n{self.give(range(self.lost))}settle"

    async def between(self, facts: Facts) -> None:
        assert facts.word("without") == digest(self.content), "the kernel trusts members that it must not"
        await super().between(facts)


class Spoiled(LeftByOrionfs):
    """Clean, and wrong in one place: what it is worth that the kernel finds nothing in all the others."""

    state = "clean, one byte wrong"

    def spoil(self) -> None:
        self.stay.append(self.plant(400))

    def go_on(self) -> str:
        return "check"

    async def between(self, facts: Facts) -> None:
        assert facts.number("mismatches") > 0
        self.note("the kernel finds it")
        await super().between(facts)


class Killed(LeftByOrionfs):
    """Left dirty; the kernel goes over all of it."""

    state = "killed"

    async def leave(self) -> None:
        async with killed(self.paths, consistency=self.consistency) as array:
            await scribble(array, self.content, f"{self.name} again", 5)

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}

    def spoil(self) -> None:
        self.go += [self.plant(block) for block in (50, 400, 900)]


class KilledDegraded(LeftByOrionfs):
    """Dirty without a member: the kernel refuses parity arrays in that state, and OrionFS has its journal."""

    state = "journal, degraded by 1, killed"
    consistency = "journal"

    async def leave(self) -> None:
        async with killed(self.paths, without=[0], consistency=self.consistency) as array:
            await scribble(array, self.content, f"{self.name} again", 20, limit=64)

    def first(self) -> str:
        return "mdadm --assemble --run $md $disks && fact started || fact refused\nmdadm --stop $md || true"

    async def between(self, facts: Facts) -> None:
        assert "refused" in facts
        self.note("the kernel refuses")
        events = Events()
        async with assembled(self.paths, consistency=self.consistency, events=events) as array:
            assert difference(await contents(array), bytes(self.content)) == ""
            if array.engine.sync.needed:  # RAID 6: there is still redundancy to prove, and the kernel starts no other
                await events.wait("resync.finished")
        self.note("contents equal")

    def second(self) -> str:
        return self.verify([0])


class WithSpare(LeftByOrionfs):
    """It has a spare, and in the kernel a member fails."""

    state = "with a spare"
    extra = 1

    async def leave(self) -> None:
        async with assembled(self.paths[:-1], consistency=self.consistency) as array:
            await array.add(self.paths[-1].name, await new_member(self.paths[-1], self.shape))

    def go_on(self) -> str:
        return "settle\nmdadm --fail $md $d0\nsettle"

    async def between(self, facts: Facts) -> None:
        await super().between(facts)
        self.note("spare took over")


class HalfResynced(Killed):
    """A resync is under way, part of it done."""

    state = "half resynced"

    async def leave(self) -> None:
        await super().leave()
        async with assembled(self.paths, consistency=self.consistency, policies=slowly()) as array:
            sync = array.engine.sync
            await half_done(array, lambda: sync.position * sync.unit_size, PART)

    def look(self, found: Sequence[Superblock]) -> None:
        assert len({superblock.resync_offset for superblock in found}) == 1
        assert PART <= found[0].resync_offset * 512 <= 2 * PART

    def spoil(self) -> None:
        self.stay.append(self.plant(block_at(self.shape, PART) - FAR))
        self.go.append(self.plant(block_at(self.shape, 2 * PART) + FAR))

    async def between(self, facts: Facts) -> None:
        await super().between(facts)
        self.note("resync went on")


class HalfRecovered(LeftByOrionfs):
    """A spare is partly filled with what the failed member held."""

    state = "half recovered"
    extra = 1
    features = FEATURE_RECOVERY_OFFSET

    async def leave(self) -> None:
        async with assembled(self.paths[:-1], consistency=self.consistency, policies=slowly()) as array:
            await array.add(self.paths[-1].name, await new_member(self.paths[-1], self.shape))
            await array.fail("0")
            await half_done(array, lambda: array.roster.slots[0].valid, PART)

    def look(self, found: Sequence[Superblock]) -> None:
        target = found[-1]
        assert target.role == 0
        assert PART <= target.recovery_offset * 512 <= 2 * PART
        assert target.feature_map & (FEATURE_RECOVERY_OFFSET | FEATURE_REPLACEMENT) == self.features

    def spoil(self) -> None:
        self.stay.append(Plant(self.paths[-1], PART - 9000))

    async def between(self, facts: Facts) -> None:
        await super().between(facts)
        self.note("the kernel went on")


class HalfReplaced(HalfRecovered):
    """Member 0 is partly copied to its replacement."""

    state = "half replaced"
    features = FEATURE_RECOVERY_OFFSET | FEATURE_REPLACEMENT

    async def leave(self) -> None:
        async with assembled(self.paths[:-1], consistency=self.consistency, policies=slowly()) as array:
            await array.add(self.paths[-1].name, await new_member(self.paths[-1], self.shape))
            await array.replace("0")
            await half_done(array, lambda: max((copy.valid for copy in array.roster.copies()), default=0), PART)

    def go_on(self) -> str:
        return "replaced\nsettle"


def slowly() -> Policies:
    """Slow enough for a job to be stopped: one batch at a time."""
    return Policies(rebuild_ceiling=4 * MIB)
