"""orionctl array over a real mount: the life of arrays and members, with files that come and go."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orionfs.tools.mountinfo import mount_at, read_mounts

pytestmark = pytest.mark.fuse

ORIONCTL = Path(sys.executable).with_name("orionctl")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def orionctl(tmp_path: Path) -> Run:
    """``orionctl("array list", code=0)`` runs the program in tmp_path and wants that exit status."""

    def call(words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([ORIONCTL, *words.split()], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done

    return call


@pytest.fixture
def arrays(orionctl: Run, tmp_path: Path) -> Iterator[Path]:
    """The arrays of a mount at ``m``: a RAID 5 of three members, ``vault``, in the configuration ``s``."""
    orionctl("init s --size 8MiB --members 3")
    (tmp_path / "m").mkdir()
    orionctl("mount s m")
    yield tmp_path / "m" / "arrays"
    if mount_at(read_mounts(), str(tmp_path / "m")) is not None:
        orionctl("unmount m")


def shown(orionctl: Run, name: str = "vault") -> dict[str, Any]:
    return json.loads(orionctl(f"array show {name} --json").stdout)["object"]


def until(orionctl: Run, kind: str) -> None:
    """Wait for an event of *kind*."""
    command = [ORIONCTL, "events", "--follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["kind"] == kind:
                break
        process.terminate()


def test_a_disk_dies_and_is_replaced(orionctl: Run, arrays: Path, tmp_path: Path, expected_logs):
    expected_logs("members/d1.img is out of service")
    data = os.urandom(3 << 20)
    with (arrays / "vault").open("r+b") as file:
        file.write(data)
        os.fsync(file.fileno())
        orionctl("array fail vault d1.img --yes")
        assert "[U_U]" in orionctl("status vault", code=1).stdout
        (tmp_path / "s" / "new.img").touch()
        os.truncate(tmp_path / "s" / "new.img", 8 << 20)
        progress = orionctl("array replace vault d1.img new.img --yes --wait --progress json").stderr
        assert all(json.loads(line)["schema"] == "orionfs.progress/1" for line in progress.splitlines())
        assert "[UUU]" in orionctl("status vault").stdout
        file.seek(0)
        assert file.read(len(data)) == data
    assert "new.img" in (tmp_path / "s" / "orionfs.toml").read_text()
    assert "d1.img" not in (tmp_path / "s" / "orionfs.toml").read_text()
    assert orionctl("array check vault --wait").stdout.endswith(": 0 mismatches\n")
    orionctl("unmount m")
    orionctl("mount s m")
    assert (arrays / "vault").read_bytes()[: len(data)] == data
    assert shown(orionctl)["slots"] == "UUU"


def test_a_file_that_comes_back_is_taken_back(orionctl: Run, arrays: Path, tmp_path: Path, expected_logs):
    expected_logs("members/d1.img is not used, it is missing", "degraded: slot 1 is empty")
    orionctl("unmount m")
    members = tmp_path / "s" / "members"
    (members / "d1.img").rename(tmp_path / "aside")
    orionctl("mount s m")
    data = os.urandom(1 << 20)
    with (arrays / "vault").open("r+b") as file:
        file.write(data)
    assert "bring members/d1.img back" in orionctl("status", code=1).stdout
    (tmp_path / "aside").rename(members / "d1.img")
    until(orionctl, "recovery.finished")
    report = json.loads((tmp_path / "m" / ".orionfs" / "status.json").read_text())["mounts"][0]
    assert report["arrays"][0]["slots"] == "UUU"
    (members / "d0.img").read_bytes()
    orionctl("array check vault --wait")


def test_an_array_is_stopped_and_assembled_while_others_go_on(orionctl: Run, arrays: Path, tmp_path: Path):
    orionctl("array create mirror --level 1 --size 8M members/m0.img members/m1.img")
    assert sorted(entry.name for entry in arrays.iterdir()) == ["mirror", "vault"]
    mirror = os.open(arrays / "mirror", os.O_RDWR)
    os.write(mirror, b"before")
    refused = orionctl("array stop mirror --yes", code=5).stderr
    assert "mirror is open in 1 place" in refused
    assert "--force" in refused
    with (arrays / "vault").open("r+b") as vault:
        vault.write(b"other")
        orionctl("array stop mirror --yes --force")
        vault.write(b"goes on")
    for request in (
        lambda: os.pread(mirror, 4096, 1 << 20),
        lambda: os.pwrite(mirror, b"x", 0),
        lambda: os.fsync(mirror),
        lambda: os.close(mirror),  # which tells of the fsync, and closes all the same
    ):
        with pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
            request()
    assert [entry.name for entry in arrays.iterdir()] == ["vault"]
    assert "mirror is stopped" in orionctl("array check mirror", code=5).stderr
    members = tmp_path / "s" / "members"
    with (members / "m0.img").open("r+b") as first, (members / "m1.img").open("r+b") as second:
        for file in (first, second):  # as another program could, which holds no lock
            file.seek(1 << 20)
            assert file.read(6) == b"before"
            file.seek(1 << 20)
            file.write(b"behind")
    orionctl("array assemble mirror")
    with (arrays / "mirror").open("rb") as file:
        assert file.read(6) == b"behind"
    assert "mirror" in orionctl("array list").stdout


def test_what_is_made_while_mounted_is_there_after_the_next_mount(orionctl: Run, arrays: Path, tmp_path: Path):
    names = " ".join(f"members/e{number}.img" for number in range(6))
    orionctl(f"array create wide --level 50 --size 8M {names}")
    data = os.urandom(2 << 20)
    with (arrays / "wide").open("r+b") as file:
        file.write(data)
    assert sorted(entry.name for entry in arrays.iterdir()) == ["vault", "wide", "wide.0", "wide.1"]
    with pytest.raises(PermissionError):
        (arrays / "wide.0").open("r+b")
    orionctl("unmount wide")
    orionctl("mount s m")
    assert (arrays / "wide").read_bytes()[: len(data)] == data
    assert orionctl("config show").stdout == (tmp_path / "s" / "orionfs.toml").read_text()


def test_every_change_is_audited(orionctl: Run, arrays: Path, tmp_path: Path):
    orionctl("array set vault read_policy=nearest")
    orionctl("array fail vault 9 --yes", code=3)
    records = [json.loads(line) for line in (tmp_path / "s" / "state" / "audit.log").read_text().splitlines()]
    changes = [record for record in records if record["verb"].startswith("array.")]
    assert [(record["verb"], record.get("ok")) for record in changes] == [
        ("array.set", None),  # begun
        ("array.set", True),
        ("array.fail", None),
        ("array.fail", False),
    ]
    assert "there is no member 9" in changes[-1]["error"]
    assert (tmp_path / "m" / ".orionfs" / "config.toml").read_text().endswith('read_policy = "nearest"\n')


def test_a_shared_spare_takes_over_without_a_command(orionctl: Run, arrays: Path, tmp_path: Path, expected_logs):
    expected_logs("members/d2.img is out of service")
    (tmp_path / "s" / "spare.img").touch()
    os.truncate(tmp_path / "s" / "spare.img", 8 << 20)
    orionctl("spare add spare.img")
    assert "unused devices: spare.img" in (tmp_path / "m" / ".orionfs" / "mdstat").read_text()
    orionctl("array fail vault 2 --yes")
    until(orionctl, "recovery.finished")
    assert shown(orionctl)["slots"] == "UUU"
    assert "next:   orionctl array remove vault members/d2.img" in orionctl("status vault").stdout
    orionctl("array remove vault members/d2.img --yes")
    assert '"spare.img"' in (tmp_path / "s" / "orionfs.toml").read_text()
    assert "d2.img" not in orionctl("status vault").stdout
