"""Job: one piece of background work on an array, as its runner and status see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from orionfs.array.engine import Mismatch

Kind = Literal["resync", "recovery", "replacement", "check", "repair"]
State = Literal["queued", "running", "waiting", "paused"]

#: More places than this are counted, not listed.
MAX_LISTED = 1000


@dataclass(slots=True)
class Job:
    """``done`` and ``total`` are bytes of each member; ``rate`` bytes per second of each member, lately.

    ``member`` is the label of the one that is filled.  ``trouble`` says what the job is waiting for.
    """

    kind: Kind
    total: int = 0
    done: int = 0
    rate: float = 0.0
    state: State = "queued"
    member: str = ""
    trouble: str = ""
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def advance(self, done: int, now: float) -> None:
        """*done* bytes are done at the time *now* (seconds of any clock)."""
        self.done = done
        marks = self._marks
        if not marks or now - marks[-1][0] >= 0.25:
            marks.append((now, done))
            del marks[:-20]
            elapsed = now - marks[0][0]
            if elapsed > 0:
                self.rate = max(done - marks[0][1], 0) / elapsed

    def describe(self) -> dict[str, Any]:
        """The job for status."""
        left = (self.total - self.done) / self.rate if self.rate > 0 and self.state == "running" else None
        return {
            "kind": self.kind,
            "state": self.state,
            "member": self.member,
            "done": self.done,
            "total": self.total,
            "rate": int(self.rate),
            "eta_s": left,
            "waiting": self.trouble,
        }


@dataclass(slots=True)
class ScrubResult:
    """What a check or a repair has found so far.  ``checked`` is bytes of each member."""

    kind: Kind
    finished: bool = False
    checked: int = 0
    mismatches: int = 0
    repaired: int = 0
    by_rule: int = 0
    unreadable: int = 0
    places: list[Mismatch] = field(default_factory=list)

    def note(self, found: list[Mismatch]) -> None:
        """Count what does not agree."""
        self.mismatches += len(found)
        self.repaired += sum(1 for each in found if each.repaired)
        self.by_rule += sum(1 for each in found if each.by_rule)
        self.places += found[: max(MAX_LISTED - len(self.places), 0)]

    def describe(self, labels: list[str]) -> dict[str, Any]:
        """The result for status; *labels* are those of the members by slot."""
        return {
            "kind": self.kind,
            "finished": self.finished,
            "checked": self.checked,
            "mismatches": self.mismatches,
            "repaired": self.repaired,
            "by_rule": self.by_rule,
            "unreadable": self.unreadable,
            "places": [
                {
                    "offset": each.offset,
                    "length": each.length,
                    "members": [labels[slot] for slot in each.slots],
                    "repaired": each.repaired,
                    "by_rule": each.by_rule,
                }
                for each in self.places
            ],
        }
