"""orionctl over a real mount, through the life that a user gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orionfs.control.runtime import find
from orionfs.tools.mountinfo import mount_at, read_mounts

pytestmark = pytest.mark.fuse

ORIONCTL = Path(sys.executable).with_name("orionctl")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def orionctl(tmp_path: Path) -> Run:
    """``orionctl("status", code=1)`` runs the program in tmp_path and wants that exit status (None: any)."""

    def call(*words: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([ORIONCTL, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert code in (None, done.returncode), f"{words}: {done.stdout}{done.stderr}"
        return done

    return call


@pytest.fixture
def mounted(orionctl: Run, tmp_path: Path) -> Path:
    """A RAID 5 of three members in the folder ``s``, mounted at ``m``."""
    orionctl("init", "s", "--size", "8MiB", "--members", "3")
    (tmp_path / "m").mkdir()
    orionctl("mount", "s", "m")
    return tmp_path / "m"


def test_status_list_show_and_config_agree_with_what_is_mounted(orionctl: Run, mounted: Path):
    report = json.loads(orionctl("status", "--json").stdout)
    assert report["mounts"] == [{**json.loads((mounted / ".orionfs" / "status.json").read_text())["mounts"][0], **{
        key: report["mounts"][0][key] for key in ("time", "uptime_s", "gauges")
    }}]  # fmt: skip
    (vault,) = json.loads(orionctl("list", "--json").stdout)["objects"]
    assert Path(vault["path"]).stat().st_size == vault["size"]
    assert json.loads(orionctl("show", mounted / "arrays" / "vault", "--json").stdout)["object"]["slots"] == "UUU"
    assert orionctl("config", "show").stdout == (mounted.parent / "s" / "orionfs.toml").read_text()
    orionctl("config", "check")
    assert orionctl("init", "s").stdout == "array vault: there already\n"
    orionctl("unmount", "m")
    assert mount_at(read_mounts(), str(mounted)) is None
    assert "nothing is mounted" in orionctl("status", code=6).stderr


def test_a_lost_member_is_explained_and_the_exit_code_says_degraded(orionctl: Run, mounted: Path, expected_logs):
    expected_logs("members/d1.img is not used, it is missing", "degraded: slot 1 is empty")
    orionctl("unmount", "vault")
    (mounted.parent / "s" / "members" / "d1.img").unlink()
    assert "vault is degraded [U_U]" in orionctl("mount", "s", "m").stderr
    lines = orionctl("status", code=1).stdout.splitlines()
    assert "array vault: DEGRADED" in lines[2]
    assert [line.split(":")[0].strip() for line in lines[3:6]] == ["why", "effect", "next"]
    assert any(line.split()[:2] == ["members/d1.img", "missing"] for line in lines)
    orionctl("unmount")


def test_a_killed_daemon_is_found_by_status_and_doctor_and_mended_as_they_say(orionctl: Run, mounted: Path):
    os.kill(find().pid, signal.SIGKILL)
    assert "is gone; orionctl mount" in orionctl("status", code=6).stderr
    findings = json.loads(orionctl("doctor", "--json", code=1).stdout)["findings"]
    (dead,) = [finding for finding in findings if finding["topic"] == str(mounted)]
    mend, _, _again = dead["mend"].partition(";")
    assert mend == f"orionctl unmount {mounted}"
    orionctl(*mend.split()[1:])
    assert mount_at(read_mounts(), str(mounted)) is None
    findings = json.loads(orionctl("doctor", "--json", code=None).stdout)["findings"]  # of the whole machine
    assert all(finding["topic"] != str(mounted) for finding in findings)


@pytest.mark.root
def test_an_array_is_attached_formatted_and_detached(orionctl: Run, mounted: Path, requires):
    requires("losetup", "mkfs.ext4")
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices: modprobe loop")
    device = orionctl("attach", "vault", "--direct-io", "on").stdout.strip()
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    (mounted.parent / "fs").mkdir()
    subprocess.run(["mount", device, mounted.parent / "fs"], check=True)
    assert f"{device} is mounted on {mounted.parent}/fs; umount" in orionctl("detach", "vault", code=5).stderr
    subprocess.run(["umount", mounted.parent / "fs"], check=True)
    orionctl("detach", "vault")
    orionctl("unmount")
