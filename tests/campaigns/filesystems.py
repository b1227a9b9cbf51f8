"""Real filesystems on loop devices on arrays: copy a real tree, unmount everything, mount again, compare every file.

For each level, filesystem and loop I/O mode: orionctl attach, mkfs, copy, unmount all, mount again, sha256 of all
files, fsck.  The table has the seconds of each step.

    python -m tests.campaigns.filesystems [--tree DIR] [--levels raid0 raid1 raid5] [--keep FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.campaigns import stage

MKFS = {"ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}
FSCK = {"ext4": ["fsck.ext4", "-f", "-n"], "xfs": ["xfs_repair", "-n"], "btrfs": ["btrfs", "check", "--readonly"]}
MEMBERS = {
    "linear": (3, "768MiB"),
    "raid0": (4, "640MiB"),
    "raid1": (2, "2GiB"),
    "raid4": (4, "768MiB"),
    "raid5": (4, "768MiB"),
    "raid6": (5, "768MiB"),
    "raid10": (4, "1GiB"),
}
HEADER = [
    "level",
    "fs",
    "loop dio",
    "mkfs s",
    "copy s",
    "unmount s",
    "mount s",
    "compare s",
    "fsck s",
    "files",
    "result",
]


def one(folder: Path, level: str, kind: str, direct: str, tree: Path, expected: dict[str, str]) -> list[str]:
    members, size = MEMBERS[level]
    store = stage.make_store(folder / f"{level}-{kind}-dio-{direct}", level, members=members, size=size)
    mnt, inner = folder / "mnt", folder / "inner"
    times: list[float] = []
    watch = stage.Stopwatch()
    with stage.mounted(store, mnt) as file:
        watch.lap()
        with stage.attached(file, "--direct-io", direct) as device:
            stage.run(*MKFS[kind], device)
            times.append(watch.lap())
            with stage.filesystem(device, inner):
                stage.run("cp", "-a", tree, inner / "tree")
                stage.run("sync", "-f", inner)
                times.append(watch.lap())
    times.append(watch.lap())
    with stage.mounted(store, mnt) as file, stage.attached(file, "--direct-io", direct) as device:
        with stage.filesystem(device, inner, "-o", "ro"):
            times.append(watch.lap())
            same = stage.sums(inner / "tree") == expected
            times.append(watch.lap())
        check = stage.run(*FSCK[kind], device, check=False)
        times.append(watch.lap())
    result = "ok" if same and check.returncode == 0 else "DIFFERENT" if not same else f"fsck: {check.stdout[-200:]}"
    return [level, kind, direct, *(f"{seconds:.1f}" for seconds in times), str(len(expected)), result]


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--tree", type=Path, default=Path(sys.base_prefix), help="what to copy (a Python installation)")
    parser.add_argument("--levels", nargs="+", default=["raid0", "raid1", "raid5"], choices=sorted(MEMBERS))
    parser.add_argument("--filesystems", nargs="+", default=list(MKFS), choices=list(MKFS))
    parser.add_argument("--direct-io", nargs="+", default=["off", "on"], choices=["off", "on"])
    options = parser.parse_args()
    expected = stage.sums(options.tree)
    print(f"{options.tree}: {len(expected)} files", flush=True)
    rows: list[list[str]] = []
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        for level in options.levels:
            for kind in options.filesystems:
                for direct in options.direct_io:
                    rows.append(one(folder, level, kind, direct, options.tree, expected))
                    print("  ".join(rows[-1]), flush=True)
                    if not options.keep:
                        stage.run("rm", "-rf", folder / f"{level}-{kind}-dio-{direct}")
    print(stage.table(HEADER, rows))
    return 0 if len(expected) >= 20_000 and all(row[-1] == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
