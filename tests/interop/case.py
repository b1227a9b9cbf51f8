"""Case: one array that the kernel and OrionFS hand to each other, and the verdict on it.

The steps of all cases are interleaved, so that two boots of the machine serve them all: prepare (here), first (in the
machine), between (here), second (in the machine), after (here).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.interop import scripts
from tests.interop.guest import Facts
from tests.interop.pattern import Writes
from tests.interop.plants import Plant, redundancy
from tests.interop.shapes import MIB, Shape


class Case:
    """Both *prepare* and the others do nothing unless a case says what; an empty script is not run.

    A step that raises ends the case; :attr:`failure` then says how.
    """

    #: Who makes the array: "kernel" or "orionfs".
    maker = ""
    #: Whether :meth:`first` leaves the array running, for the power to be cut.
    cut = False
    #: How many members it has beyond those of its shape.
    extra = 0

    #: How the maker leaves it.
    state = "clean"

    def __init__(self, shape: Shape, state: str = "") -> None:
        self.shape = shape
        self.state = state or self.state
        self.number = 0
        self.every = False
        self.folder = Path()
        self.notes: list[str] = []
        self.failure = ""

    @property
    def name(self) -> str:
        words = "-".join(self.state.replace(",", "").split())
        return f"{self.maker}-{self.shape}-{words}"

    @property
    def paths(self) -> list[Path]:
        """The members, slot by slot, then the extra ones."""
        return [self.folder / f"{self.name}.{index}" for index in range(self.shape.members + self.extra)]

    def settle(self, folder: Path, number: int, *, every: bool) -> None:
        """Take *number* among the cases whose files are in *folder*."""
        self.folder, self.number, self.every = folder, number, every

    def writes(self) -> Writes:
        """Writes that no other case does."""
        return Writes(4 * self.number)

    def note(self, text: str) -> None:
        """Keep what was found for the table."""
        if text not in self.notes:
            self.notes.append(text)

    # --- steps -----------------------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Make the members, or the empty files that are to become members."""

    def first(self) -> str:
        return ""

    async def between(self, facts: Facts) -> None:
        """What OrionFS does with what the first script left."""

    def second(self) -> str:
        return ""

    async def after(self, facts: Facts) -> None:
        """What the second script found."""

    # --- for the steps ---------------------------------------------------------------------------------------------

    def make_empty(self) -> None:
        """Files for the kernel to make members of."""
        sizes = self.shape.sizes * max(self.shape.legs, 1)
        for index, path in enumerate(self.paths):
            with path.open("wb") as file:
                file.truncate(sizes[min(index, len(sizes) - 1)] * MIB)

    def losses(self) -> Iterator[tuple[int, ...]]:
        """Sets of members that the shape can do without, as many as it can; only one of them unless ``every``."""
        width, lost = len(self.shape.sizes), self.shape.tolerates
        if not lost:
            return
        sets = list(itertools.combinations(range(width), lost))
        for gone in sets if self.every else [sets[self.number % len(sets)]]:
            # In nested arrays every leg loses the same.
            yield tuple(slot + leg * width for leg in range(max(self.shape.legs, 1)) for slot in gone)

    def plant(self, block: int) -> Plant:
        """Spoil the redundancy of *block* of the array."""
        slot, offset = redundancy(self.shape, block)
        return Plant(self.paths[slot], offset + 1000)

    def verify(self, back: Sequence[int] = ()) -> str:
        """A script that takes the array, gives it the members *back* that it was without, sums and checks it."""
        return f"{scripts.assemble(self.shape)}{self.give(back)}settle\nsum\ncheck\nstop\n"

    def give(self, back: Sequence[int]) -> str:
        """The part of a script that adds members *back* to an array that is degraded by just these."""
        return f"settle {len(back)}\nmdadm --add $md {' '.join(f'$d{slot}' for slot in back)}\n" if back else ""

    def agree(self, facts: Facts, content: bytes) -> None:
        """Assert that the machine found *content* and nothing that does not agree with it."""
        assert facts.number("size") == len(content)
        assert facts.word("sum") == digest(content), "the kernel reads something else"
        assert facts.word("degraded") == "0"
        assert facts.word("mismatches") == "0", "data and redundancy disagree"
        self.note("sha256 equal")
        if self.shape.tolerates:
            self.note("check 0")


def digest(content: bytes | bytearray) -> str:
    """As sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()
