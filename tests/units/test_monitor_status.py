"""The report and what is rendered from it: status text, mdstat, metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.device import Description, Geometry
from orionfs.monitor import mdstat, metrics, status_text
from orionfs.monitor.health import exit_code, narrow
from orionfs.monitor.report import MountFacts, build_report
from orionfs.units import GIB, KIB, MIB

MOUNT = MountFacts(
    mountpoint=Path("/mnt/o"),
    spec=Path("/srv/store/orionfs.toml"),
    pid=4711,
    version="0.1.0",
    started_ns=1_795_196_883_250_000_000,
    now_ns=1_795_197_075_250_000_000,
    gauges={"event_loop_lag_seconds": 0.0025},
)


def member(name: str, state: str = "active", slot: int = 0, **counters: int) -> Description:
    where = f"/srv/store/members/{name}.img"
    return Description("member", name, state, Geometry(GIB), where, (), counters, {"slot": slot})


def array(name: str = "vault", state: str = "clean", **changes: Any) -> Description:
    members = changes.pop("members", [member(f"d{slot}", slot=slot) for slot in range(4)])
    details = {
        "level": "raid5",
        "layout": "left-symmetric",
        "chunk": 64 * KIB,
        "uuid": "7350dcc9:90c64561:a6c3b7b2:88ed6287",
        "slots": "UUUU",
        "dirty": False,
        "degraded": 0,
        "read_only": False,
        "events": 17,
        "why": [],
        "effect": "",
        "next": "",
        "job": None,
        "full_stripe_writes": 5,
        "partial_stripe_writes": 2,
    } | changes
    counters = {"reads": 10, "writes": 7, "read_bytes": 40960, "written_bytes": 28672}
    return Description("array", name, state, Geometry(3 * GIB), "", tuple(members), counters, details)


DEGRADED = array(
    state="degraded",
    slots="UU_U",
    degraded=1,
    why=["d2: there is no file /srv/store/members/d2.img", "redundancy is being proven"],
    effect="readable and writable; no redundancy left",
    job={"kind": "resync", "done": 536870912, "total": GIB, "rate": 182 * MIB, "eta_s": 2.9},
    members=[
        member("d0", slot=0),
        member("d1", slot=1, read_errors=12345, checksum_errors=3),
        member("d2", "missing", slot=2),
        member("a-long-name", slot=3, write_errors=9999),
    ],
)

GOLDEN = """\
mount /mnt/o: degraded   from /srv/store/orionfs.toml   pid 4711   up 3m12s

array vault: DEGRADED   raid5  3 GiB usable  chunk 64 KiB  left-symmetric  [UU_U]
  why:    d2: there is no file /srv/store/members/d2.img
          redundancy is being proven
  effect: readable and writable; no redundancy left
  next:   bring d2 back, then  orionctl array stop vault  and  orionctl array assemble vault
  job:    resync  ━━━━━━━━━━──────────  50.0%  512 MiB of 1 GiB  182 MiB/s  ETA 2s
  MEMBER       STATE     READ WRITE CKSUM  WHERE
  d0           active       0     0     0  /srv/store/members/d0.img
  d1           active     12K     0     3  /srv/store/members/d1.img
  d2           missing      0     0     0  /srv/store/members/d2.img
  a-long-name  active       0  9999     0  /srv/store/members/a-long-name.img
