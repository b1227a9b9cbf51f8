"""orionctl array and spare: what the words of a command ask of the daemon, and how its answers are told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionfs.config.load import load_spec
from orionfs.device import Description, Geometry
from orionfs.errors import UsageError
from orionfs.tools.orionctl import array, spare
from orionfs.tools.orionctl.devices import label_of, member_name
from orionfs.tools.orionctl.main import run
from orionfs.units import GIB, MIB
from tests.units.control_kit import Daemon

HEAVY = ("trio", "pyfuse3", "numpy", "lz4", "cryptography", "tomlkit")


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A mount at tmp_path/m with the array vault; the configuration is tmp_path/m.toml, commands run in tmp_path."""
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    with Daemon(tmp_path / "m", arrays={"vault": "clean"}) as daemon:
        yield daemon


@pytest.fixture
def orionctl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``orionctl("array", "list")`` is (exit status, standard output, standard error)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# --- words and requests ----------------------------------------------------------------------------------------------

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "array assemble vault --force": ("array.assemble", {"array": "vault", "force": True}),
    "array stop vault -y": ("array.stop", {"array": "vault", "force": False, "forget": False}),
    "array stop m/arrays/vault -y --forget": ("array.stop", {"array": "vault", "force": False, "forget": True}),
    "array add vault members/n.img /dev/sdz": (
        "array.add",
        {"array": "vault", "devices": ["members/n.img", "/dev/sdz"], "force": False},
    ),
    "array fail vault 2 --yes": ("array.fail", {"array": "vault", "member": "2"}),
    "array fail vault d2.img --dry-run": ("array.fail", {"array": "vault", "member": "d2.img", "dry_run": True}),
    "array remove vault members/d2.img -y": ("array.remove", {"array": "vault", "member": "members/d2.img"}),
    "array replace vault d2.img -y": ("array.replace", {"array": "vault", "member": "d2.img", "force": False}),
    "array replace vault d2.img n.img -y --force": (
        "array.replace",
        {"array": "vault", "member": "d2.img", "by": "n.img", "force": True},
    ),
    "array re-add vault d2.img": ("array.readd", {"array": "vault", "member": "d2.img"}),
    "array clear vault": ("array.clear", {"array": "vault", "member": ""}),
    "array clear vault d1": ("array.clear", {"array": "vault", "member": "d1"}),
    "array check vault": ("array.scrub", {"array": "vault", "kind": "check"}),
    "array repair vault": ("array.scrub", {"array": "vault", "kind": "repair"}),
    "array pause vault": ("array.pause", {"array": "vault"}),
    "array resume vault": ("array.resume", {"array": "vault"}),
    "array cancel vault": ("array.cancel", {"array": "vault"}),
    "array set vault read_policy=nearest stripe_cache=1M": (
        "array.set",
        {"array": "vault", "policies": ["read_policy=nearest", "stripe_cache=1M"]},
    ),
    "spare add s0.img s1.img": ("spare.add", {"devices": ["s0.img", "s1.img"]}),
    "spare remove s0.img -y": ("spare.remove", {"device": "s0.img"}),
}


@pytest.mark.parametrize("words", ASKED)
def test_words_become_a_request(orionctl, mount: Daemon, words: str):
    verb, expected = ASKED[words]
    code, out, err = orionctl(*words.split())
    assert (code, err) == (0, "")
    assert mount.asked == [(verb, {"dry_run": False, **expected})]
    assert f"{verb} done" in out
    assert ("would be done: " in out) == (expected.get("dry_run") is True)


@pytest.mark.parametrize("words", ASKED)
def test_every_answer_is_json_too(orionctl, mount: Daemon, words: str):
    code, out, err = orionctl(*words.split(), "--json")
    assert (code, err) == (0, "")
    noun, verb = words.split()[:2]
    assert json.loads(out)["schema"] == f"orionfs.{noun}.{ASKED[words][0].partition('.')[2].replace('scrub', verb)}/1"


def test_what_comes_next_is_told(orionctl, mount: Daemon):
    assert orionctl("array", "fail", "vault", "0", "-y")[1].endswith("next: orionctl status\n")


def test_every_verb_of_a_noun_was_tried():
    tried = {tuple(words.split()[:2]) for words in ASKED}
    nouns = {("array", verb.name) for verb in array.VERBS} | {("spare", verb.name) for verb in spare.VERBS}
    assert nouns - tried == {("array", "create"), ("array", "list"), ("array", "show"), ("spare", "list")}


