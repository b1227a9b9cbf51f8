"""Every kind of bad input, against the real programs and a real mount: what is said, with which exit code.

Each case prints its commands, what they said and their exit codes.  It fails if the code is not the one of
orionfs/errors.py, if one of our programs says anything but one sentence, if a traceback appears anywhere, a daemon's
log included, or if anything changed: configuration, members, mounts, loop devices, daemons.

    python -m tests.campaigns.bad_input [--only config media ...] [--keep FOLDER]
"""

from __future__ import annotations

import os
import sys

from tests.campaigns import stage
from tests.campaigns.bad import config, cycle, device_file, full, media, mounting, remount
from tests.campaigns.bad.ledger import Ledger

CHAPTERS = {
    "config": config.run,
    "mount": mounting.run,
    "media": media.run,
    "cycle": cycle.run,
    "file": device_file.run,
    "full": full.run,
    "remount": remount.run,
}


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--only", nargs="+", default=list(CHAPTERS), choices=list(CHAPTERS))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("this campaign needs root: it mounts, and it gives its rights away", file=sys.stderr)
        return 2
    watch = stage.Stopwatch()
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        ledger = Ledger(folder)
        for chapter in options.only:
            CHAPTERS[chapter](ledger)
    print(f"\n{ledger.cases} cases in {watch.lap():.0f} s; {len(ledger.failures)} not as they must be")
    for failure in ledger.failures:
        print(f"  {failure}")
    return 1 if ledger.failures else 0


if __name__ == "__main__":
    sys.exit(main())