"""


def report_of(*arrays: Description) -> dict[str, Any]:
    return build_report(MOUNT, arrays)


def test_a_degraded_array_says_why_what_it_means_and_what_to_do():
    assert status_text.render(report_of(DEGRADED)) == GOLDEN


def test_colors_change_nothing_but_colors():
    text = status_text.render(report_of(DEGRADED, array("other")), color=True)
    assert "\x1b[33mDEGRADED\x1b[0m" in text
    assert "\x1b[31mmissing\x1b[0m" in text
    assert "\x1b[32mCLEAN\x1b[0m" in text
    assert re.sub(r"\x1b\[\d+m", "", text) == status_text.render(report_of(DEGRADED, array("other")))


def test_a_healthy_array_takes_few_lines():
    text = status_text.render(report_of(array()))
    assert "array vault: CLEAN   raid5  3 GiB usable  chunk 64 KiB  left-symmetric  [UUUU]\n  MEMBER" in text


def test_several_mounts_follow_each_other():
    report = report_of(array())
    both = {**report, "mounts": report["mounts"] * 2}
    assert status_text.render(both).count("mount /mnt/o: healthy") == 2


def test_a_mount_without_arrays_says_so():
    assert status_text.render(report_of()).endswith("\nno arrays\n")


def test_read_only_is_shown():
    assert "[UUUU]  read-only\n" in status_text.render(report_of(array(read_only=True)))


def test_names_cannot_move_the_cursor():
    text = status_text.render(report_of(array("a\x1b[2J", members=[member("\r\nx")], why=["\x07bell"])))
    assert "\x1b" not in text
    assert "a?[2J" in text
    assert "??x" in text
    assert "?bell" in text


@pytest.mark.parametrize(
    ("states", "state", "code"),
    [
        ([], "healthy", 0),
        (["clean"], "healthy", 0),
        (["active"], "healthy", 0),
        (["clean", "resyncing"], "degraded", 1),
        (["degraded", "clean"], "degraded", 1),
        (["degraded", "failed", "clean"], "failed", 4),
    ],
)
def test_the_state_of_a_mount_is_that_of_its_worst_array(states: list[str], state: str, code: int):
    report = report_of(*(array(f"a{number}", state) for number, state in enumerate(states)))
    assert report["mounts"][0]["state"] == state
    assert report["mounts"][0]["exit_code"] == exit_code(report) == code


def test_a_report_narrowed_to_one_array_is_judged_by_that_one():
    report = report_of(DEGRADED, array("good"))
    narrowed = narrow(report, "good")
    assert [entry["name"] for entry in narrowed["mounts"][0]["arrays"]] == ["good"]
    assert exit_code(narrowed) == 0
    assert narrow(report, "/mnt/o") == report


def test_a_report_is_json_with_a_schema_and_keeps_what_it_does_not_know():
    report = json.loads(json.dumps(report_of(array(suspect_units=4))))
    assert report["schema"] == "orionfs.status/1"
    mount = report["mounts"][0]
    assert mount["started"] == "2026-11-20T17:48:03.250Z"
    assert mount["uptime_s"] == 192
    vault = mount["arrays"][0]
    assert vault["size"] == 3 * GIB
    assert vault["details"] == {"events": 17, "full_stripe_writes": 5, "partial_stripe_writes": 2, "suspect_units": 4}
    assert vault["members"][1]["slot"] == 1


def test_devices_that_are_no_arrays_are_not_reported():
    assert report_of(Description("file", "d0", "active", Geometry(GIB)))["mounts"][0]["arrays"] == []


def test_errors_that_nothing_else_explains_are_explained():
    vault = report_of(array(members=[member("d0", read_errors=1), member("d1", slot=1)]))["mounts"][0]["arrays"][0]
    assert vault["why"] == ["member d0 returned errors that the array could mend or refuse"]
    assert vault["next"] == "orionctl events --mount /mnt/o  ; then  orionctl array clear vault"


def test_the_arrays_own_advice_comes_first():
    vault = report_of(array(state="degraded", next="wait"))["mounts"][0]["arrays"][0]
    assert vault["next"] == "wait"


def test_a_failed_array_without_advice_gets_some():
    vault = report_of(array(state="failed", members=[member("d0", "failed")]))["mounts"][0]["arrays"][0]
    assert "orionctl events --mount /mnt/o" in vault["next"]


def test_an_array_as_a_member_is_named():
    inner = array("left")
    outer = Description("member", "left", "active", Geometry(GIB), "", (inner,), {}, {"slot": 0})
    shown = report_of(array("both", members=[outer]))["mounts"][0]["arrays"][0]["members"][0]
    assert (shown["kind"], shown["where"]) == ("array", "array left")


NEXT_COMMANDS = re.compile(r"orionctl (\w+)")


@pytest.mark.parametrize("state", ["clean", "degraded", "failed", "resyncing", "rebuilding"])
@pytest.mark.parametrize("member_state", ["active", "missing", "failed", "stale", "replaced"])
def test_every_command_that_is_advised_exists(state: str, member_state: str):
    from orionfs.tools.orionctl.main import COMMANDS

    vault = report_of(array(state=state, members=[member("d0", member_state, write_errors=1)]))["mounts"][0]["arrays"][
        0
    ]
    assert set(NEXT_COMMANDS.findall(vault["next"])) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("share", "bar"), [(0, "─" * 20), (1, "━" * 20), (0.5, "━" * 10 + "─" * 10), (0.026, "╸" + "─" * 19)]
)
def test_a_bar_is_as_long_as_the_share(share: float, bar: str):
    assert status_text.bar(share) == bar


@given(done=st.integers(0, 2**60), total=st.integers(0, 2**60), rate=st.none() | st.floats(0, 1e12))
def test_any_job_is_one_line(done: int, total: int, rate: float | None):
    line = status_text.job_line({"kind": "resync", "done": done, "total": total, "rate": rate, "eta_s": None})
    assert "\n" not in line
    assert line.count("━") + line.count("╸") + line.count("─") == 20


@given(st.integers(0, 10**20))
def test_a_counter_fits_its_column(number: int):
    text = status_text.render(report_of(array(members=[member("d0", read_errors=number)])))
    header, row = text.splitlines()[-2:]
    column = header.index("READ")
    shown = row[column : column + 4].strip()
    assert row[column - 1] == row[column + 4] == " "
    assert re.fullmatch(r"\d{1,4}|\d{1,3}[KMGTP]|many", shown)
    assert number >= 10_000 or int(shown) == number


# --- redundancy ------------------------------------------------------------------------------------------------------

SCRUB = {
    "kind": "check",
    "finished": True,
    "checked": GIB,
    "mismatches": 5,
    "repaired": 0,
    "by_rule": 0,
    "unreadable": 1,
    "places": [
        {"offset": 65536 * place, "length": 4096, "members": [f"d{place}"], "repaired": False, "by_rule": False}
        for place in range(5)
    ],
}
JOB = {
    "kind": "recovery",
    "state": "running",
    "member": "s0",
    "done": GIB // 4,
    "total": GIB,
    "rate": 64 * MIB,
    "eta_s": 12.0,
    "waiting": "",
}
WHOLE = array(
    level="raid6",
    state="rebuilding",
    slots="UU_UU",
    degraded=1,
    consistency="journal",
    bitmap={"chunk": 64 * MIB, "chunks": 16, "dirty_chunks": 3},
    policies={"read_policy": "adaptive"},
    job=JOB,
    jobs=[{"kind": "check", "state": "queued", "member": "", "done": 0, "total": 0, "rate": 0, "eta_s": None}],
    scrub=SCRUB,
    spares=1,
    members=[
        member("d0"),
        member("d1", slot=1),
        member("s0", "rebuilding", slot=2),
        member("d3", slot=3),
        member("d4", slot=4),
        member("s1", "spare", slot=-1),
        member("d2", "failed", slot=2),
    ],
)
FREE = [
    {"name": "s8", "state": "idle", "serves": ["vault", "m"], "size": GIB, "why": ""},
    {"name": "s9", "state": "unavailable", "serves": ["vault"], "size": 0, "why": "there is no file /srv/s9"},
]

WHOLE_TEXT = """\
array vault: REBUILDING   raid6  3 GiB usable  chunk 64 KiB  left-symmetric  [UU_UU]  journal  bitmap
  next:   orionctl array remove vault d2
  job:    recovery of s0  ━━━━━───────────────  25.0%  256 MiB of 1 GiB  64 MiB/s  ETA 12s
  queue:  check
  scrub:  check done, 1 GiB of each member: 5 mismatches, 0 repaired, 1 stripes could not be compared
          4 KiB at 0 of d0: not repaired
          4 KiB at 65536 of d1: not repaired
          4 KiB at 131072 of d2: not repaired
          and 2 more
  MEMBER  STATE     READ WRITE CKSUM  WHERE
  d0      active       0     0     0  /srv/store/members/d0.img
  d1      active       0     0     0  /srv/store/members/d1.img
  s0      rebuilding     0     0     0  /srv/store/members/s0.img
  d3      active       0     0     0  /srv/store/members/d3.img
  d4      active       0     0     0  /srv/store/members/d4.img
  s1      spare        0     0     0  /srv/store/members/s1.img
  d2      failed       0     0     0  /srv/store/members/d2.img

