"""The kernel's MD and OrionFS hand arrays to each other: every level and layout, both ways, and every rough ending.

All cases share two boots of a virtual machine.  The table says for each what was found, and the verdict.

    python -m tests.campaigns.kernel_md [--only WORD ...] [--keep FOLDER]
"""

from __future__ import annotations

import sys

from tests.campaigns import stage
from tests.interop.case import Case
from tests.interop.catalog import ending_cases, table_cases
from tests.interop.laboratory import Laboratory
from tests.interop.vm import why_not

HEADER = ["made by", "level", "layout", "members", "left", "what was found", "verdict"]


def row(case: Case) -> list[str]:
    shape = case.shape
    width = f"{shape.legs} x {len(shape.sizes)}" if shape.legs else str(len(shape.sizes))
    verdict = "ok" if not case.failure else f"FAILED: {case.failure.strip().splitlines()[-1]}"
    return [case.maker, shape.title, shape.layout, width, case.state, "; ".join(case.notes), verdict]


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="cases that have one of these in it")
    options = parser.parse_args()
    if why_not():
        print(why_not(), file=sys.stderr)
        return 2
    cases = [case for case in [*table_cases(), *ending_cases()] if any(word in case.name for word in options.only)]
    watch = stage.Stopwatch()
    with stage.workshop(options.keep) as folder:
        Laboratory(folder, cases, every=True, say=lambda text: print(text, flush=True)).run()
    for case in cases:
        if case.failure:
            print(f"\n{case.name}:\n{case.failure}")
    failed = sum(1 for case in cases if case.failure)
    print(f"\n{stage.table(HEADER, [row(case) for case in cases])}")
    print(f"\n{len(cases)} cases in {watch.lap():.0f} s; {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
