"""Members fail, spares take over, members are replaced and re-added while fio writes and verifies: nobody notices.

python -m tests.campaigns.member_life [--levels raid1 raid5 ...] [--size 256MiB] [--verbose]
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns import stage

#: Members of each level, and the array in which they fail: of nested levels it is the first inner one.
SHAPES = {
    "raid1": (3, "vault"),
    "raid5": (4, "vault"),
    "raid6": (5, "vault"),
    "raid10": (4, "vault"),
    "raid50": (6, "vault.0"),
    "raid60": (8, "vault.0"),
}
HEADER = ["level", "step", "state", "slots", "seconds", "fio passes", "fio errors", "result"]
PATIENCE_S = 240


@dataclass
class Load:
    """fio, again and again until it is told to stop: each pass writes and then verifies all it has written."""

    file: Path
    size: str
    passes: int = 0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._enough.is_set():
            done = subprocess.run(
                [
                    "fio", "--name=life", f"--filename={self.file}", "--rw=randwrite", "--bssplit=4k/70:64k/20:512k/10",
                    "--direct=1", "--ioengine=libaio", "--iodepth=8", f"--size={self.size}", "--verify=crc32c",
                    "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0", f"--randseed={self.passes + 1}",
                    "--fsync=64",
                ],
                capture_output=True,
                text=True,
                check=False,
            )  # fmt: skip
            if done.returncode:
                self.errors.append(done.stderr[-300:])
                return
            self.passes += 1

    def stop(self) -> None:
        self._enough.set()
        self._thread.join()


@dataclass
class Life:
    """One array with its load, and the steps that were taken."""

    level: str
    array: str
    mountpoint: Path
    load: Load
    verbose: bool
    rows: list[list[str]] = field(default_factory=list)

    def report(self) -> dict:
        arrays = stage.status(self.mountpoint)["arrays"]
        return next(array for array in arrays if array["name"] == self.array)

    def orionctl(self, *words: str | Path) -> None:
        stage.run(stage.ORIONCTL, "-m", self.mountpoint, "array", *words)

    def step(self, noun: str, act: Callable[[], None], holds: Callable[[dict], bool]) -> None:
        """Take one step, wait until it *holds*, and note what status says."""
        began = time.monotonic()
        act()
        seen = self.report()
        stage.wait_until(lambda: holds(self.report()), f"{self.level}: {noun}", PATIENCE_S)
        row = self.report()
        good = not self.load.errors
        during = f"{seen['state']} then {row['state']}" if seen["state"] != row["state"] else row["state"]
        self.rows.append(
            [self.level, noun, during, row["slots"], f"{time.monotonic() - began:.1f}",
             str(self.load.passes), str(len(self.load.errors)), "ok" if good else self.load.errors[0]]
        )  # fmt: skip
        print("  ".join(self.rows[-1]), flush=True)
        if self.verbose:
            print(stage.run(stage.ORIONCTL, "-m", self.mountpoint, "status", check=False).stdout)


def healthy(report: dict) -> bool:
    return report["degraded"] == 0 and report["state"] in ("clean", "active") and not report["job"]


def without(slot: int) -> Callable[[dict], bool]:
    return lambda report: report["slots"][slot] == "_"


def one(folder: Path, level: str, options) -> list[list[str]]:
    count, array = SHAPES[level]
    store = folder / level
    (store / "members").mkdir(parents=True)
    names = [f"members/d{slot}.img" for slot in range(count)]
    stage.run(
        stage.ORIONCTL, "array", "create", "vault", "--level", level, "--spec", store, "--size", options.size,
        "--spare", "members/s0.img", "--spare", "members/s1.img", *names,
    )  # fmt: skip
    fresh = store / "members" / "new.img"
    with fresh.open("wb") as file:
        file.truncate((store / names[0]).stat().st_size)
    with stage.mounted(store, folder / "mnt") as file:
        load = Load(file, options.load)
        life = Life(level, array, folder / "mnt", load, options.verbose)
        try:
            walk(life, array, fresh)
        finally:
            load.stop()
        life.step("the last pass of fio is verified", lambda: None, healthy)
    return life.rows


def walk(life: Life, array: str, fresh: Path) -> None:
    """The steps of one life."""
    stage.wait_until(lambda: life.load.passes > 0 or bool(life.load.errors), "the first pass of fio", PATIENCE_S)
    life.step("fio runs", lambda: None, healthy)
    life.step(
        "d1 fails, a spare takes over and is rebuilt", lambda: life.orionctl("fail", "-y", array, "d1.img"), healthy
    )
    life.step("d2 fails, the other spare is rebuilt", lambda: life.orionctl("fail", "-y", array, "d2.img"), healthy)
    life.step(
        "d0 is replaced by a new member", lambda: life.orionctl("replace", "-y", array, "d0.img", fresh),
        lambda report: healthy(report) and "new.img" in report["members"][0]["name"],
    )  # fmt: skip
    life.step("slot 1 fails, no spare is left", lambda: life.orionctl("fail", "-y", array, "1"), without(1))
    time.sleep(1)  # for fio to write something that the member misses
    life.step("it is re-added by the bitmap", lambda: life.orionctl("re-add", array, "1"), healthy)
    events = stage.run(stage.ORIONCTL, "-m", life.mountpoint, "events").stdout
    if "by the bitmap" not in events:
        raise RuntimeError(f"{life.level}: no event says that a member was re-added by the bitmap\n{events}")
    life.step("check", lambda: life.orionctl("check", "--wait", array), healthy)
    scrub = life.report()["scrub"]
    if not scrub or not scrub["finished"] or scrub["mismatches"]:
        raise RuntimeError(f"{life.level}: the check says {scrub}")


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--levels", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--size", default="256MiB", help="of each member")
    parser.add_argument("--load", default="96m", help="what each pass of fio writes")
    parser.add_argument("--verbose", action="store_true", help="print status at each step")
    options = parser.parse_args()
    rows: list[list[str]] = []
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        for level in options.levels:
            rows += one(folder, level, options)
            stage.run("rm", "-rf", folder / level)
    print(stage.table(HEADER, rows))
    return 0 if all(row[-1] == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