SPARE  STATE        FOR
s8     idle         vault, m
s9     unavailable  vault: there is no file /srv/s9
"""


def test_jobs_scrubs_and_spares_are_in_the_status():
    text = status_text.render(build_report(MOUNT, [WHOLE], FREE))
    shown = text.split("\n\n", 1)[1]
    assert re.sub(r" {2,}", "  ", shown) == re.sub(r" {2,}", "  ", WHOLE_TEXT)
    header, first = (line for line in shown.splitlines() if line.startswith(("  MEMBER", "  s0")))
    assert first[header.index("READ") + 3] == "0"


def test_what_the_configuration_calls_a_level_comes_first():
    assert "CLEAN   raid50  3 GiB" in status_text.render(report_of(array(level="raid0", declared_level="raid50")))


def test_a_stopped_array_is_neither_good_nor_bad():
    stopped = Description(
        "array", "vault", "stopped", Geometry(0), details={"level": "raid5", "why": ["it was stopped"]}
    )
    report = report_of(stopped)
    assert report["mounts"][0]["state"] == "healthy"
    text = status_text.render(report)
    assert "array vault: STOPPED" in text
    assert "MEMBER" not in text
    assert "vault" not in mdstat.render(report)
    assert 'state="stopped"} 1' in metrics.render(report)


def test_a_member_that_is_read_last_is_marked():
    slow = member("m1", slot=1)
    slow = Description(**{**vars_of(slow), "details": {"slot": 1, "write_mostly": True}})
    report = report_of(array(level="raid1", chunk=0, slots="UU", members=[member("m0"), slow]))
    assert re.search(r"m1 +active, write-mostly", status_text.render(report))
    assert "m1[1](W) m0[0]\n" in mdstat.render(report)


def vars_of(description: Description) -> dict[str, Any]:
    return {name: getattr(description, name) for name in Description.__slots__}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({"members": ["d1"], "repaired": True, "by_rule": False}, "4 KiB at 512 of d1: repaired"),
        ({"members": ["d1"], "repaired": True, "by_rule": True}, "4 KiB at 512 of d1: repaired by the level's rule"),
        ({"members": [], "repaired": False, "by_rule": False}, "of some member, nobody can tell which: not repaired"),
    ],
)
def test_a_place_says_whose_fault_it_was(place: dict[str, Any], text: str):
    assert text in status_text.place_line({"offset": 512, "length": 4096, **place})


@pytest.mark.parametrize("state", ["running", "paused", "waiting"])
def test_a_job_says_whether_it_runs(state: str):
    line = status_text.job_line({**JOB, "state": state, "waiting": "no space"})
    assert ("64 MiB/s" in line) == (state == "running")
    assert state == "running" or state in line
    assert line.endswith("no space")


# --- mdstat ----------------------------------------------------------------------------------------------------------

MDSTAT = """\
Personalities : [linear] [raid0] [raid1] [raid6] [raid5] [raid4] [raid10]
vault : active raid5 a-long-name[3] d1[1] d0[0]
      3145728 blocks super 1.2 level 5, 64k chunk, algorithm 2 [4/3] [UU_U]
      [==========>..........]  resync = 50.0% (524288/1048576) finish=0.0min speed=186368K/sec

