"""A run of tools/bench from the command line to the table, on stacks that are plain files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orionfs.tools.benchmarks import fio, main, report, rounds, server
from orionfs.tools.benchmarks.suite import Bar, Limit, NotMeasured, Setting, Stack, Suite, Target, Workload
from orionfs.units import KIB, MIB

WORKLOADS = (Workload("read", "1 MiB read", "read", MIB), Workload("rand", "4 KiB read", "randread", 4 * KIB))


def plain(name: str, *, programs: dict[str, str] | None = None, pids: tuple[int, ...] = ()) -> Stack:
    def start(setting: Setting, exits: ExitStack) -> Target:
        file = setting.folder / name
        file.write_bytes(bytes(MIB))
        exits.callback(TAKEN_DOWN.append, name)
        return Target(file, pids)

    return Stack(name, f"stack {name}", start, programs or {})


def broken(name: str) -> Stack:
    def start(setting: Setting, exits: ExitStack) -> Target:
        exits.callback(TAKEN_DOWN.append, name)
        raise NotMeasured("it did not mount: no such luck")

    return Stack(name, f"stack {name}", start)


TAKEN_DOWN: list[str] = []


def a_suite(*stacks: Stack, bars: tuple[Bar, ...] = (), limits: tuple[Limit, ...] = ()) -> Suite:
    return Suite("toy", ("toy conditions",), stacks, WORKLOADS, bars, limits)


@pytest.fixture(autouse=True)
def _instant_fio(monkeypatch):
    """fio answers at once: ``a`` is twice as fast as ``b``, and every call is noted in CALLS."""
    TAKEN_DOWN.clear()
    CALLS.clear()

    def run(argv: list[str], *, timeout_s: float, meanwhile=None) -> fio.Burst:
        if meanwhile is not None:
            meanwhile()
        name = Path(next(word for word in argv if word.startswith("--filename=")).partition("=")[2]).name
        CALLS.append((argv[1].partition("=")[2], name))
        if name == "dies" and "--time_based" in argv:
            raise NotMeasured("fio failed: Input/output error")
        rate = 200.0 if name == "a" else 100.0
        return fio.Burst(rate * MIB, rate, 100, 5.0, 800.0 / rate)

    monkeypatch.setattr(fio, "run", run)


CALLS: list[tuple[str, str]] = []


def test_bars_are_judged_and_everything_is_taken_down():
    bars = (Bar("easy", "read", "a", ("b",), 1.9), Bar("hard", "rand", "a", ("b",), 2.1))
    result = main.measure_suite(a_suite(plain("a"), plain("b"), bars=bars), rounds=7, quick=True)
    assert result.verdicts["easy"].status == "met"
    assert result.verdicts["hard"].status == "SHORT"
    assert not result.met
    assert sorted(TAKEN_DOWN) == ["a", "b"]
    text = report.to_text(result)
    assert "1 of 2 rows met" in text
    assert "2.00" in text


def test_bursts_are_interleaved_and_no_stack_keeps_its_place():
    main.measure_suite(a_suite(plain("a"), plain("b"), plain("c")), rounds=3, quick=True)
    bursts = [call for call in CALLS if call[0] != "prefill"]
    assert [workload for workload, _ in bursts] == (["read"] * 3 + ["rand"] * 3) * 3
    orders = [[name for _, name in bursts[at : at + 3]] for at in range(0, 18, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert {order[0] for order in orders} == {"a", "b", "c"}


def test_every_file_is_written_before_the_first_burst():
    main.measure_suite(a_suite(plain("a"), plain("b")), rounds=1, quick=True)
    assert CALLS[:2] == [("prefill", "a"), ("prefill", "b")]


def test_a_missing_peer_names_its_package_and_its_bar_is_not_met():
    peer = plain("b", programs={"no-such-program": "its-package"})
    bars = (Bar("row", "read", "a", ("b", "c"), 0.1),)
    result = main.measure_suite(a_suite(plain("a"), peer, plain("c"), bars=bars), rounds=7, quick=True)
    assert result.verdicts["row"].status == "not measured"
    assert not result.met
    assert "apt-get install its-package" in report.to_text(result)


def test_a_stack_that_does_not_start_spoils_no_other():
    bars = (Bar("good", "read", "a", ("c",), 1.5), Bar("bad", "read", "b", ("c",), 1.5))
    result = main.measure_suite(a_suite(plain("a"), broken("b"), plain("c"), bars=bars), rounds=7, quick=True)
    assert result.verdicts["good"].status == "met"
    assert result.verdicts["bad"].status == "not measured"
    assert "no such luck" in report.to_text(result)
    assert sorted(TAKEN_DOWN) == ["a", "b", "c"]


def test_a_stack_that_dies_in_a_round_is_left_out_with_all_its_bursts():
    bars = (Bar("good", "read", "a", ("b",), 1.5), Bar("bad", "read", "a", ("dies",), 0.1))
    result = main.measure_suite(a_suite(plain("a"), plain("b"), plain("dies"), bars=bars), rounds=7, quick=True)
    assert result.verdicts["good"].status == "met"
    assert result.verdicts["bad"].status == "not measured"
    assert ("read", "dies") not in result.samples.bursts


def test_limits_are_measured_after_the_rounds_and_judged_by_their_median():
    limits = (
        Limit("fine", "a figure", "ms", 20, "a", lambda target, setting: [1.0, 2.0, 90.0]),
        Limit("not-fine", "a figure", "ms", 20, "a", lambda target, setting: [30.0]),
    )
    result = main.measure_suite(a_suite(plain("a"), limits=limits), rounds=1, quick=True)
    assert result.verdicts["fine"].status == "met"
    assert result.verdicts["not-fine"].status == "SHORT"


def test_a_latency_has_to_stay_within_a_multiple_of_the_peers():
    bars = (
        Bar("good", "read", "a", ("b",), at_most=0.5, metric="median latency"),
        Bar("bad", "read", "b", ("a",), at_most=1.9, metric="median latency"),
        Bar("p99", "read", "b", ("a",), at_most=1.0, metric="p99 latency"),
    )
    result = main.measure_suite(a_suite(plain("a"), plain("b"), bars=bars), rounds=7, quick=True)
    assert [result.verdicts[name].status for name in ("good", "bad", "p99")] == ["met", "SHORT", "met"]
    text = report.to_text(result)
    assert "at most 1.9" in text
    assert "median latency" in text


def test_a_row_for_information_has_a_figure_and_does_not_count():
    bars = (Bar("easy", "read", "a", ("b",), 1.9), Bar("told", "read", "b", ("a",)))
    limits = (Limit("figure", "a figure", "GB/s", None, "a", lambda target, setting: [3.0] * setting.samples),)
    suite = a_suite(plain("a"), plain("b"), bars=bars, limits=limits)
    result = main.measure_suite(suite, rounds=7, quick=True)
    assert result.verdicts["told"].status == "for information"
    assert result.verdicts["told"].figure.median == 0.5
    assert result.verdicts["figure"].figure.count == 7
    assert result.met
    assert "1 of 1 rows met" in report.to_text(result)
    assert [row.name for row in suite.judged_only().rows] == ["easy"]


def test_a_limit_may_be_something_to_reach():
    def limit(name: str, at_least: float) -> Limit:
        return Limit(name, "a figure", "GB/s", None, "a", lambda target, setting: [1.2], at_least)

    suite = a_suite(plain("a"), limits=(limit("reached", 1.2), limit("missed", 1.3)))
    result = main.measure_suite(suite, rounds=1, quick=True)
    assert [verdict.status for verdict in result.verdicts.values()] == ["met", "SHORT"]
    assert "at least 1.3" in report.to_text(result)


def with_company(name: str, *, ended: bool = False) -> Stack:
    class Job:
        def begin(self) -> None:
            STEPS.append("began")

        def rate(self) -> float:
            if ended:
                raise NotMeasured("the job was over before fio was")
            return 50.0

    @contextmanager
    def keep(target: Target):
        STEPS.append("started")
        yield Job()
        STEPS.append("waited for")

    return replace(plain(name), company=keep)


STEPS: list[str] = []


def test_company_goes_on_during_the_burst_and_has_ended_after_it():
    STEPS.clear()
    bars = (Bar("floor", "read", "a", (), at_least=50, metric="company"),)
    result = main.measure_suite(a_suite(with_company("a"), bars=bars), rounds=7, quick=True)
    assert STEPS == ["started", "began", "waited for"] * 14
    assert result.verdicts["floor"].status == "met"
    assert result.verdicts["floor"].figure.median == 50
    assert all(burst.cpu_us is None for bursts in result.samples.bursts.values() for burst in bursts)


def test_company_that_goes_away_early_spoils_the_stack():
    bars = (Bar("floor", "read", "a", (), at_least=1, metric="company"),)
    result = main.measure_suite(a_suite(with_company("a", ended=True), bars=bars), rounds=7, quick=True)
    assert result.verdicts["floor"].status == "not measured"
    assert "over before fio was" in report.to_text(result)


def test_members_on_disk_get_a_folder_there_which_goes_again(tmp_path, monkeypatch):
    folders = []

    def start(setting: Setting, exits: ExitStack) -> Target:
        folders.append(setting.disk)
        (setting.disk / "member").touch()
        return plain("a").start(setting, exits)

    monkeypatch.setattr(main, "read_mounts", list)
    main.measure_suite(a_suite(Stack("a", "a", start, on_disk=True)), rounds=1, quick=True, disk=tmp_path)
    assert folders[0].parent == tmp_path
    assert not folders[0].exists()


def test_memory_is_no_disk_nor_is_a_folder_that_is_not_there(tmp_path):
    suite = a_suite(replace(plain("a"), on_disk=True))
    with pytest.raises(NotMeasured, match="tmpfs, which is no disk"):
        main.measure_suite(suite, rounds=1, quick=True, disk=Path("/dev/shm"))
    with pytest.raises(NotMeasured, match="no folder to write in"):
        main.measure_suite(suite, rounds=1, quick=True, disk=tmp_path / "no")


def test_json_carries_every_sample_the_versions_and_the_machine():
    bars = (Bar("easy", "read", "a", ("b",), 1.9),)
    result = main.measure_suite(a_suite(plain("a"), plain("b"), bars=bars), rounds=7, quick=True)
    value = json.loads(json.dumps(report.to_json(result)))
    assert value["schema"] == "orionfs.bench/1"
    assert value["met"] is True
    assert {"kernel", "python", "pyfuse3", "libfuse", "qemu", "btrfs-progs", "nbdkit", "fio"} <= set(value["versions"])
    assert value["machine"]["cores"] >= 1
    assert all(len(entry["rounds"]) == 7 for entry in value["bursts"])
    assert value["rows"][0]["verdict"]["figure"]["median"] == 2.0


def test_only_the_asked_rows_and_what_they_need_are_measured():
    bars = (Bar("one", "read", "a", ("b",), 1.0), Bar("two", "rand", "c", ("b",), 1.0))
    suite = a_suite(plain("a"), plain("b"), plain("c"), bars=bars).only(["one"])
    assert [stack.name for stack in suite.stacks] == ["a", "b"]
    assert [workload.name for workload in suite.workloads] == ["read"]
    with pytest.raises(ValueError, match="one, two"):
        a_suite(plain("a"), bars=bars).only(["three"])


def test_every_suite_is_consistent():
    for name in main.SUITES:
        suite = main.load_suite(name)
        assert suite.name == name
        stacks = {stack.name for stack in suite.stacks}
        workloads = {workload.name for workload in suite.workloads}
        assert len({row.name for row in suite.rows}) == len(suite.rows)
        assert all({bar.stack, *bar.peers} <= stacks and bar.workload in workloads for bar in suite.bars)
        assert all(limit.stack in stacks for limit in suite.limits)
        in_company = {stack.name for stack in suite.stacks if stack.company is not None}
        assert all(bar.stack in in_company for bar in suite.bars if bar.metric == "company")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["no-such-suite"], "invalid choice"),
        (["spine", "--only", "no-such-row"], "its rows are"),
        (["spine", "--rounds", "-1"], "at least 1"),
        (["spine", "--json", "/no/such/folder/x.json"], "folder does not exist"),
    ],
)
def test_a_wrong_command_line_is_status_2_and_a_sentence(argv, words, capsys):
    with pytest.raises(SystemExit) as caught:
        main.run(argv)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_an_interrupt_takes_everything_down_and_restores_the_handlers(monkeypatch):
    def start(setting: Setting, exits: ExitStack) -> Target:
        FOLDERS.append(setting.folder)
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not handled")

    FOLDERS.clear()
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delenv("ORIONFS_RUNTIME_DIR", raising=False)
    with pytest.raises(KeyboardInterrupt):
        main.measure_suite(a_suite(plain("a"), Stack("stop", "stop", start)), rounds=7, quick=True)
    assert TAKEN_DOWN == ["a"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert not FOLDERS[0].exists()
    assert "ORIONFS_RUNTIME_DIR" not in os.environ


FOLDERS: list[Path] = []


def test_cpu_time_counts_threads_that_have_ended():
    program = "import threading; t = threading.Thread(target=lambda: sum(range(10**7))); t.start(); t.join(); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as process:
        # The end of the burning thread shows in the clock alone: wait for the CPU time of 10**7 additions.
        while server.cpu_ns([process.pid]) < 40_000_000:
            assert not server.wait_ended(process.pid, 0.02)
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) <= 2
        process.communicate(b"\n")
    with pytest.raises(NotMeasured, match="died"):
        server.cpu_ns([process.pid])


@pytest.mark.fuse
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="needs /dev/fuse")
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed")
def test_the_null_filesystem_mounts_serves_zeros_and_goes_away(tmp_path):
    stack = main.load_suite("spine").stacks[-1]
    setting = Setting(folder=tmp_path, size=MIB, burst_ms=10, traffic=0, idle_s=0)
    with ExitStack() as exits:
        target = stack.start(setting, exits)
        assert target.file.stat().st_size == MIB
        with target.file.open("r+b", buffering=0) as file:
            assert file.read(8192) == bytes(8192)
            assert file.write(b"dropped!") == 8
        assert server.is_mounted(tmp_path / "null")
    assert not server.is_mounted(tmp_path / "null")
    assert server.wait_ended(target.pids[0], 0)


def test_a_server_that_does_not_mount_is_quoted_and_stopped(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    with ExitStack() as exits, pytest.raises(NotMeasured, match="sh did not mount: no fuse today"):
        server.start(["sh", "-c", "echo no fuse today >&2"], place, tmp_path / "log", exits)


def test_the_first_missing_program_is_named():
    setting = Setting(folder=Path("/nowhere"), size=MIB, burst_ms=10, traffic=0, idle_s=0)
    assert rounds.missing(plain("a", programs={"sh": "dash"}), setting) == ""
    lacking = plain("a", programs={"no-such-program": "its-package"})
    assert "apt-get install its-package" in rounds.missing(lacking, setting)
    assert "--disk" in rounds.missing(replace(plain("a"), on_disk=True), setting)
