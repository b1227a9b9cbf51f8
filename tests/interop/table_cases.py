"""The table of levels and layouts, both ways: one side fills, the other reads, checks and writes, and gives it back."""

from __future__ import annotations

from tests.interop import scripts
from tests.interop.case import Case
from tests.interop.guest import Facts
from tests.interop.host import Events, assembled, contents, create, filled, scribble
from tests.interop.pattern import difference


class FilledByKernel(Case):
    """OrionFS reads it whole and without members; if ``every``, it also writes, and the kernel gets it back."""

    maker = "kernel"

    async def prepare(self) -> None:
        self.make_empty()

    def first(self) -> str:
        self.written = self.writes()
        return f"""
{scripts.create(self.shape)}
settle
started
{self.written.whole()}
{self.written.blocks(at=77, count=3)}
stop
"""

    async def between(self, facts: Facts) -> None:
        expected = self.written.expected(facts.number("size"))
        events = Events()
        async with assembled(self.paths, legs=self.shape.legs, events=events) as array:
            assert difference(await contents(array), expected) == ""
        assert events.alarming() == []
        self.note("contents equal")
        for gone in self.losses():
            async with assembled(self.paths, legs=self.shape.legs, without=gone, read_only=True) as array:
                assert difference(await contents(array), expected) == "", f"without {gone}"
            self.note(f"also without {len(gone)}")
        if self.every:
            self.content = bytearray(expected)
            async with assembled(self.paths, legs=self.shape.legs) as array:
                await scribble(array, self.content, self.name, 30)

    def second(self) -> str:
        return self.verify() if self.every else ""

    async def after(self, facts: Facts) -> None:
        if self.every:
            self.agree(facts, self.content)


class FilledByOrionfs(Case):
    """The kernel reads and checks it, and writes to it; OrionFS gets it back."""

    maker = "orionfs"

    async def prepare(self) -> None:
        await create(self.shape, self.paths)
        async with assembled(self.paths, legs=self.shape.legs) as array:
            self.content = await filled(array, self.name)

    def first(self) -> str:
        self.written = self.writes()
        return f"""
{scripts.assemble(self.shape)}
settle
sum
check
{self.written.blocks(at=99, count=5)}
stop
"""

    async def between(self, facts: Facts) -> None:
        self.agree(facts, self.content)
        self.written.over(self.content)
        events = Events()
        async with assembled(self.paths, legs=self.shape.legs, events=events) as array:
            assert difference(await contents(array), self.content) == ""
        assert events.alarming() == []
        self.note("contents equal")