fast : active (read-only) raid0 x[0]
      3145728 blocks super 1.2 64k chunks

unused devices: <none>
"""


def test_mdstat_looks_like_the_kernels():
    fast = array("fast", level="raid0", layout="original", slots="U", read_only=True, members=[member("x")])
    assert mdstat.render(report_of(DEGRADED, fast)) == MDSTAT


WHOLE_MDSTAT = """\
vault : active raid6 d2[6](F) s1[5](S) d4[4] d3[3] s0[2] d1[1] d0[0]
      3145728 blocks super 1.2 level 6, 64k chunk, algorithm 2 [5/4] [UU_UU]
      [=====>...............]  recovery = 25.0% (262144/1048576) finish=0.2min speed=65536K/sec
      check=DELAYED
      bitmap: 1/1 pages [4KB], 65536KB chunk

unused devices: s8
"""


def test_mdstat_has_spares_jobs_and_the_bitmap():
    assert mdstat.render(build_report(MOUNT, [WHOLE], FREE)).split("\n", 1)[1] == WHOLE_MDSTAT


@pytest.mark.parametrize(
    ("level", "layout", "shape"),
    [
        ("raid4", "", "level 4, 64k chunk, algorithm 0 [4/4] [UUUU]"),
        ("raid6", "ddf-N-continue", "level 6, 64k chunk, algorithm 10 [4/4] [UUUU]"),
        ("raid10", "n2", "64K chunks 2 near-copies [4/4] [UUUU]"),
        ("raid10", "f3", "64K chunks 3 far-copies [4/4] [UUUU]"),
        ("raid10", "o2", "64K chunks 2 offset-copies [4/4] [UUUU]"),
    ],
)
def test_mdstat_tells_the_geometry_as_the_kernel_does(level: str, layout: str, shape: str):
    assert f"super 1.2 {shape}\n" in mdstat.render(report_of(array(level=level, layout=layout)))


@pytest.mark.parametrize(
    ("job", "line"),
    [
        ({"kind": "check"}, "]  check = 25.0% ("),
        ({"kind": "repair"}, "]  resync = 25.0% ("),
        ({"kind": "replacement", "done": GIB}, "]  recovery =100.0% ("),
        ({"kind": "resync", "done": GIB // 100}, "]  resync =  1.0% ("),
        ({"state": "paused"}, "      recovery=PENDING\n"),
    ],
)
def test_mdstat_calls_jobs_as_the_kernel_does(job: dict[str, Any], line: str):
    assert line in mdstat.render(report_of(array(job={**JOB, **job})))


def test_mdstat_shows_a_replacement_in_the_slot_of_the_member_that_it_copies():
    members = [member("d0"), member("d1", slot=1), member("new", "replacing", slot=1)]
    assert "new[2](R) d1[1] d0[0]" in mdstat.render(report_of(array(members=members)))


def test_mdstat_shows_a_failed_array_as_inactive_and_marks_failed_members():
    text = mdstat.render(report_of(array(state="failed", members=[member("d0", "failed")])))
    assert "vault : inactive raid5 d0[0](F)" in text


# --- metrics ---------------------------------------------------------------------------------------------------------

#: One line of the exposition format: a comment, or a name with labels and a number.
LINE = re.compile(
    r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{[a-z]+="(\\.|[^"\\\n])*"(,[a-z]+="(\\.|[^"\\\n])*")*\} [-+0-9.e]+'
)


def test_metrics_are_prometheus_text_with_each_family_once():
    text = metrics.render(report_of(DEGRADED, array("other")))
    lines = text.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert 'orionfs_array_state{mountpoint="/mnt/o",array="vault",state="degraded"} 1' in lines
    assert 'orionfs_array_state{mountpoint="/mnt/o",array="vault",state="clean"} 0' in lines
    assert 'orionfs_array_written_bytes_total{mountpoint="/mnt/o",array="other"} 28672' in lines
    assert 'orionfs_array_full_stripe_writes_total{mountpoint="/mnt/o",array="vault"} 5' in lines
    assert 'orionfs_member_read_errors_total{mountpoint="/mnt/o",array="vault",member="d1"} 12345' in lines
    assert 'orionfs_member_active{mountpoint="/mnt/o",array="vault",member="d2"} 0' in lines
    assert 'orionfs_job_done_bytes{mountpoint="/mnt/o",array="vault",job="resync"} 536870912' in lines
    assert 'orionfs_event_loop_lag_seconds{mountpoint="/mnt/o"} 0.0025' in lines


def test_metrics_of_redundancy():
    lines = metrics.render(build_report(MOUNT, [WHOLE], FREE)).splitlines()
    mount = 'mountpoint="/mnt/o"'
    for line in (
        f'orionfs_array_state{{{mount},array="vault",state="rebuilding"}} 1',
        f'orionfs_array_spares{{{mount},array="vault"}} 1',
        f"orionfs_shared_spares{{{mount}}} 1",
        f'orionfs_scrub_mismatches{{{mount},array="vault",scrub="check"}} 5',
        f'orionfs_scrub_unreadable{{{mount},array="vault",scrub="check"}} 1',
        f'orionfs_bitmap_dirty_chunks{{{mount},array="vault"}} 3',
        f'orionfs_jobs_queued{{{mount},array="vault"}} 1',
        f'orionfs_job_done_bytes{{{mount},array="vault",job="recovery"}} {GIB // 4}',
        f'orionfs_member_state{{{mount},array="vault",member="s0",state="rebuilding"}} 1',
    ):
        assert line in lines, line
    assert all(LINE.fullmatch(line) for line in lines)


def test_counters_are_called_total_and_are_counters():
    text = metrics.render(report_of(DEGRADED))
    for name, kind in re.findall(r"# TYPE (\w+) (\w+)", text):
        assert (kind == "counter") == name.endswith("_total")


@given(st.text(max_size=20))
def test_any_name_is_a_valid_label(name: str):
    for line in metrics.render(report_of(array(name))).split("\n")[:-1]:
        assert LINE.fullmatch(line)
