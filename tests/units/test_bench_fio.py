"""How tools/bench calls fio, and what it makes of the answer."""

import shutil
from pathlib import Path

import pytest

from orionfs.tools.benchmarks import fio
from orionfs.tools.benchmarks.suite import NotMeasured, Workload
from orionfs.units import KIB, MIB

READ = Workload("read-1m", "1 MiB direct read", "read", MIB)
RANDOM = Workload("randread", "4 KiB random read, QD 16", "randread", 4 * KIB, 16)

needs_fio = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")


def job(*, error: int = 0, reads: int = 0, writes: int = 0) -> dict[str, object]:
    def side(operations: int) -> dict[str, object]:
        percentiles = {"50.000000": 4000, "99.000000": 7000}
        latency = {"max": 9000, "percentile": percentiles} if operations else {"max": 0}
        return {"total_ios": operations, "bw_bytes": operations * 4096, "iops": float(operations), "clat_ns": latency}

    return {"jobs": [{"error": error, "read": side(reads), "write": side(writes)}]}


def test_every_call_is_direct_and_may_not_make_its_file():
    argv = fio.command(READ, Path("/m/disk"), size=MIB, seed=3, burst_ms=700)
    assert {"--direct=1", "--allow_file_create=0", "--runtime=700ms", "--time_based", "--randseed=3"} <= set(argv)


def test_a_queue_needs_an_asynchronous_engine_and_a_single_request_does_not():
    assert "--ioengine=libaio" in fio.command(RANDOM, Path("f"), size=MIB, seed=0, burst_ms=1)
    assert "--ioengine=psync" in fio.command(READ, Path("f"), size=MIB, seed=0, burst_ms=1)


def test_what_does_not_count_and_what_is_synced_is_said_to_fio():
    workload = Workload("sync", "", "randwrite", 4 * KIB, sync_every=32, ramp_ms=200)
    argv = fio.command(workload, Path("f"), size=MIB, seed=0, burst_ms=350)
    assert {"--fdatasync=32", "--ramp_time=200ms", "--runtime=350ms"} <= set(argv)
    assert not {word for word in fio.command(READ, Path("f"), size=MIB, seed=0, burst_ms=1) if "ramp" in word}


def test_a_job_that_passes_over_the_file_leaves_nothing_to_be_written_back():
    assert "--end_fsync=1" in fio.command(READ, Path("f"), size=MIB, seed=0)


def test_the_side_that_did_something_is_the_burst():
    burst = fio.parse(job(writes=50))
    assert (burst.operations, burst.bytes_per_second) == (50, 50 * 4096)
    assert (burst.median_us, burst.p99_us) == (4.0, 7.0)
    assert fio.parse(job(reads=9)).operations == 9


def test_a_job_that_failed_or_did_nothing_is_no_measurement():
    with pytest.raises(ValueError, match="error 5"):
        fio.parse(job(error=5, reads=10))
    with pytest.raises(ValueError, match="no request"):
        fio.parse(job())


@needs_fio
def test_a_real_burst_runs_over_a_file(tmp_path):
    file = tmp_path / "disk"
    file.write_bytes(bytes(MIB))
    argv = fio.command(RANDOM, file, size=MIB, seed=1, burst_ms=30)
    burst = fio.run([word for word in argv if word != "--direct=1"], timeout_s=30)
    assert burst.operations > 0
    assert burst.operations_per_second > 0


@needs_fio
def test_what_is_done_meanwhile_need_not_wait_for_the_end_and_may_be_the_end(tmp_path):
    file = tmp_path / "disk"
    file.write_bytes(bytes(MIB))
    argv = [word for word in fio.command(RANDOM, file, size=MIB, seed=1, burst_ms=600_000) if word != "--direct=1"]

    def give_up() -> None:
        raise NotMeasured("the job does not begin")

    with pytest.raises(NotMeasured, match="does not begin"):
        fio.run(argv, timeout_s=30, meanwhile=give_up)


@needs_fio
def test_a_file_that_is_not_there_is_said_in_one_line_and_not_made(tmp_path):
    argv = fio.command(READ, tmp_path / "gone", size=MIB, seed=1, burst_ms=30)
    with pytest.raises(NotMeasured, match=r"fio failed: .*allow_file_create") as caught:
        fio.run(argv, timeout_s=30)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "gone").exists()


def test_a_file_that_hangs_does_not_hang_the_benchmark(tmp_path):
    program = tmp_path / "fio"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(NotMeasured, match="hangs"):
        fio.run([str(program)], timeout_s=0.2)
