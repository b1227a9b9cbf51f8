"""What the host says against members, each with the line on which it is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from orionfs.config.check import Finding, check_members
from orionfs.config.load import load_spec
from orionfs.units import MIB


def check(folder: Path, **keys: str) -> list[Finding]:
    """Members a, b and c, each on a line of its own (from 5 on)."""
    text = '[[array]]\nname = "vault"\nlevel = "raid5"\nmembers = [\n"a",\n"b",\n"c",\n]\n'
    (folder / "orionfs.toml").write_text(text + "".join(f"{key} = {value}\n" for key, value in keys.items()))
    return check_members(load_spec(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(8 * MIB)
    return tmp_path


def test_good_members_have_no_findings(folder: Path):
    assert check(folder) == []


def test_one_missing_member_is_a_warning_where_the_array_can_do_without(folder: Path):
    (folder / "b").unlink()
    (finding,) = check(folder)
    assert (finding.severity, finding.line) == ("warning", 6)
    assert finding.error.hint == "vault would start degraded"


def test_two_missing_members_are_a_problem(folder: Path):
    (folder / "b").unlink()
    (folder / "c").unlink()
    findings = check(folder)
    assert [(finding.severity, finding.line, finding.error.exit_code) for finding in findings] == [
        ("problem", 6, 3),
        ("problem", 7, 3),
    ]
    assert "cannot start without it" in findings[0].error.hint


def test_members_that_init_would_make_are_warnings(tmp_path: Path):
    findings = check(tmp_path, member_size='"8MiB"')
    assert [finding.severity for finding in findings] == ["warning"] * 3
    assert findings[0].error.hint == "orionctl init makes it"


def test_a_member_that_is_no_file_is_a_problem(folder: Path):
    for name in "abc":
        (folder / name).unlink()
    (folder / "a").mkdir()
    os.mkfifo(folder / "b")
    (folder / "c").symlink_to("/dev/null")
    findings = check(folder)
    words = [finding.error.message.split(" is ")[1] for finding in findings]
    assert words == ["a directory", "a pipe", "a character device"]
    assert [(finding.line, finding.error.exit_code) for finding in findings] == [(5, 2), (6, 2), (7, 2)]


def test_a_socket_is_a_problem(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "a").unlink()
    monkeypatch.chdir(folder)  # a socket's address must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a")
    assert "is a socket" in check(folder)[0].error.message


def test_a_member_that_is_cut_short_is_a_problem(folder: Path):
    os.truncate(folder / "a", 4096)
    os.truncate(folder / "b", 8 * MIB + 17)
    first, second = check(folder)
    assert "too small: it has 4 KiB" in first.error.message
    assert "8388625 bytes, which is not a multiple of 512" in second.error.message


def test_a_path_that_leads_nowhere_is_a_problem(folder: Path):
    (folder / "a").unlink()
    (folder / "a").symlink_to("a")
    (finding,) = check(folder)
    assert "not a usable path" in finding.error.message
    assert (finding.severity, finding.line, finding.error.exit_code) == ("problem", 5, 2)


def test_a_member_that_may_not_be_written_is_a_problem_unless_it_need_not_be(folder: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root, to take rights away from somebody else")
    folder.chmod(0o755)
    (folder / "a").chmod(0o444)
    for name in "bc":
        (folder / name).chmod(0o666)
    here = os.open(folder, os.O_RDONLY)
    before = Path.cwd()
    os.fchdir(here)
    os.seteuid(65534)
    try:
        findings = check_members_here(read_only=False)
        allowed = check_members_here(read_only=True)
    finally:
        os.seteuid(0)
        os.chdir(before)
        os.close(here)
    assert [(finding.line, finding.error.exit_code) for finding in findings] == [(1, 7)]
    assert "may not be read and written" in findings[0].error.message
    assert allowed == []


def check_members_here(*, read_only: bool) -> list[Finding]:
    """Of the working folder, by relative paths: nobody may search the folders above it."""
    from orionfs.config.spec import ArraySpec, Spec

    array = ArraySpec(name="v", level="raid5", members=("a", "b", "c"), read_only=read_only, line=1)
    return check_members(Spec(Path("orionfs.toml"), Path(), (array,)))


# --- spares, empty slots, copies -------------------------------------------------------------------------------------


def test_a_spare_that_cannot_be_one_is_a_warning_with_its_line(folder: Path):
    (folder / "small").write_bytes(bytes(4096))
    (folder / "dir").mkdir()
    with (folder / "good").open("wb") as stream:
        stream.truncate(8 * MIB)
    findings = check(folder, spares='[\n"good",\n"gone",\n"small",\n"dir",\n]')
    assert [(finding.severity, finding.line) for finding in findings] == [("warning", line) for line in (11, 12, 13)]
    assert "spare" in findings[0].error.message
    assert "does not exist" in findings[0].error.message
    assert "too small" in findings[1].error.message
    assert "is a directory" in findings[2].error.message


def test_a_spare_that_is_a_member_under_another_name_is_a_problem(folder: Path):
    os.link(folder / "a", folder / "alias")
    (finding,) = check(folder, spares='["alias"]')
    assert (finding.severity, finding.line) == ("problem", 9)
    assert finding.error.message == "spare alias of vault is the same device as a of vault"


def test_a_slot_that_is_declared_empty_counts_as_lost(folder: Path):
    text = '[[array]]\nname = "vault"\nlevel = "raid5"\nmembers = ["a", "missing", "c"]\n'
    (folder / "orionfs.toml").write_text(text)
    assert check_members(load_spec(folder)) == []
    (folder / "c").unlink()
    (finding,) = check_members(load_spec(folder))
    assert finding.severity == "problem"


@pytest.mark.parametrize(("gone", "severity"), [("bd", "warning"), ("ab", "problem")])
def test_which_copies_are_lost_decides_about_a_raid10(tmp_path: Path, gone: str, severity: str):
    text = '[[array]]\nname = "ten"\nlevel = "raid10"\nmembers = ["a", "b", "c", "d"]\n'
    (tmp_path / "orionfs.toml").write_text(text)
    for name in set("abcd") - set(gone):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(8 * MIB)
    assert {finding.severity for finding in check_members(load_spec(tmp_path))} == {severity}


def test_a_jbod_needs_every_member(tmp_path: Path):
    text = '[[array]]\nname = "disks"\nlevel = "jbod"\nmembers = ["a", "b"]\n'
    (tmp_path / "orionfs.toml").write_text(text)
    with (tmp_path / "a").open("wb") as stream:
        stream.truncate(8 * MIB)
    (finding,) = check_members(load_spec(tmp_path))
    assert (finding.severity, finding.error.hint) == ("problem", "disks.1 cannot start without it")
