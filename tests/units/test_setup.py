"""The scripts that make everything ready: their list of packages, their words, and what they leave alone."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["tools/quickstart", "tools/run-tests", "tools/setup.bash", ".ci/run"]


def bash(script: str, **environment: str) -> str:
    command = ["bash", "-euo", "pipefail", "-c", f". {ROOT}/tools/setup.bash\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_valid_and_all_but_the_sourced_one_can_be_run(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK) == (script != "tools/setup.bash")


@pytest.mark.parametrize("script", ["tools/quickstart", "tools/run-tests"])
def test_help_says_how_it_is_used_and_touches_nothing(script):
    done = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {script}")


@pytest.mark.parametrize("words", [["--up"], ["--delete"], ["now"]])
def test_quickstart_refuses_what_it_does_not_know(words):
    done = subprocess.run([ROOT / "tools/quickstart", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_run_tests_knows_its_levels():
    done = subprocess.run([ROOT / "tools/run-tests", "--level", "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("run-tests: there is no level none; there is: ")


def test_the_list_of_packages_is_well_formed():
    lines = (ROOT / "tools/packages").read_text().splitlines()
    entries = [line.split() for line in lines if line and not line.startswith("#")]
    assert all(len(entry) == 2 and entry[0] in ("run", "test") for entry in entries)
    names = [name for _, name in entries]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in names)


def test_packages_are_chosen_by_use():
    run, both = bash("packages_for run").split(), bash("packages_for run test").split()
    assert {"fuse3", "python3-venv", "fio"} <= set(run)
    assert "mdadm" in both
    assert "mdadm" not in run
    assert set(run) < set(both)


def test_without_root_it_says_which_packages_are_missing_and_goes_on():
    script = (
        "is_root() { false; }; packages_for() { echo bash no-such-package another-one; }; ensure_packages run; echo on"
    )
    printed = bash(script)
    assert "sudo apt-get install --no-install-recommends no-such-package another-one\n" in printed
    assert printed.endswith("on\n")


def test_on_another_distribution_it_lists_the_packages_and_goes_on(tmp_path):
    for name in ("tr", "dirname", "basename"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "bash").symlink_to("/bin/bash")
    printed = bash("ensure_packages run; echo on", PATH=str(tmp_path))
    assert "fuse3" in printed
    assert printed.endswith("on\n")


def test_links_of_another_installation_are_left_alone(tmp_path):
    """Links that exist stay as they are unless they are ours; taking away removes only ours."""
    for name in ("other", "new"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "elsewhere").touch()
    (tmp_path / "other").symlink_to(tmp_path / "elsewhere")
    names = f"helper_links='{tmp_path}/other:mount.orionfs {tmp_path}/new:mount.orionfs'; is_root() {{ true; }}"
    assert f"{tmp_path}/other belongs to another installation" in bash(f"{names}; make_links")
    assert (tmp_path / "new").readlink() == ROOT / ".venv/bin/mount.orionfs"
    bash(f"{names}; remove_links")
    assert not (tmp_path / "new").is_symlink()
    assert (tmp_path / "other").readlink() == tmp_path / "elsewhere"


@pytest.mark.long
@pytest.mark.fuse
@pytest.mark.root
def test_quickstart_can_be_run_twice_and_undone(tmp_path):
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    before = sorted(Path("/sbin").glob("*orionfs"))
    for _ in range(2):
        done = subprocess.run([clone / "tools/quickstart"], capture_output=True, text=True, check=True)
        assert "the same bytes came back" in done.stdout
        assert "array first: " in done.stdout
    subprocess.run([clone / "tools/quickstart", "--down"], check=True)
    assert sorted(Path("/sbin").glob("*orionfs")) == before
    status = subprocess.run(["git", "-C", clone, "status", "--short", "--ignored"], capture_output=True, check=True)
    assert status.stdout == b""
