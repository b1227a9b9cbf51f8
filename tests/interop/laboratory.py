"""Laboratory: takes many cases through their steps, with two boots of the machine for all of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio

from tests.interop.case import Case
from tests.interop.guest import Boot, Facts


class Laboratory:
    """The verdict on each case is in the case."""

    def __init__(
        self,
        folder: Path,
        cases: Sequence[Case],
        *,
        every: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """With *every*, arrays are read without every set of members that they can do without, not just one."""
        self.folder = folder
        self.cases = list(cases)
        for number, case in enumerate(cases):
            case.settle(folder, number, every=every)
        self._say = say

    def run(self) -> None:
        """All steps of all cases."""
        for case in self.cases:
            self._attempt(case, case.prepare)
        facts = self._boot(lambda case: case.first(), cut=True)
        for case in self.cases:
            self._attempt(case, case.between, facts.get(case.name, Facts()))
        facts = self._boot(lambda case: case.second())
        for case in self.cases:
            self._attempt(case, case.after, facts.get(case.name, Facts()))

    def _attempt(self, case: Case, step: Callable[..., Any], *arguments: Any) -> None:
        if case.failure:
            return
        try:
            trio.run(step, *arguments)
        except Exception:
            case.failure = traceback.format_exc()
            self._say(f"{case.name}: failed")

    def _boot(self, script_of: Callable[[Case], str], *, cut: bool = False) -> dict[str, Facts]:
        """Run the scripts of all cases that are still in order; those that a power cut has to hit come last."""
        scripts = {case: script for case in self.cases if not case.failure and (script := script_of(case))}
        if not scripts:
            return {}
        boot = Boot(self.folder)
        for case in sorted(scripts, key=lambda case: case.cut):
            boot.add(case.name, case.paths, scripts[case])
        cut = cut and any(case.cut for case in scripts)
        self._say(f"booting for {len(scripts)} cases")
        found = boot.run(cut=cut)
        for case in scripts:
            if found[case.name].failed:
                case.failure = "\n".join(["in the machine:", *found[case.name].log])
                self._say(f"{case.name}: failed")
        return found
