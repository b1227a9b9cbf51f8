"""What a release carries, and that it can be installed and used from its source archive alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: What is in a checkout and not in a release.
_NOT_SOURCE = (".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "members")
_NOT_SOURCE += ("state", "mnt", "*.state")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building leaves files beside what it builds."""
    copy = tmp_path_factory.mktemp("source") / "orionfs"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    return copy


def build(kind: str, source: Path, target: Path) -> Path:
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (inner,) = folder.iterdir()
    return inner


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source archive, as pip does it."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def test_the_only_top_level_package_of_a_wheel_is_orionfs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"orionfs"}


def test_a_wheel_has_every_module_of_the_checkout(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    modules = set()
    for top, package in (("orionfs", "orionfs"), ("backends", "orionfs/backends"), ("tools", "orionfs/tools")):
        modules |= {f"{package}/{path.relative_to(ROOT / top)}" for path in (ROOT / top).rglob("*.py")}
    assert packed == modules


def test_a_source_archive_has_all_that_it_takes_to_work_on_it(unpacked):
    for name in (
        *("tests/conftest.py", "tests/units/test_packaging.py", ".ci/run", "MANIFEST.in", "LICENSE"),
        *("tools/quickstart", "tools/run-tests", "tools/bench", "tools/setup.bash", "tools/packages"),
        *("mountpoints/first-raid5/orionfs.toml", "mountpoints/first-raid5/README.md", "docs/tutorial.md"),
    ):
        assert (unpacked / name).is_file(), name
    assert not list(unpacked.rglob("*.pyc"))


def test_every_package_that_the_metadata_lists_is_there_and_no_other(wheel):
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "orionfs").rglob("__init__.py")}
    folders |= {Path("orionfs") / path.parent.relative_to(ROOT) for path in (ROOT / "tools").rglob("__init__.py")}
    folders |= {Path("orionfs") / path.parent.relative_to(ROOT) for path in (ROOT / "backends").rglob("__init__.py")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name).parent for name in archive.namelist() if name.endswith("__init__.py")}
    assert packed == folders


def test_dependencies_have_lower_bounds_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    required = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if "Requires-Dist" in line]
    assert required
    for requirement in required:
        bounds = requirement.split(";")[0]
        assert ">=" in bounds, requirement
        assert not any(sign in bounds for sign in ("<", "==", "~=")), requirement


@pytest.mark.long
@pytest.mark.fuse
def test_a_source_archive_installs_into_a_fresh_environment_and_mounts(sdist, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", sdist], check=True)
    (tmp_path / "mnt").mkdir()
    for command in (
        ["orionctl", "init", "store"],
        ["mount.orionfs", "store", "mnt"],
        ["orionctl", "status"],
        ["umount.orionfs", "mnt"],
    ):
        subprocess.run([programs / command[0], *command[1:]], check=True, cwd=tmp_path)
