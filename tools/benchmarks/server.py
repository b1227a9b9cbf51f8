"""A process that serves a mount: started, waited for, timed, and stopped by its id."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from orionfs.clock import SystemClock
from orionfs.tools.benchmarks.suite import NotMeasured
from orionfs.tools.mountinfo import mount_at, read_mounts
from orionfs.tools.syscalls import MNT_DETACH, umount2

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0


def is_mounted(place: Path) -> bool:
    """Whether something is mounted exactly at *place*, a folder or a file; never touches what is mounted."""
    return mount_at(read_mounts(), str(place)) is not None


def wait_mounted(place: Path, pid: int) -> bool:
    """Wait until *place* is mounted.  False if process *pid* ended first, or if START_TIMEOUT_S passed."""
    poller = select.poll()
    with ExitStack() as exits:
        process = os.pidfd_open(pid)
        exits.callback(os.close, process)
        mounts = exits.enter_context(Path("/proc/self/mountinfo").open())
        poller.register(process, select.POLLIN)
        # A change of the mount table shows as POLLPRI, from the moment the file was opened.
        poller.register(mounts, select.POLLPRI)
        deadline = SystemClock.elapsed_ns() + START_TIMEOUT_S * 1e9
        while not is_mounted(place):
            left_ms = (deadline - SystemClock.elapsed_ns()) / 1e6
            events = dict(poller.poll(max(0.0, left_ms)))
            if not events or process in events:
                return is_mounted(place)
        return True


def wait_ended(pid: int, timeout_s: float) -> bool:
    """Wait until process *pid*, ours or not, has ended; False if it is still there after *timeout_s* seconds."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], timeout_s)[0])
    finally:
        os.close(process)


def unmount(place: Path) -> None:
    """Unmount *place* if it is mounted; a mount that is busy or dead is detached, so that none is ever left behind."""
    if not is_mounted(place):
        return
    if os.geteuid() == 0:
        try:
            umount2(str(place))
        except OSError:
            umount2(str(place), MNT_DETACH)
    elif subprocess.run(["fusermount3", "-u", str(place)], capture_output=True, check=False).returncode:
        subprocess.run(["fusermount3", "-u", "-z", str(place)], capture_output=True, check=False)


def start(argv: list[str], place: Path, log: Path, exits: ExitStack, *, ends_with_mount: bool = True) -> int:
    """Start the server *argv* that mounts at *place*; returns its process id once the mount is there.

    Taking *exits* down unmounts, waits for a server that *ends_with_mount*, and signals one that does not.  Raises
    NotMeasured, with the server's own last words (kept in *log*), if it does not come up.
    """
    with log.open("wb") as sink:
        # A session of its own: Ctrl-C is for the benchmark, which then stops its servers in order.
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
    exits.callback(_stop, process)
    if ends_with_mount:
        exits.callback(wait_ended, process.pid, STOP_TIMEOUT_S)
    exits.callback(unmount, place)
    if not wait_mounted(place, process.pid):
        words = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise NotMeasured(f"{Path(argv[0]).name} did not mount: {words[-1]}")
    return process.pid


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def family(pid: int) -> tuple[int, ...]:
    """*pid* and all its living descendants."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        children.extend(int(word) for word in path.read_text().split())
    return (pid, *(grandchild for child in children for grandchild in family(child)))


def cpu_ns(pids: Iterable[int]) -> int:
    """Nanoseconds of CPU that processes *pids* have used, all their threads together, ended threads included.

    This reads each process's POSIX CPU-time clock (clock_getcpuclockid(3): the complement of the id above three bits
    that select the scheduler's nanosecond count).  /proc/PID/schedstat shows the main thread alone, and the sum over
    /proc/PID/task loses every thread that ends, such as io_uring's workers.  Raises NotMeasured if a process is gone.
    """
    try:
        return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)
    except OSError as error:
        raise NotMeasured("the server died while it was measured") from error
