"""``tools/bench SUITE``: measure, compare, say which bars are met.

Exit status: 0 if every bar is met, 1 if one falls short or could not be measured, 2 for a wrong command line, 8 if the
benchmark itself cannot run here.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from orionfs.tools.benchmarks import machine, report
from orionfs.tools.benchmarks.rounds import Samples, measure_rounds, start_stacks
from orionfs.tools.benchmarks.suite import Bar, Limit, NotMeasured, Setting, Suite, Target
from orionfs.tools.benchmarks.verdict import (
    ROUNDS_FOR_A_VERDICT,
    Status,
    Verdict,
    judge_limit,
    judge_ratio,
)
from orionfs.tools.mountinfo import mount_of, read_mounts
from orionfs.units import GIB, MIB, format_size

#: Suites are named after what they measure; the module of the same name has it as SUITE.
SUITES = ("spine", "raid")

#: A tmpfs on every Linux, and writable by everybody.
MEMORY = Path("/dev/shm")
#: Where members on disk go: a folder that outlives a boot is on a disk almost everywhere.
DISK = Path("/var/tmp")
#: Filesystems that are no disk.
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})

DEFAULT_ROUNDS = 9


def load_suite(name: str) -> Suite:
    """The suite *name*, one of SUITES."""
    suite: Suite = importlib.import_module(f"orionfs.tools.benchmarks.{name}").SUITE
    return suite


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="tools/bench",
        description="Measure OrionFS beside its peers on this machine, interleaved; exit 1 when a bar falls short.",
    )
    parse.add_argument("suite", choices=SUITES, metavar="SUITE", help=f"what to measure: {', '.join(SUITES)}")
    parse.add_argument("--quick", action="store_true", help="shorter bursts, and only what the bars compare")
    parse.add_argument("--json", type=Path, metavar="FILE", help="write every sample and verdict to FILE")
    parse.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"rounds (default {DEFAULT_ROUNDS}, {ROUNDS_FOR_A_VERDICT} with --quick); "
        f"below {ROUNDS_FOR_A_VERDICT} there is no verdict",
    )
    parse.add_argument(
        "--disk", type=Path, metavar="DIR", default=DISK, help=f"folder for members on disk (default {DISK})"
    )
    parse.add_argument("--only", action="append", metavar="ROW", help="only this row (may be repeated)")
    parse.add_argument("--list", action="store_true", help="print the rows of the suite and end")
    return parse


def run(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parse = parser()
    arguments = parse.parse_args(argv)
    suite = load_suite(arguments.suite)
    if arguments.list:
        _print("".join(f"{row.name}\n" for row in suite.rows))
        return 0
    if arguments.only:
        try:
            suite = suite.only(arguments.only)
        except ValueError as error:
            parse.error(str(error))
    elif arguments.quick:
        suite = suite.judged_only()
    rounds = arguments.rounds or (ROUNDS_FOR_A_VERDICT if arguments.quick else DEFAULT_ROUNDS)
    if rounds < 1:
        parse.error(f"--rounds {rounds}: give at least 1")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parse.error(f"--json {arguments.json}: the folder does not exist")
    if shutil.which("fio") is None:
        print("tools/bench: fio is not installed: apt-get install fio", file=sys.stderr)
        return 8
    try:
        result = measure_suite(suite, rounds=rounds, quick=arguments.quick, disk=arguments.disk)
    except NotMeasured as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        return 8
    except KeyboardInterrupt:
        print("tools/bench: interrupted; everything is unmounted and stopped", file=sys.stderr)
        return 130
    if arguments.json:
        arguments.json.write_text(json.dumps(report.to_json(result), indent=2) + "\n")
    _print(report.to_text(result))
    return 0 if result.met else 1


def measure_suite(suite: Suite, *, rounds: int, quick: bool, disk: Path = DISK) -> report.Result:
    """Run *suite* and take everything down again, also on an error or a signal.

    Raises NotMeasured if there is no memory to run in, or if *disk* is needed and cannot be used.
    """
    samples = Samples()
    with ExitStack() as exits:
        _interrupt_once(exits)
        folder = _own_folder(MEMORY, exits)
        # Our mounts register here, not among the user's.
        exits.enter_context(_variable("ORIONFS_RUNTIME_DIR", str(folder / "run")))
        setting = Setting(
            folder=folder,
            size=256 * MIB if quick else 512 * MIB,
            burst_ms=350 if quick else 700,
            traffic=1 * GIB if quick else 10 * GIB,
            idle_s=3.0 if quick else 10.0,
            samples=rounds,
            disk=_own_folder(_checked_disk(disk), exits) if any(stack.on_disk for stack in suite.stacks) else None,
        )
        _check_memory(suite, setting)
        targets = start_stacks(suite, setting, exits, samples, _tell)
        measure_rounds(suite, setting, targets, rounds, samples, _tell)
        verdicts = {bar.name: judge_bar(bar, suite, samples) for bar in suite.bars}
        for limit in suite.limits:
            _tell(limit.title)
            verdicts[limit.name] = measure_limit(limit, setting, targets, samples)
        _tell("stopping")
    _tell("")
    run = {
        "rounds": rounds,
        "quick": quick,
        "size": setting.size,
        "burst_ms": setting.burst_ms,
        "traffic": setting.traffic,
        "idle_s": setting.idle_s,
    }
    return report.Result(suite, samples, verdicts, machine.versions(), machine.machine(), run)


def judge_bar(bar: Bar, suite: Suite, samples: Samples) -> Verdict:
    """The verdict on *bar*.  If a peer is missing the row is not measured: the better one might be the missing one."""
    for name in (bar.stack, *bar.peers):
        if name in samples.failed:
            return Verdict(Status.NOT_MEASURED, None, reason=f"{name}: {samples.failed[name]}")
    workload = next(workload for workload in suite.workloads if workload.name == bar.workload)
    peers = {peer: samples.figures(workload, peer, bar.metric) for peer in bar.peers}
    ours = samples.figures(workload, bar.stack, bar.metric)
    return judge_ratio(ours, peers, bar.at_least, bar.at_most, lower=bar.metric in ("median latency", "p99 latency"))


def measure_limit(limit: Limit, setting: Setting, targets: dict[str, Target], samples: Samples) -> Verdict:
    """Measure and judge *limit*."""
    if limit.stack in samples.failed:
        return Verdict(Status.NOT_MEASURED, None, reason=f"{limit.stack}: {samples.failed[limit.stack]}")
    try:
        return judge_limit(limit.measure(targets[limit.stack], setting), limit.below, limit.at_least)
    except NotMeasured as error:
        return Verdict(Status.NOT_MEASURED, None, reason=str(error))


def _own_folder(where: Path, exits: ExitStack) -> Path:
    """A new folder in *where*, which goes when *exits* is taken down."""
    folder = Path(tempfile.mkdtemp(prefix="orionfs-bench-", dir=where)).resolve()
    exits.callback(shutil.rmtree, folder)
    return folder


def _checked_disk(disk: Path) -> Path:
    """*disk*, if members there are on a disk.  Raises NotMeasured if not."""
    if not os.access(disk, os.W_OK | os.X_OK) or not disk.is_dir():
        raise NotMeasured(f"{disk} is no folder to write in: name one on a disk with --disk")
    mount = mount_of(read_mounts(), str(disk.resolve()))
    if mount is not None and mount.type in _IN_MEMORY:
        raise NotMeasured(f"{disk} is on {mount.type}, which is no disk: name another folder with --disk")
    return disk


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set the environment variable *name* for this process and its children."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _interrupt_once(exits: ExitStack) -> None:
    """A signal to end ends the measurement once; while things are taken down, further ones are ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        exits.callback(signal.signal, number, signal.signal(number, interrupt))


def _check_memory(suite: Suite, setting: Setting) -> None:
    # btrfs may fill its members before it frees what was overwritten: three times the file.
    in_memory = [stack for stack in suite.stacks if not stack.on_disk]
    needed = sum(3 if stack.name.startswith("btrfs") else 2 for stack in in_memory) * setting.size
    free = shutil.disk_usage(setting.folder).free
    available = _available_memory()
    if min(free, available) < needed:
        raise NotMeasured(
            f"{MEMORY} and memory have {format_size(min(free, available))} left and the suite may need "
            f"{format_size(needed)}: free some, use --quick, or choose rows with --only"
        )


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise NotMeasured("/proc/meminfo has no MemAvailable")


def _print(text: str) -> None:
    """Write *text* to standard output.  Everything is down by now, so a reader that has gone may end this."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.write(text)
    sys.stdout.flush()


def _tell(what: str) -> None:
    """One line on a terminal that says what is going on, and nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