@pytest.mark.parametrize("noun", ["array", "spare"])
def test_every_verb_has_help(noun: str, capsys: pytest.CaptureFixture[str]):
    for verb in {"array": array, "spare": spare}[noun].VERBS:
        with pytest.raises(SystemExit) as caught:
            run([noun, verb.name, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: orionctl {noun} {verb.name} ")
        assert "--json" in text
        assert "--mount" in text
        assert verb.help[1:] in " ".join(text.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("array", "the following arguments are required: VERB; see orionctl array --help"),
        ("array burn", "argument VERB: invalid choice: 'burn'"),
        ("array add vault", "the following arguments are required: DEVICE; see orionctl array add --help"),
        ("array create x", "the following arguments are required: MEMBER, --level; see orionctl array create"),
        ("array create x a --level 1 --size big", "argument --size: 'big' is not a size"),
        ("array check vault --progress loud", "argument --progress: invalid choice: 'loud'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(orionctl, words: str, message: str):
    code, out, err = orionctl(*words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"orionctl: {message}")
    assert err.count("\n") == 1


def test_an_array_that_is_nowhere_is_not_found(orionctl, mount: Daemon):
    assert orionctl("array", "fail", "tank", "0", "-y")[0] == 3
    assert mount.asked == []


def test_an_array_of_no_mount_may_have_been_added_by_hand(orionctl, mount: Daemon):
    assert orionctl("array", "assemble", "tank")[0] == 0
    assert mount.asked[0][1]["array"] == "tank"


@pytest.mark.parametrize("words", [words for words in ASKED if "spare" not in words])
def test_without_a_mount_there_is_nobody_to_ask(orionctl, words: str):
    assert orionctl(*words.split())[0] == 6


@pytest.mark.parametrize("words", ["array list", "array show vault", "array check vault", "array fail vault 0 -y"])
def test_no_request_imports_what_is_slow(mount: Daemon, words: str):
    code = f"import sys; from orionfs.tools.orionctl.main import run; status = run({words.split()!r});"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules], status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[] 0\n")


# --- asking before ---------------------------------------------------------------------------------------------------

RISKY = ["array stop vault", "array fail vault 0", "array remove vault 0", "array replace vault 0", "spare remove s"]


class Terminal(io.StringIO):
    """Standard input with somebody at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", RISKY)
def test_what_is_risky_is_not_done_where_nobody_can_be_asked(orionctl, mount: Daemon, words: str):
    code, out, err = orionctl(*words.split())
    assert (code, out) == (5, "")
    assert err.endswith("; say --yes\n")
    assert mount.asked == []


@pytest.mark.parametrize("words", RISKY)
@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("\n", 5), ("no\n", 5), ("", 5)])
def test_somebody_at_a_terminal_is_asked(
    orionctl, mount: Daemon, monkeypatch: pytest.MonkeyPatch, words: str, answer: str, code: int
):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    found, _out, err = orionctl(*words.split())
    assert found == code
    assert "? [y/N] " in err
    assert bool(mount.asked) == (code == 0)


# --- names of devices ------------------------------------------------------------------------------------------------


def test_names_are_relative_to_the_configuration_unless_they_are_only_there_from_here(tmp_path: Path, monkeypatch):
    store, here = tmp_path / "store", tmp_path / "here"
    for folder in (store / "members", here / "members"):
        folder.mkdir(parents=True)
    (store / "members" / "both").touch()
    (here / "members" / "both").touch()
    (here / "mine").touch()
    (store / "theirs").touch()
    os.link(store / "theirs", here / "theirs")
    monkeypatch.chdir(here)
    assert label_of("members/new", store) == "members/new"
    assert label_of("mine", store) == str(here / "mine")
    assert label_of("theirs", store) == "theirs"
    assert label_of("./mine", store) == str(here / "mine")
    assert label_of("../store/theirs", store) == "theirs"
    assert label_of(str(store / "members" / "x"), store) == "members/x"
    assert label_of("/dev/sdb", store) == "/dev/sdb"
    assert label_of("memory:?size=8MiB", store) == "memory:?size=8MiB"
    with pytest.raises(UsageError, match="may be the file in"):
        label_of("members/both", store)
    assert member_name("2", store) == "2"
    assert member_name("../store/theirs", store) == "theirs"


# --- waiting ---------------------------------------------------------------------------------------------------------

JOB = {
    "kind": "check",
    "state": "running",
    "member": "",
    "done": 0,
    "total": GIB,
    "rate": MIB,
    "eta_s": 9.0,
    "waiting": "",
}
FOUND = {
    "kind": "check",
    "finished": True,
    "checked": GIB,
    "mismatches": 0,
    "repaired": 0,
    "by_rule": 0,
    "unreadable": 0,
    "places": [],
}
PLACE = {"offset": 4096, "length": 4096, "members": ["d1"], "repaired": False, "by_rule": False}


def steps(mount: Daemon, *details: dict[str, Any]) -> None:
    """Let each report have the next of *details*."""
    mount.script = [lambda each=each: mount.details.update(each) for each in details]


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ({}, 0, "check done, 1 GiB of each member: 0 mismatches"),
        ({"mismatches": 1, "places": [PLACE]}, 4, "4 KiB at 4096 of d1: not repaired"),
        ({"mismatches": 1, "repaired": 1, "places": [{**PLACE, "repaired": True}]}, 0, "of d1: repaired"),
        ({"unreadable": 1}, 4, "1 stripes could not be compared"),
        ({"finished": False}, 1, "check not finished"),
    ],
)
def test_a_check_is_waited_for_and_its_exit_status_says_what_it_found(orionctl, mount: Daemon, found, code, words):
    steps(mount, {"job": JOB}, {"job": {**JOB, "done": GIB // 2}}, {"job": None, "scrub": {**FOUND, **found}})
    status, out, err = orionctl("array", "check", "vault", "--wait")
    assert status == code
    assert words in out
    assert err == ""
    assert (
        json.loads(orionctl("array", "check", "vault", "--wait", "--json")[1])["scrubs"][0]["scrub"]["kind"] == "check"
    )


def test_a_job_that_waits_for_its_turn_is_waited_for(orionctl, mount: Daemon):
    steps(mount, {"job": None, "jobs": [JOB]}, {"job": JOB, "jobs": []}, {"job": None, "scrub": FOUND})
    assert orionctl("array", "check", "vault", "--wait")[0] == 0
    assert mount.script == []


def test_progress_is_json_for_programs(orionctl, mount: Daemon):
    steps(mount, {"job": JOB}, {"job": {**JOB, "done": GIB // 2}}, {"job": None, "scrub": FOUND})
    lines = orionctl("array", "check", "vault", "--wait", "--progress", "json")[2].splitlines()
    reports = [json.loads(line) for line in lines]
    assert [report["percent"] for report in reports] == [0.0, 50.0]
    assert {report["schema"] for report in reports} == {"orionfs.progress/1"}
    assert reports[0]["array"] == "vault"
    assert reports[0]["kind"] == "check"


def test_progress_is_a_bar_for_people_and_leaves_nothing_behind(orionctl, mount: Daemon):
    steps(mount, {"job": JOB}, {"job": {**JOB, "done": GIB // 2}}, {"job": None, "scrub": FOUND})
    err = orionctl("array", "check", "vault", "--wait", "--progress", "bar")[2]
    assert "\rvault: check  ━━━━━━━━━━──────────  50.0%" in err
    assert err.endswith("\r")
    assert "\n" not in err


def member(name: str, state: str, slot: int) -> Description:
    return Description("member", name, state, Geometry(8 * MIB), f"/srv/{name}", details={"slot": slot})


def test_an_added_member_is_waited_for_until_it_is_in_sync(orionctl, mount: Daemon):
    mount.details["policies"] = {"spare_policy": "auto"}

    def show(*members: Description) -> Callable[[], None]:
        return lambda: setattr(mount, "members", list(members))

    a, n = member("a", "active", 0), "n"
    mount.script = [
        show(a, member("b", "missing", 1), member(n, "spare", -1)),
        show(a, member(n, "rebuilding", 1)),
        show(a, member(n, "active", 1)),
    ]
    assert orionctl("array", "add", "vault", n, "--wait")[0] == 0
    assert mount.script == []
    mount.script = [show(a, member("b", "active", 1), member(n, "spare", -1))]
    assert orionctl("array", "add", "vault", n, "--wait")[0] == 0
    mount.script = [show(a, member(n, "rebuilding", 1)), show(a, member(n, "failed", 1))]
    code, _out, err = orionctl("array", "add", "vault", n, "--wait")
    assert code == 8
    assert "n is failed; orionctl status vault" in err


def test_a_replacement_is_waited_for(orionctl, mount: Daemon):
    mount.script = [
        lambda: setattr(mount, "members", [member("a", "active", 0), member("n", "replacing", 0)]),
        lambda: setattr(mount, "members", [member("n", "active", 0)]),
    ]
    assert orionctl("array", "replace", "vault", "a", "n", "-y", "--wait")[0] == 0
    assert mount.script == []


# --- looking ---------------------------------------------------------------------------------------------------------


def test_arrays_are_listed(orionctl, mount: Daemon):
    mount.details.update(consistency="journal", bitmap={"chunk": 1, "chunks": 1, "dirty_chunks": 0}, job=JOB)
    code, out, _err = orionctl("array", "list")
    assert code == 0
    header, row = out.splitlines()
    assert header.split() == ["NAME", "LEVEL", "STATE", "MEMBERS", "SPARES", "SIZE", "LOG", "JOB"]
    assert row.split() == ["vault", "raid1", "clean", "UU", "0", "7", "MiB", "journal", "check", "0.0%"]
    (entry,) = json.loads(orionctl("array", "list", "--json")[1])["arrays"]
    assert (entry["name"], entry["size"], entry["log"], entry["bitmap"]) == ("vault", 7 * MIB, "journal", True)


def test_an_array_is_shown_in_full(orionctl, mount: Daemon):
    mount.details["policies"] = {"read_policy": "nearest", "stripe_cache": 16 * MIB}
    code, out, _err = orionctl("array", "show", "vault")
    assert code == 0
    assert "read_policy:  nearest" in out
    assert "stripe_cache: 16777216 (16 MiB)" in out


def test_free_spares_are_listed(orionctl, mount: Daemon):
    assert orionctl("spare", "list")[1] == "no spare is free\n"
    mount.spares = [{"name": "s0", "state": "idle", "serves": ["vault"], "size": GIB, "why": ""}]
    assert orionctl("spare", "list")[1].splitlines()[1].split() == ["s0", "idle", "1", "GiB", "vault"]


# --- create ----------------------------------------------------------------------------------------------------------


def test_in_a_mount_the_daemon_makes_it(orionctl, mount: Daemon):
    words = "--level raid6 --chunk 64K --size 1G --spare s0 --spares s1 --consistency journal --no-bitmap --layout x"
    orionctl("array", "create", "six", *words.split(), "--policy", "read_policy=nearest", "d0", "d1", "d2", "d3")
    assert mount.asked == [
        (
            "array.create",
            {
                "name": "six",
                "level": "raid6",
                "members": ["d0", "d1", "d2", "d3"],
                "spares": ["s0", "s1"],
                "write_mostly": [],
                "chunk": 65536,
                "layout": "x",
                "member_size": GIB,
                "consistency": "journal",
                "bitmap": False,
                "policies": ["read_policy=nearest"],
                "dry_run": False,
            },
        )
    ]


def test_a_configuration_that_is_mounted_is_recognised_by_its_path(orionctl, mount: Daemon):
    assert orionctl("array", "create", "m", "a", "b", "--level", "1", "--spec", "m.toml")[0] == 0
    assert len(mount.asked) == 1
    assert (
        "both say which configuration"
        in orionctl("array", "create", "m", "a", "b", "--level", "1", "--spec", "m.toml", "-m", mount.mountpoint)[2]
    )


def test_without_a_mount_a_configuration_is_made_as_by_init(orionctl, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["array", "create", "vault", "--level", "raid6", "--size", "8M", "--spec", "store", "--spare", "members/s"]
    members = [f"members/d{number}" for number in range(4)]
    code, out, err = orionctl(*words, *members, "--dry-run")
    assert (code, err) == (0, "")
    assert "configuration" in out
    assert "would be created" in out
    assert not (tmp_path / "store").exists()
    code, out, err = orionctl(*words, *members)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"configuration {tmp_path}/store/orionfs.toml: created"
    assert out.splitlines()[-1] == "array vault: created"
    (made,) = load_spec(tmp_path / "store").arrays
    assert (made.level, made.members, made.spares) == ("raid6", tuple(members), ("members/s",))
    code, out, err = orionctl("array", "create", "m", "--level", "1", "--size", "8M", "--spec", "store", "x", "y")
    assert (code, err) == (0, "")
    assert [each.name for each in load_spec(tmp_path / "store").arrays] == ["vault", "m"]
    assert orionctl("init", "store")[1] == "array vault: there already\narray m: there already\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--level 9 a b", 'there is no level "9"'),
        ("--level 6 a b --size 8M", "raid6 needs at least 4 members and this one has 2"),
        ("--level 1 a b", "nothing says how large to make it"),
        ("--level 5 a b c --size 8M --chunk 5K", "chunk 5 KiB (5120 bytes) is not a power of two"),
        ("--level 5 a b c --size 8M --consistency ppl --bitmap", "exclude each other"),
        ("--level 50 a b c d e f --size 8M --groups 4", "cannot be divided into 4 groups"),
        ("--level 5 a b c --size 8M --policy speed=1", "there is no policy 'speed'"),
        ("--level 5 a b c --size 8M --policy speed", "speed says nothing"),
        ("--level 5 a b c --size 8M --spare a", "spare a of vault is already a member of vault"),
    ],
)
def test_what_cannot_be_made_leaves_nothing_behind(orionctl, tmp_path: Path, monkeypatch, words: str, message: str):
    monkeypatch.chdir(tmp_path)
    code, out, err = orionctl("array", "create", "vault", *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
