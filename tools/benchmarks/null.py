"""Peer: the null pyfuse3 filesystem, mounted and tuned as OrionFS is: what our reads and writes could cost at best."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from orionfs.fuse.tuning import tune
from orionfs.tools.benchmarks import server
from orionfs.tools.benchmarks.suite import Setting, Stack, Target

PROGRAM = Path(__file__).with_name("null_filesystem.py")


def _start(setting: Setting, exits: ExitStack) -> Target:
    place = setting.folder / "null"
    place.mkdir()
    # -P: the folder of the program must not be on the path, where its neighbors would hide modules of the same name.
    argv = [sys.executable, "-P", str(PROGRAM), str(place), str(setting.size), "default_permissions"]
    pid = server.start(argv, place, setting.folder / "null.log", exits)
    file = place / "disk"
    file.stat()  # the handshake is over then, and would not undo the settings any more
    tune(place)
    return Target(file, (pid,))


NULL = Stack("null", "null pyfuse3, the ceiling", _start, {"fusermount3": "fuse3"}, prefill=False)
