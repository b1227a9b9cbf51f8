"""Edits of a configuration: what the user wrote stays, and what would be wrong is never written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orionfs.config.edit import add_array, remove_array, set_key, size_text
from orionfs.config.load import load_spec
from orionfs.config.spec import ArraySpec
from orionfs.errors import ConfigError, NotFound, Refused
from orionfs.hostfs import SystemHostFs

TEXT = """\
# my store
[mount]
allow_other = true   # the family

[[array]]            # the old one
name   = 'vault'
level = "raid5"
members = [
    "d0",  # ssd
    "d1",
    "d2",
]

[[array]]
name = "mirror"
level = "raid1"
members = ["m0", "m1"]
"""
NEW = ArraySpec(
    name="new",
    level="raid0",
    members=("n0", "n1"),
    chunk=65536,
    member_size=(256 << 20) + 4096,
    mode=0o640,
    uid=0,
    truncate="ignore",
    direct=True,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orionfs.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_an_added_array_is_read_back_and_the_rest_stays_to_the_letter(file: Path):
    before = load_spec(file)
    add_array(file, NEW, SystemHostFs())
    assert file.read_text().startswith(TEXT)
    after = load_spec(file)
    assert after.arrays[:2] == before.arrays
    added = after.arrays[2]
    assert (added.name, added.level, added.members) == ("new", "raid0", ("n0", "n1"))
    assert (added.chunk, added.member_size, added.mode, added.uid) == (65536, (256 << 20) + 4096, 0o640, 0)
    assert (added.truncate, added.direct, added.read_only) == ("ignore", True, False)


def test_a_removed_array_is_gone_and_comments_stay(file: Path):
    remove_array(file, "mirror", SystemHostFs())
    assert [array.name for array in load_spec(file).arrays] == ["vault"]
    assert "# ssd" in file.read_text()
    assert "# the family" in file.read_text()


def test_a_key_is_set_and_taken_away(file: Path):
    set_key(file, "vault", "mode", "0644", SystemHostFs())
    assert load_spec(file).arrays[0].mode == 0o644
    assert "# the old one" in file.read_text()
    set_key(file, "vault", "mode", None, SystemHostFs())
    assert file.read_text() == TEXT


def test_mode_and_symbolic_link_of_the_file_stay(file: Path, tmp_path: Path):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    set_key(link, "vault", "direct", True, SystemHostFs())
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert load_spec(file).arrays[0].direct


def test_the_owner_of_the_file_stays_when_root_edits_it(file: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root, who can edit files of others")
    os.chown(file, 12345, 54321)
    set_key(file, "vault", "direct", True, SystemHostFs())
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)


def test_windows_line_ends_stay(file: Path):
    file.write_bytes(TEXT.replace("\n", "\r\n").encode())
    set_key(file, "mirror", "read_only", True, SystemHostFs())
    assert file.read_bytes().startswith(b"# my store\r\n[mount]\r\n")
    assert load_spec(file).arrays[1].read_only


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda file: add_array(file, ArraySpec(name="vault", level="raid0", members=("x", "y")), HOST),
            "another array",
        ),
        (
            lambda file: add_array(file, ArraySpec(name="x", level="raid0", members=("d0", "y")), HOST),
            "already a member",
        ),
        (lambda file: set_key(file, "vault", "chunk", "5KiB", HOST), "not a power of two"),
        (lambda file: set_key(file, "vault", "colour", "red", HOST), "unknown key"),
    ],
)
def test_an_edit_that_would_be_wrong_is_refused_and_nothing_is_written(file: Path, edit, message: str):
    with pytest.raises(ConfigError, match=message):
        edit(file)
    assert file.read_text() == TEXT
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["orionfs.toml"]


def test_what_is_not_there_is_not_found(file: Path):
    with pytest.raises(NotFound, match="no array tank"):
        remove_array(file, "tank", HOST)


def test_an_inner_array_and_the_last_one_stay(file: Path):
    add_array(file, ArraySpec(name="top", level="raid0", members=("vault", "mirror")), HOST)
    with pytest.raises(Refused, match="vault is a member of top"):
        remove_array(file, "vault", HOST)
    for name in ("top", "vault"):
        remove_array(file, name, HOST)
    with pytest.raises(Refused, match="only array"):
        remove_array(file, "mirror", HOST)


def test_arrays_written_inline_cannot_be_edited(file: Path):
    text = (
        'array = [{ name = "a", level = 0, members = ["x", "y"] }, { name = "b", level = 0, members = ["z", "w"] }]\n'
    )
    file.write_text(text)
    with pytest.raises(ConfigError, match="inline list"):
        set_key(file, "a", "direct", True, HOST)
    with pytest.raises(ConfigError, match="inline list"):
        add_array(file, NEW, HOST)
    assert file.read_text() == text


def test_arrays_with_other_tables_between_them_are_edited_in_their_places(file: Path):
    text = '[[array]]\nname = "a"\nlevel = 0\nmembers = ["x", "y"]\n[mount]  # here\n[[array]]\nname = "b"\nlevel = 0\n'
    file.write_text(text + 'members = ["z", "w"]\n')
    set_key(file, "b", "direct", True, HOST)
    add_array(file, NEW, HOST)
    assert [array.name for array in load_spec(file).arrays] == ["a", "b", "new"]
    assert load_spec(file).arrays[1].direct
    assert "[mount]  # here" in file.read_text()


def test_a_size_is_written_exactly():
    assert size_text(65536) == "64KiB"
    assert size_text((256 << 20) + 4096) == (256 << 20) + 4096
    assert size_text(3 << 39) == "1.5TiB" or size_text(3 << 39) == 3 << 39


HOST = SystemHostFs()
