"""fio writes with crc32c headers and reads them back: 4 KiB random and 1 MiB sequential, buffered and direct, 4 jobs.

python -m tests.campaigns.fio_verify [--levels linear raid0 raid1 raid5] [--size 128m]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.campaigns import stage

LEVELS = {"linear": 3, "raid0": 4, "raid1": 2, "raid5": 4}
PATTERNS = {"4k random": ("randwrite", "4k"), "1m sequential": ("write", "1m")}
HEADER = ["level", "pattern", "mode", "jobs", "written MiB", "verified MiB", "write MiB/s", "errors", "result"]


def one(file: Path, level: str, pattern: str, direct: bool, size: str) -> list[str]:
    rw, block = PATTERNS[pattern]
    done = stage.run(
        "fio", "--name=verify", f"--filename={file}", f"--rw={rw}", f"--bs={block}", f"--direct={int(direct)}",
        "--numjobs=4", f"--size={size}", f"--offset_increment={size}", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--verify_state_save=0", "--ioengine=libaio", "--iodepth=4",
        "--group_reporting", "--output-format=json",
        check=False,
    )  # fmt: skip
    start = done.stdout.find("{")  # fio warns about jobs that share a file; these have parts of their own
    if start < 0:
        return [level, pattern, "direct" if direct else "buffered", "4", "-", "-", "-", "-", done.stderr[-200:]]
    job = json.loads(done.stdout[start:])["jobs"][0]
    written, verified = job["write"]["io_bytes"] >> 20, job["read"]["io_bytes"] >> 20
    good = done.returncode == 0 and job["error"] == 0 and verified >= written > 0
    mode = "direct" if direct else "buffered"
    rate = f"{job['write']['bw'] / 1024:.0f}"
    return [level, pattern, mode, "4", str(written), str(verified), rate, str(job["error"]), "ok" if good else "BAD"]


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=list(LEVELS))
    parser.add_argument("--size", default="128m", help="for each of the four jobs")
    options = parser.parse_args()
    rows: list[list[str]] = []
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        for level in options.levels:
            store = stage.make_store(folder / level, level, members=LEVELS[level], size="768MiB")
            with stage.mounted(store, folder / "mnt") as file:
                for pattern in PATTERNS:
                    for direct in (False, True):
                        rows.append(one(file, level, pattern, direct, options.size))
                        print("  ".join(rows[-1]), flush=True)
            stage.run("rm", "-rf", store)
    print(stage.table(HEADER, rows))
    return 0 if all(row[-1] == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
