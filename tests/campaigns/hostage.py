"""Nobody is hostage to a slow member, and the daemon never waits for memory that only it can free.

1. Two arrays in one mount.  One member of the first lies on a filesystem that sleeps 5 s in each write.  While fio
   writes to it, control requests stay under 100 ms and the second array keeps its rate. 2. A memory cgroup; in it,
   ext4 on a loop device on a RAID 5 gets twice the limit of dirty data: it finishes.

    python -m tests.campaigns.hostage [--delay 5] [--limit 128]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orionfs.control.client import ControlClient
from orionfs.control.runtime import find
from tests.campaigns import stage

CONFIG = """
[[array]]
name = "slow"
level = "raid1"
members = ["members/s0.img", "slow/s1.img"]
member_size = "64MiB"

[[array]]
name = "quick"
level = "raid5"
members = ["members/q0.img", "members/q1.img", "members/q2.img"]
member_size = "128MiB"
"""


def rate(file: Path, seconds: int) -> float:
    """MiB/s of 64 KiB random writes, direct, four at a time."""
    done = stage.run(
        "fio", "--name=rate", f"--filename={file}", "--rw=randwrite", "--bs=64k", "--direct=1", "--ioengine=libaio",
        "--iodepth=4", "--time_based", f"--runtime={seconds}", "--output-format=json",
    )  # fmt: skip
    return json.loads(done.stdout)["jobs"][0]["write"]["bw"] / 1024


def requests(mountpoint: Path, seconds: float) -> list[float]:
    """Milliseconds that control requests took, in this process: the program's own start is not what is measured."""
    client = ControlClient.to(find(mountpoint))
    times: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        client.call("status")
        times.append((time.monotonic() - began) * 1000)
        time.sleep(0.02)
    return times


def slow_member(folder: Path, delay_s: float) -> bool:
    store, mnt = folder / "hostage", folder / "mnt"
    (store / "slow").mkdir(parents=True)
    (store / "behind").mkdir()
    (store / "orionfs.toml").write_text(CONFIG)
    stage.run(stage.ORIONCTL, "init", store)
    (store / "slow" / "s1.img").rename(store / "behind" / "s1.img")
    passing = subprocess.Popen(
        [sys.executable, "-m", "tests.campaigns.slow_folder", store / "behind", store / "slow", str(delay_s)]
    )
    try:
        while not os.path.ismount(store / "slow"):
            time.sleep(0.05)
        mnt.mkdir(exist_ok=True)
        stage.run(stage.MOUNT, store, mnt)
        arrays = mnt / "arrays"
        alone = rate(arrays / "quick", 5)
        load = subprocess.Popen(
            ["fio", "--name=slow", f"--filename={arrays / 'slow'}", "--rw=randwrite", "--bs=4k", "--direct=1",
             "--ioengine=libaio", "--iodepth=4", "--time_based", "--runtime=15"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1)
        times = requests(mnt, 6)
        beside = rate(arrays / "quick", 5)
        more = requests(mnt, 2)
        load.wait()
        times = sorted(times + more)
        median, worst = times[len(times) // 2], times[-1]
        print(f"control requests: {len(times)}, median {median:.1f} ms, worst {worst:.1f} ms")
        print(f"quick array: {alone:.0f} MiB/s alone, {beside:.0f} MiB/s beside the slow one")
        began = time.monotonic()
        stage.run(stage.UMOUNT, mnt)
        print(f"unmounted in {time.monotonic() - began:.1f} s")
        return worst < 100 and beside > 0.7 * alone
    finally:
        stage.run("umount", store / "slow", check=False)
        passing.wait()


def memory_cgroup(folder: Path, limit_mib: int) -> bool:
    root = Path("/sys/fs/cgroup/memory")
    if not (root / "memory.limit_in_bytes").exists():
        print("no memory cgroup (v1) here: not measured")
        return False
    group = root / f"orionfs-campaign-{os.getpid()}"
    store = stage.make_store(folder / "pressure", "raid5", size="256MiB")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit_mib << 20))
        began = time.monotonic()
        with (
            stage.mounted(store, folder / "mnt") as file,
            stage.attached(file) as device,
        ):
            stage.run("mkfs.ext4", "-q", device)
            with stage.filesystem(device, folder / "inner") as inner:
                dirty = f"dd if=/dev/zero of={inner}/data bs=1M count={2 * limit_mib} conv=fsync"
                stage.run("sh", "-c", f"echo $$ > {group}/cgroup.procs && {dirty}", timeout=600)
                (inner / "data").unlink()
        seconds = time.monotonic() - began
        print(f"{2 * limit_mib} MiB of dirty data under a limit of {limit_mib} MiB: {seconds:.1f} s")
        return True
    finally:
        group.rmdir()


def main() -> int:
    parser = stage.parser(__doc__)
    parser.add_argument("--delay", type=float, default=5.0, help="seconds that each write to the slow member sleeps")
    parser.add_argument("--limit", type=int, default=128, help="MiB of the memory cgroup")
    options = parser.parse_args()
    with stage.workshop(options.keep) as folder, stage.without_leftovers(folder):
        good = [slow_member(folder, options.delay), memory_cgroup(folder, options.limit)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
