"""Members that are one device under names that only the host can tell to be the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from orionfs.config.aliases import find_aliases, refuse_aliases
from orionfs.config.check import check_members
from orionfs.config.load import load_spec
from orionfs.environment import Environment
from orionfs.errors import ConfigError
from orionfs.initialize import initialize
from orionfs.manager import ManagerOptions, StorageManager
from orionfs.units import MIB

TEXT = """\
[[array]]
name = "one"
level = "raid1"
members = [
"a",
"b",
]
[[array]]
name = "two"
level = "raid1"
members = [
"c",
"one",
]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "orionfs.toml").write_text(TEXT)
    for name in "abc":
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(8 * MIB)
    return tmp_path


def test_different_files_are_no_aliases(folder: Path):
    assert list(find_aliases(load_spec(folder))) == []


def test_a_member_that_is_not_there_is_nobodys_alias(folder: Path):
    (folder / "a").unlink()
    (folder / "b").unlink()
    assert list(find_aliases(load_spec(folder))) == []


@pytest.mark.parametrize(("name", "line", "owners"), [("b", 6, "one is the same device as a of one"),
                                                      ("c", 12, "two is the same device as a of one")])  # fmt: skip
def test_a_hard_link_is_found_by_everyone_with_its_line(folder: Path, name: str, line: int, owners: str):
    (folder / name).unlink()
    (folder / name).hardlink_to(folder / "a")
    spec = load_spec(folder)
    (error,) = find_aliases(spec)
    assert (error.line, error.message) == (line, f"member {name} of {owners}")
    (finding,) = [finding for finding in check_members(spec) if finding.severity == "problem"]
    assert (finding.line, finding.error.message) == (line, error.message)
    with pytest.raises(ConfigError, match=f"orionfs.toml:{line}: member {name} .* use each device once"):
        refuse_aliases(spec)


async def test_neither_init_nor_a_mount_opens_such_members(folder: Path):
    (folder / "b").unlink()
    (folder / "b").hardlink_to(folder / "a")
    spec, environment = load_spec(folder), Environment()
    with pytest.raises(ConfigError, match="same device"):
        await initialize(spec, environment)
    with pytest.raises(ConfigError, match="same device"):
        await StorageManager.open(spec, environment=environment, options=ManagerOptions())
    assert (folder / "a").read_bytes() == bytes(8 * MIB)


@pytest.mark.root
def test_two_nodes_of_one_block_device_are_aliases(folder: Path):
    for name in "ab":
        (folder / name).unlink()
        os.mknod(folder / name, stat.S_IFBLK | 0o600, os.makedev(7, 255))
    (error,) = find_aliases(load_spec(folder))
    assert error.line == 6
