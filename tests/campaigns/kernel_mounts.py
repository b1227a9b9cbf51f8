"""The kernel's own MD assembles arrays of OrionFS and mounts the ext4 in them, in a virtual machine.

For each level: a store, ext4 on a loop device, a real tree copied in, all unmounted; then mdadm in the VM assembles the
member files, mounts the ext4 read-only, checks the sha256 of every file, and md checks its redundancy.

    python -m tests.campaigns.kernel_mounts [--tree DIR] [--levels raid0 raid1 raid5 raid6 raid10]
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.campaigns import stage
from tests.campaigns.filesystems import MEMBERS
from tests.interop.vm import PROGRAM, device_name

HEADER = ["level", "files", "copy s", "vm s", "mismatches", "result"]
GUEST = """
set -e
vm-load md-mod raid0 raid1 raid10 raid456 linear ext4
mdadm --assemble --run /dev/md0 {disks}
cat /proc/mdstat
mkdir -p /tmp/inner
mount -t ext4 -o ro /dev/md0 /tmp/inner
(cd /tmp/inner/tree && sha256sum --quiet -c /mnt/share/sums) && echo ALL-SUMS-AGREE
umount /tmp/inner
if [ -e /sys/block/md0/md/sync_action ]; then
    echo check > /sys/block/md0/md/sync_action
    vm-settle
    echo MISMATCHES $(cat /sys/block/md0/md/mismatch_cnt)
fi
mdadm --stop /dev/md0
"""


def one(folder: Path, level: str, tree: Path, share: Path, files: int) -> list[str]:
    members, size = MEMBERS[level]
    store = stage.make_store(folder / level, level, members=members, size=size)
    watch = stage.Stopwatch()
    with stage.mounted(store, folder / "mnt") as file, stage.attached(file) as device:
        stage.run("mkfs.ext4", "-q", device)
        with stage.filesystem(device, folder / "inner") as inner:
            stage.run("cp", "-a", tree, inner / "tree")
    copied = watch.lap()
    images = sorted((store / "members").glob("*.img"))
    disks = " ".join(device_name(index) for index in range(len(images)))
    command: list[str | Path] = [PROGRAM, "--timeout", "1500", "--share", f"{share},ro"]
    for image in images:
        command += ["--disk", image]
    done = stage.run(*command, "-c", GUEST.format(disks=disks), check=False)
    words = done.stdout.split()
    mismatches = words[words.index("MISMATCHES") + 1] if "MISMATCHES" in words else "-"
    good = done.returncode == 0 and "ALL-SUMS-AGREE" in words and mismatches in ("0", "-")
    result = "ok" if good else (done.stdout + done.stderr)[-300:]
    return [level, str(files), f"{copied:.1f}", f"{watch.lap():.1f}", mismatches, result]


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--tree", type=Path, default=Path(sys.base_prefix), help="what to copy")
    parser.add_argument(
        "--levels", nargs="+", default=["raid0", "raid1", "raid5", "raid6", "raid10"], choices=sorted(MEMBERS)
    )
    options = parser.parse_args()
    expected = stage.sums(options.tree)
    rows: list[list[str]] = []
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        share = folder / "share"
        share.mkdir()
        (share / "sums").write_text("".join(f"{digest}  {name}\n" for name, digest in expected.items()))
        for level in options.levels:
            rows.append(one(folder, level, options.tree, share, len(expected)))
            print("  ".join(rows[-1]), flush=True)
            stage.run("rm", "-rf", folder / level)
    print(stage.table(HEADER, rows))
    return 0 if all(row[-1] == "ok" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
