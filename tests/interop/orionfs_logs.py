"""Arrays with bitmaps, PPLs, journals and bad-block logs of OrionFS, clean and cut short: the kernel has to know them.

Or, where a log is of OrionFS alone, the kernel must not be harmed by it, nor OrionFS by what the kernel did since.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from orionfs.array.logs import gap_of
from orionfs.array.superblock import FEATURE_BAD_BLOCKS, OFFSET, SIZE, Superblock
from tests.interop import scripts
from tests.interop.case import digest
from tests.interop.guest import Facts
from tests.interop.host import Events, assembled, contents, killed, scribble
from tests.interop.kernel_endings import FAR, bits_of
from tests.interop.orionfs_endings import LeftByOrionfs
from tests.interop.pattern import BLOCK, difference
from tests.interop.plants import Plant, data_offset, redundancy, sync_address
from tests.interop.shapes import MIB

#: The last member is one that is never away.
_BITS = "fact bits $(mdadm -X ${disks##* } | sed -n 's/^ *Bitmap : //p')"


class Bitmap(LeftByOrionfs):
    """Clean: the kernel takes the bitmap as it is, with nothing in it."""

    state = "bitmap"
    bitmap = True

    def go_on(self) -> str:
        return f"{_BITS}\nfact place $(cat $sys/bitmap/location)\nsettle"

    async def between(self, facts: Facts) -> None:
        assert facts.word("place") == "+8"
        assert facts["bits"][3] == "0", f"a clean array with bits set: {facts['bits']}"
        self.note("mdadm -X: 0 dirty")
        await super().between(facts)


class BitmapCut(Bitmap):
    """Killed while a few blocks are being written: the kernel resyncs only the chunks that the bitmap lists."""

    state = "bitmap, killed"
    block = 300

    async def leave(self) -> None:
        data = self.writes().expected(2 * BLOCK)  # anything
        async with killed(self.paths, consistency=self.consistency) as array:
            await array.write(self.block * BLOCK, [data])
            await array.flush()
        self.content[self.block * BLOCK : (self.block + 2) * BLOCK] = data

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}
        assert bits_of(self.paths[0]) == [sync_address(self.shape, self.block) // (64 << 10)]

    def spoil(self) -> None:
        self.go.append(self.plant(self.block))
        self.stay += [self.plant(self.block - FAR), self.plant(self.block + FAR)]

    async def between(self, facts: Facts) -> None:
        assert facts["bits"][3] == "1", f"mdadm -X counts {facts['bits']}"
        self.note("mdadm -X: 1 dirty")
        self.note("only the marked were resynced")
        await LeftByOrionfs.between(self, facts)


class BitmapAbsence(Bitmap):
    """A member was away while something was written: the kernel's re-add copies only that."""

    state = "bitmap, member away"

    async def leave(self) -> None:
        async with assembled(self.paths, without=[0], consistency=self.consistency) as array:
            for block in (100, 300, 500):  # in three bits, none next to another
                at = block * BLOCK
                self.content[at : at + BLOCK] = bytes([block // 100]) * BLOCK
                await array.write(at, [self.content[at : at + BLOCK]])

    def spoil(self) -> None:
        self.stay.append(Plant(self.paths[0], 3 * MIB))

    def go_on(self) -> str:
        return f"{_BITS}\nmdadm --re-add $md $d0\nsettle"

    async def between(self, facts: Facts) -> None:
        assert facts["bits"][3] == "3", f"mdadm -X counts {facts['bits']}"
        self.note("mdadm -X: 3 dirty")
        self.note("only the marked were copied")
        await LeftByOrionfs.between(self, facts)


class BadBlocks(LeftByOrionfs):
    """Member 0 has bad blocks, which are full of garbage; the kernel writes to them in the end."""

    state = "bad blocks"
    first_bad, count = 1000, 24

    async def leave(self) -> None:
        async with assembled(self.paths, consistency=self.consistency) as array:
            bad = array.roster.slots[0].bad
            bad.add(self.first_bad * 512, (self.first_bad + self.count) * 512)
            await array.write(0, [self.content[:BLOCK]])
            await array.flush()

    def look(self, found: Sequence[Superblock]) -> None:
        flagged = [bool(superblock.feature_map & FEATURE_BAD_BLOCKS) for superblock in found]
        assert flagged == [True, *[False] * (len(found) - 1)]

    def spoil(self) -> None:
        with self.paths[0].open("r+b") as file:
            file.seek(data_offset(self.paths[0]) + self.first_bad * 512)
            file.write(b"\xdb" * self.count * 512)

    def first(self) -> str:
        self.written = self.writes()
        return f"""
{scripts.assemble(self.shape)}
settle
fact offset $(cat $sys/rd0/offset)
fact bad $(cat $sys/rd0/bad_blocks)
sum
fact degraded $(cat $sys/degraded)
{self.written.whole()}
stop
"""

    async def between(self, facts: Facts) -> None:
        place = facts.number("offset") + self.first_bad
        assert facts["bad"] == [str(place), str(self.count)]
        self.note("bad blocks not read")
        await super().between(facts)


class Ppl(LeftByOrionfs):
    """Clean, with a PPL that the kernel takes as it is."""

    state = "PPL"
    consistency = "ppl"

    def go_on(self) -> str:
        return "settle\nfact policy $(cat $sys/consistency_policy)"

    async def between(self, facts: Facts) -> None:
        assert facts.word("policy") == "ppl"
        await super().between(facts)


class PplCut(Ppl):
    """Killed while a block is being written: the kernel mends the stripe that the PPL has, and no other."""

    state = "PPL, killed"
    block = 512

    async def leave(self) -> None:
        data = self.writes().expected(2 * BLOCK)
        async with killed(self.paths, consistency=self.consistency) as array:
            await array.write(self.block * BLOCK, [data])
        self.content[self.block * BLOCK : (self.block + 2) * BLOCK] = data

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}

    def spoil(self) -> None:
        self.go.append(self.plant(self.block))
        self.stay += [self.plant(self.block - FAR), self.plant(self.block + FAR)]

    async def between(self, facts: Facts) -> None:
        await super().between(facts)
        if self.stay:
            self.note("only the logged stripe was mended")


class PplCutDegraded(PplCut):
    """A member is lost with the power: the kernel makes what it held of that stripe from the PPL."""

    state = "PPL, killed, a member lost"
    away = (0,)

    def spoil(self) -> None:
        assert redundancy(self.shape, self.block)[0] == 1, "member 0 has data in this stripe that nobody wrote to"
        self.go.append(self.plant(self.block))

    def go_on(self) -> str:
        return f"sum without\n{self.give(self.away)}settle\nfact policy $(cat $sys/consistency_policy)"

    async def between(self, facts: Facts) -> None:
        assert facts.word("without") == digest(self.content), "the kernel reads something else"
        await super().between(facts)
        self.note("lost data made from the PPL")


class JournalCut(LeftByOrionfs):
    """Killed with a full journal; the kernel runs the array and writes to it; the journal is out of date then."""

    state = "full journal, killed"
    consistency = "journal"
    bitmap = True

    async def leave(self) -> None:
        async with killed(self.paths, consistency=self.consistency) as array:
            await scribble(array, self.content, f"{self.name} again", 40, limit=64)
        await self._prove_that_it_is_full()

    async def _prove_that_it_is_full(self) -> None:
        """From copies of the members: without the journal some of it is missing, and with the journal nothing is."""
        copies = [path.with_name(f"{path.name}.copy") for path in self.paths]
        for wiped in (True, False):
            for path, copy in zip(self.paths, copies, strict=True):
                shutil.copyfile(path, copy)
                if wiped:
                    wipe_gap(copy)
            events = Events()
            async with assembled(copies, consistency="journal", events=events) as array:
                missing = difference(await contents(array), bytes(self.content))
            assert bool(missing) == wiped, missing
        replayed = [message for message in events.alarming() if "journal is replayed" in message]
        assert replayed, events.seen
        self.note(f"{re.search('[0-9]+', replayed[0]).group()} writes in the journal alone")
        for copy in copies:
            copy.unlink()

    def look(self, found: Sequence[Superblock]) -> None:
        assert {superblock.resync_offset for superblock in found} == {0}

    def first(self) -> str:
        self.written = self.writes()
        return f"""
{scripts.assemble(self.shape)}
settle
check
{self.written.blocks(at=5, count=40)}
{self.written.blocks(at=500, count=3)}
sum
stop
"""

    async def between(self, facts: Facts) -> None:
        assert facts.word("mismatches") == "0"
        events = Events()
        async with assembled(self.paths, consistency=self.consistency, events=events) as array:
            found = await contents(array)
            assert digest(found) == facts.word("sum"), "OrionFS reads something else than the kernel left"
            self.note("sha256 equal")
            assert "journal was discarded" in " ".join(events.alarming()), events.seen
            self.note("journal discarded")
            self.content = bytearray(found)
            await scribble(array, self.content, self.name, 20)


def wipe_gap(path: Path) -> None:
    """Zero the room before the data of the member *path* that MD leaves alone."""
    with path.open("r+b") as file:
        file.seek(OFFSET)
        offset, length = gap_of(Superblock.parse(file.read(SIZE)))
        file.seek(offset)
        file.write(bytes(length))
