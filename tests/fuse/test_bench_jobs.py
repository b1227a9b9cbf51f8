"""What tools/bench asks of a mounted array: jobs that run alone and beside requests, and what an array counts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from orionfs.tools.benchmarks import fio
from orionfs.tools.benchmarks.jobs import Array, company, rates
from orionfs.tools.benchmarks.orion import BARE, Shape, orion
from orionfs.tools.benchmarks.stripes import reads_of_whole_stripes
from orionfs.tools.benchmarks.suite import NotMeasured, Setting, Target, Workload
from orionfs.units import KIB, MIB

pytestmark = pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")

SHAPE = Shape("raid5", 4, spares=1)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setenv("ORIONFS_RUNTIME_DIR", str(tmp_path / "run"))
    return Setting(folder=tmp_path, size=24 * MIB, burst_ms=100, traffic=0, idle_s=0, samples=2)


@pytest.fixture
def target(setting: Setting) -> Iterator[Target]:
    with ExitStack() as exits:
        target = orion("array", SHAPE).start(setting, exits)
        prefill = Workload("prefill", "", "write", MIB)
        fio.run(fio.command(prefill, target.file, size=setting.size, seed=0), timeout_s=60)
        yield target


def test_a_rebuild_is_timed_as_often_as_asked_and_leaves_a_spare_for_the_next(setting, target):
    assert len(rates("rebuild")(target, setting)) == 2
    status = Array(target).status()
    assert status["degraded"] == 0
    assert sorted(member["state"] for member in status["members"]) == ["active"] * 4 + ["spare"]


def test_a_scrub_is_timed_and_moves_all_members(setting, target):
    before = Array(target).moved()
    assert min(rates("scrub")(target, replace(setting, samples=1))) > 0
    assert Array(target).moved() - before >= setting.size * 4 // 3


def test_whole_stripes_are_counted(setting, target):
    assert list(reads_of_whole_stripes(SHAPE)(target, setting)) == [0]


@pytest.mark.parametrize("kind", ["scrub", "rebuild"])
def test_company_begins_when_the_requests_have_begun(setting, target, kind):
    workload = Workload("reads", "", "randread", 4 * KIB)
    argv = fio.command(workload, target.file, size=setting.size, seed=0, burst_ms=setting.burst_ms)
    with company(kind)(target) as job:
        assert Array(target).status()["job"]["state"] == "paused"
        fio.run(argv, timeout_s=60, meanwhile=job.begin)
    assert Array(target).status()["job"] is None


def test_company_that_has_ended_is_no_measurement(setting, target):
    argv = fio.command(Workload("reads", "", "randread", 4 * KIB), target.file, size=setting.size, seed=0, burst_ms=100)
    with company("scrub")(target) as job:
        since = Array(target).last_event()
        fio.run(argv, timeout_s=60, meanwhile=job.begin)
        Array(target).wait_for("check.finished", since)
        with pytest.raises(NotMeasured, match="needs more data"):
            job.rate()


def test_an_array_that_is_not_what_it_should_be_is_not_measured(setting, monkeypatch):
    monkeypatch.setattr(Shape, "protection", ("journal", True))
    with ExitStack() as exits, pytest.raises(NotMeasured, match="should be"):
        orion("bare", Shape("raid5", 4, BARE)).start(setting, exits)
