"""orionctl against a real control socket whose daemon is this test: commands, their JSON, their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orionfs.control.runtime import register
from orionfs.tools.orionctl.main import COMMANDS, command_parser, load, run
from orionfs.units import MIB
from tests.units.control_kit import Daemon

HEAVY = ("trio", "pyfuse3", "numpy", "lz4", "cryptography", "tomlkit")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """``daemon("m", vault="clean")`` is a mount at tmp_path/m with an array in that state."""
    running: list[Daemon] = []

    def start(name: str = "m", **arrays: str) -> Daemon:
        (tmp_path / name).mkdir()
        running.append(Daemon(tmp_path / name, arrays=arrays).__enter__())
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture
def orionctl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``orionctl("status")`` is (exit status, standard output, standard error)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


# --- what holds for every command ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_takes_json_and_mount(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        run([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: orionctl {command}")
    assert "--json" in text
    assert "--mount" in text
    assert load(command).__doc__.splitlines()[0] in text


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_what_is_slow(command: str):
    code = f"import sys; from orionfs.tools.orionctl.main import command_parser, load; m = load({command!r});"
    code += f"command_parser({command!r}, m); print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_status_is_shown_without_importing_what_is_slow(daemon, tmp_path: Path):
    daemon(vault="clean")
    code = "import sys; from orionfs.tools.orionctl.main import run; status = run(['status']);"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules], status)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[] 0\n")


def test_the_overview_lists_every_command(orionctl):
    code, out, _err = orionctl()
    assert code == 0
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stauts"], "there is no command stauts; did you mean orionctl status?"),
        (["zzz"], "there is no command zzz; see orionctl --help"),
        (["status", "--no-such"], "unrecognized arguments: --no-such; see orionctl status --help"),
        (["--no-such"], "unrecognized arguments: --no-such; see orionctl --help"),
        (["show"], "the following arguments are required: OBJ; see orionctl show --help"),
        (["status", "--watch", "0"], "argument --watch: 0 is not a number of seconds from 1 to 86400; see orionctl"),
        (["attach", "v", "--sector-size", "700"], "argument --sector-size: 700 is not a sector size"),
        (["init", "x", "--size", "big"], "argument --size: 'big' is not a size"),
        (["config", "burn"], "argument verb: invalid choice: 'burn'"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(orionctl, words: list[str], message: str):
    code, out, err = orionctl(*words)
    assert code == 2
    assert out == ""
    assert err.startswith(f"orionctl: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words", ["status", "list", "show x", "events", "attach x", "detach x", "unmount", "config path", "config show"]
)
def test_without_a_mount_commands_say_so_with_exit_code_6(orionctl, words: str):
    code, _out, err = orionctl(*words.split())
    assert code == 6
    assert "nothing is mounted; orionctl mount SPEC DIR" in err


def test_an_error_is_json_too(orionctl):
    code, out, err = orionctl("status", "--json")
    assert json.loads(out) == {
        "schema": "orionfs.error/1",
        "error": {
            "kind": "NoDaemon",
            "message": "nothing is mounted",
            "hint": "orionctl mount SPEC DIR",
            "exit_code": code,
        },
    }
    assert err == "orionctl: nothing is mounted; orionctl mount SPEC DIR\n"


# --- status ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "code"), [("clean", 0), ("resyncing", 1), ("degraded", 1), ("failed", 4)])
def test_the_exit_code_of_status_is_the_state(orionctl, daemon, state: str, code: int):
    daemon(vault=state)
    assert orionctl("status")[0] == code
    assert f"array vault: {state.upper()}" in orionctl("status")[1]


def test_status_of_one_array_is_that_arrays(orionctl, daemon):
    daemon(good="clean", bad="failed")
    assert orionctl("status")[0] == 4
    code, out, _err = orionctl("status", "good")
    assert code == 0
    assert "array bad" not in out


def test_status_shows_every_mount_and_the_worst_decides(orionctl, daemon):
    daemon("m1", vault="clean")
    second = daemon("m2", tank="degraded")
    code, out, _err = orionctl("status")
    assert code == 1
    assert "array vault: CLEAN" in out
    assert "array tank: DEGRADED" in out
    assert "vault" not in orionctl("status", "-m", second.mountpoint)[1]
    assert "vault" not in orionctl("-m", second.mountpoint, "status")[1]
    assert "vault" not in orionctl("status", second.mountpoint)[1]


def test_status_json_has_one_schema_for_any_number_of_mounts(orionctl, daemon):
    daemon("m1", vault="clean")
    daemon("m2", tank="degraded")
    report = json.loads(orionctl("status", "--json")[1])
    assert report["schema"] == "orionfs.status/1"
    assert [mount["state"] for mount in report["mounts"]] == ["healthy", "degraded"]
    assert report["unreachable"] == []
    assert json.loads(orionctl("--json", "status", "tank")[1])["mounts"][0]["arrays"][0]["size"] == 7 * MIB


def test_a_dead_daemon_beside_a_living_one_is_told(orionctl, daemon, tmp_path: Path, runtime_folder: Path):
    daemon("m1", vault="clean")
    dead = register(tmp_path / "m0", tmp_path / "m0.toml", ("tank",), "2026-11-20T17:48:03.250Z")
    record = dead.socket.with_suffix(".json")
    record.write_text(record.read_text().replace(f'"birth": {dead.birth}', '"birth": 1'))
    code, out, err = orionctl("status")
    assert code == 6
    assert "array vault: CLEAN" in out
    assert f"is gone; orionctl mount {tmp_path}/m0.toml {tmp_path}/m0" in err
    assert json.loads(orionctl("status", "--json")[1])["unreachable"][0]["mountpoint"] == str(tmp_path / "m0")


def test_watching_shows_each_change(daemon):
    mount = daemon(vault="clean")
    command = [sys.executable, "-m", "orionfs.tools.orionctl.main", "status", "--watch", "3600", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["mounts"][0]["state"] == "healthy"
        mount.arrays["vault"] = "degraded"
        # The watcher may not be waiting yet: one event that it hears about is enough.
        shown = threading.Thread(target=lambda: lines.append(process.stdout.readline()))
        lines: list[str] = []
        shown.start()
        while shown.is_alive():
            mount._token.run_sync_soon(mount.events.emit, "member.failed", "vault", "d1 is out of service")
            shown.join(0.05)
        process.terminate()
    assert json.loads(lines[0])["mounts"][0]["state"] == "degraded"


@pytest.mark.parametrize(
    ("environment", "colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colors_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch, environment, colored: bool):
    from orionfs.tools.orionctl.output import Output

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Output().color is colored
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert Output().color is False


# --- list, show, events, version, config -----------------------------------------------------------------------------


def test_list_has_every_object_of_every_mount(orionctl, daemon):
    first = daemon("m1", vault="clean")
    daemon("m2", tank="degraded")
    code, out, _err = orionctl("list")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["KIND", "NAME", "LEVEL", "STATE", "SIZE", "PATH"]
    assert lines[1].split() == ["array", "vault", "raid1", "clean", "7", "MiB", f"{first.mountpoint}/arrays/vault"]
    objects = json.loads(orionctl("list", "--json")[1])
    assert objects["schema"] == "orionfs.list/1"
    assert [(entry["name"], entry["size"]) for entry in objects["objects"]] == [("vault", 7 * MIB), ("tank", 7 * MIB)]


def test_an_object_is_shown_by_name_and_by_path(orionctl, daemon, monkeypatch: pytest.MonkeyPatch):
    mount = daemon(vault="clean")
    monkeypatch.chdir(mount.mountpoint.parent)
    for name in ("vault", "arrays/vault", f"{mount.mountpoint}/arrays/vault", "m/arrays/vault"):
        code, out, err = orionctl("show", name)
        assert code == 0, err
        assert "level:     raid1" in out
        assert "size:      7340032 (7 MiB)" in out
    shown = json.loads(orionctl("show", "vault", "--json")[1])
    assert (shown["schema"], shown["object"]["name"]) == ("orionfs.show/1", "vault")


def test_an_object_that_is_nowhere_is_not_found(orionctl, daemon):
    daemon(vault="clean")
    code, _out, err = orionctl("show", "tank")
    assert (code, err) == (3, "orionctl: no mount has an object tank; there is: vault\n")


def test_an_object_of_two_mounts_has_to_be_chosen(orionctl, daemon):
    daemon("m1", vault="clean")
    second = daemon("m2", vault="degraded")
    code, _out, err = orionctl("show", "vault")
    assert code == 2
    assert "choose one with --mount DIR" in err
    assert "degraded" in orionctl("show", "vault", "--mount", second.mountpoint)[1]


def test_events_are_shown_and_followed(orionctl, daemon):
    mount = daemon(vault="clean")
    code, out, _err = orionctl("events")
    assert code == 0
    assert out.rstrip().endswith(f"mount.ready           {mount.mountpoint}: it is mounted")
    answer = json.loads(orionctl("events", "--json")[1])
    assert (answer["schema"], answer["last"]) == ("orionfs.events/1", 1)
    assert json.loads(orionctl("events", "--json", "--since", "1")[1])["events"] == []

    command = [sys.executable, "-m", "orionfs.tools.orionctl.main", "events", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["schema"], first["sequence"]) == ("orionfs.event/1", 1)
        mount._token.run_sync_soon(mount.events.emit, "member.failed", "vault", "d1 is out of service")
        assert json.loads(process.stdout.readline())["message"] == "d1 is out of service"
        process.terminate()


def test_a_reader_that_goes_away_ends_the_command_quietly(daemon):
    daemon(vault="clean")
    command = [sys.executable, "-m", "orionfs.tools.orionctl.main", "show", "vault"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, -13)


def test_version_knows_the_daemons(orionctl, daemon):
    mount = daemon(vault="clean")
    code, out, _err = orionctl("version")
    assert code == 0
    assert out.splitlines()[1] == f"daemon of {mount.mountpoint}: 0.1.0 (process {os.getpid()})"
    assert json.loads(orionctl("version", "--json")[1])["daemons"][0]["version"] == "0.1.0"


def test_config_of_a_mount_is_what_it_started_from(orionctl, daemon):
    mount = daemon(vault="clean")
    assert orionctl("config", "show")[1] == "# as mounted\n"
    assert orionctl("config", "path")[1] == f"{mount.spec}\n"
    assert orionctl("config", "path", "-m", "vault")[1] == f"{mount.spec}\n"


CONFIG = '[[array]]\nname = "vault"\nlevel = "raid5"\nmembers = ["a",\n"b",\n"c"]\n'


def test_config_check_names_every_problem_with_its_line(orionctl, tmp_path: Path):
    file = tmp_path / "orionfs.toml"
    file.write_text(CONFIG + "chnk = 1\n[mount]\nmode = 9\n")
    code, out, err = orionctl("config", "check", tmp_path)
    assert (code, err) == (2, "")
    assert [line.partition(": ")[0] for line in out.splitlines()] == [f"{file}:7", f"{file}:9"]
    assert "did you mean chunk?" in out
    findings = json.loads(orionctl("config", "check", tmp_path, "--json")[1])
    assert findings["valid"] is False
    assert [finding["line"] for finding in findings["findings"]] == [7, 9]


def test_config_check_looks_at_members(orionctl, tmp_path: Path):
    file = tmp_path / "orionfs.toml"
    file.write_text(CONFIG)
    for name in "abc":
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(8 * MIB)
    assert orionctl("config", "check", file)[:2] == (0, f"{file}: no problems found\n")
    (tmp_path / "b").unlink()
    code, out, _err = orionctl("config", "check", file)
    assert (code, out) == (0, f"warning: {file}:5: member {tmp_path}/b does not exist; vault would start degraded\n")
    (tmp_path / "b").mkdir()
    code, out, _err = orionctl("config", "check", file)
    assert (code, out) == (2, f"{file}:5: member {tmp_path}/b is a directory; name a regular file or a block device\n")


def test_config_show_of_a_file_is_its_text_and_in_json_its_meaning(orionctl, tmp_path: Path):
    (tmp_path / "orionfs.toml").write_text(CONFIG)
    assert orionctl("config", "show", tmp_path)[1] == CONFIG
    shown = json.loads(orionctl("config", "show", tmp_path, "--json")[1])
    assert shown["arrays"][0]["members"] == ["a", "b", "c"]


# --- mount, unmount, attach, detach, doctor --------------------------------------------------------------------------


def test_mount_runs_the_mount_helper(orionctl, tmp_path: Path):
    program = [sys.executable, "-m", "orionfs.tools.orionctl.main", "mount"]
    done = subprocess.run([*program, tmp_path / "no.toml", tmp_path], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("mount.orionfs: there is no configuration")
    done = subprocess.run([*program, tmp_path / "no.toml", tmp_path, "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 3


def test_unmounting_what_is_no_mount_is_not_found(orionctl, tmp_path: Path):
    code, _out, err = orionctl("unmount", tmp_path)
    assert code == 3
    assert err.count("\n") == 1


def test_unmount_can_be_tried_dry_by_array_name(orionctl, daemon):
    mount = daemon(vault="clean")
    code, out, _err = orionctl("unmount", "vault", "--dry-run")
    assert (code, out) == (0, f"would unmount {mount.mountpoint}\n")


def test_attach_says_what_it_would_run(orionctl, daemon, requires):
    requires("losetup")
    mount = daemon(vault="clean")
    words = ["attach", "vault", "--read-only", "--direct-io", "on", "--sector-size", "4096", "--partscan", "--dry-run"]
    code, out, _err = orionctl(*words)
    assert code == 0
    path = f"{mount.mountpoint}/arrays/vault"
    assert out.endswith(f"--find --show --read-only --direct-io=on --sector-size 4096 --partscan {path}\n")
    assert json.loads(orionctl(*words, "--json")[1])["path"] == path


def test_detaching_what_is_not_attached_is_not_found(orionctl, daemon):
    daemon(vault="clean")
    assert orionctl("detach", "vault")[0] == 3
    assert orionctl("detach", "/dev/loop987654")[0] == 3


@pytest.mark.root
def test_attach_and_detach_a_file(orionctl, daemon, requires):
    requires("losetup")
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices: modprobe loop")
    mount = daemon(vault="clean")
    (mount.mountpoint / "arrays").mkdir()
    with (mount.mountpoint / "arrays" / "vault").open("wb") as stream:
        stream.truncate(8 * MIB)
    code, out, _err = orionctl("attach", "vault", "--read-only")
    assert code == 0
    device = out.strip()
    assert device.startswith("/dev/loop")
    code, _out, err = orionctl("attach", "vault")
    assert (code, err) == (
        5,
        f"orionctl: vault is attached already, as {device}; use that, or: orionctl detach {device}\n",
    )
    assert orionctl("detach", device)[0] == 0
    assert orionctl("detach", "vault")[0] == 3


def test_doctor_names_what_is_wrong_and_how_to_mend_it(orionctl, tmp_path: Path, runtime_folder: Path):
    dead = register(tmp_path / "m0", tmp_path / "m0.toml", ("tank",), "2026-11-20T17:48:03.250Z")
    record = dead.socket.with_suffix(".json")
    record.write_text(record.read_text().replace(f'"birth": {dead.birth}', '"birth": 1'))
    (runtime_folder / "junk.json").write_text("{")
    code, out, _err = orionctl("doctor")
    assert code == 1
    assert f"its daemon (process {os.getpid()}) is gone" in out
    assert f"mend: orionctl unmount {tmp_path}/m0" in out
    assert f"mend: rm {runtime_folder}/junk.json" in out
    findings = json.loads(orionctl("doctor", "--json")[1])
    assert findings["healthy"] is False
    topics = {finding["topic"]: finding["state"] for finding in findings["findings"]}
    assert topics["python"] == "ok"
    assert all(finding["mend"] for finding in findings["findings"] if finding["state"] == "problem")


def test_doctor_finds_nothing_wrong_with_a_mount_that_answers(orionctl, daemon):
    mount = daemon(vault="clean")
    findings = json.loads(orionctl("doctor", "--json")[1])["findings"]
    served = [finding["state"] for finding in findings if finding["message"].startswith("served by process")]
    assert served == ["ok"]
    assert any(finding["topic"] == str(mount.mountpoint) for finding in findings)


def test_every_parser_can_be_built():
    for command in COMMANDS:
        assert command_parser(command, load(command)).prog == f"orionctl {command}"


def test_unmount_takes_away_the_record_of_a_dead_daemon(orionctl, tmp_path: Path, runtime_folder: Path):
    dead = register(tmp_path / "m0", tmp_path / "m0.toml", ("tank",), "2026-11-20T17:48:03.250Z")
    record = dead.socket.with_suffix(".json")
    record.write_text(record.read_text().replace(f'"birth": {dead.birth}', '"birth": 1'))
    code, _out, err = orionctl("unmount")
    assert (code, err) == (0, "orionctl: it was not mounted any more; the record of its daemon is removed\n")
    assert not record.exists()
    assert orionctl("unmount", tmp_path / "m0")[0] == 3
