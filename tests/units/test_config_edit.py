"""Edits of a configuration: what the user wrote stays, and what would be wrong is never written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionfs.config.edit import Edit, new_text, size_text
from orionfs.config.load import load_spec
from orionfs.config.spec import ArraySpec, Spec
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


def edited(path: Path, change: Callable[[Edit], object]) -> Spec:
    """Make one change; what the configuration is then."""
    edit = Edit(path)
    change(edit)
    return edit.write(SystemHostFs())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orionfs.toml"
    path.write_text(TEXT)
    path.chmod(0o640)
    return path


def test_an_added_array_is_read_back_and_the_rest_stays_to_the_letter(file: Path):
    before = load_spec(file)
    edited(file, lambda edit: edit.add_array(NEW))
    assert file.read_text().startswith(TEXT)
    after = load_spec(file)
    assert after.arrays[:2] == before.arrays
    added = after.arrays[2]
    assert (added.name, added.level, added.members) == ("new", "raid0", ("n0", "n1"))
    assert (added.chunk, added.member_size, added.mode, added.uid) == (65536, (256 << 20) + 4096, 0o640, 0)
    assert (added.truncate, added.direct, added.read_only) == ("ignore", True, False)


def test_a_removed_array_is_gone_and_comments_stay(file: Path):
    edited(file, lambda edit: edit.remove_array("mirror"))
    assert [array.name for array in load_spec(file).arrays] == ["vault"]
    assert "# ssd" in file.read_text()
    assert "# the family" in file.read_text()


def test_a_key_is_set_and_taken_away(file: Path):
    edited(file, lambda edit: edit.set_key("vault", "mode", "0644"))
    assert load_spec(file).arrays[0].mode == 0o644
    assert "# the old one" in file.read_text()
    edited(file, lambda edit: edit.set_key("vault", "mode", None))
    assert file.read_text() == TEXT


def test_mode_and_symbolic_link_of_the_file_stay(file: Path, tmp_path: Path):
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    edited(link, lambda edit: edit.set_key("vault", "direct", True))
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert load_spec(file).arrays[0].direct


def test_the_owner_of_the_file_stays_when_root_edits_it(file: Path):
    if os.geteuid() != 0:
        pytest.skip("needs root, who can edit files of others")
    os.chown(file, 12345, 54321)
    edited(file, lambda edit: edit.set_key("vault", "direct", True))
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)


def test_windows_line_ends_stay(file: Path):
    file.write_bytes(TEXT.replace("\n", "\r\n").encode())
    edited(file, lambda edit: edit.set_key("mirror", "read_only", True))
    assert file.read_bytes().startswith(b"# my store\r\n[mount]\r\n")
    assert load_spec(file).arrays[1].read_only


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda edit: edit.add_array(ArraySpec(name="vault", level="raid0", members=("x", "y"))),
            "another array",
        ),
        (
            lambda edit: edit.add_array(ArraySpec(name="x", level="raid0", members=("d0", "y"))),
            "already a member",
        ),
        (lambda edit: edit.set_key("vault", "chunk", "5KiB"), "not a power of two"),
        (lambda edit: edit.set_key("vault", "colour", "red"), "unknown key"),
        (lambda edit: edit.add_spare("vault", "d1"), "spare d1 of vault is already a member of vault"),
        (lambda edit: edit.add_spare("", "m0"), "spare m0 is already a member of mirror"),
    ],
)
def test_an_edit_that_would_be_wrong_is_refused_and_nothing_is_written(file: Path, edit, message: str):
    with pytest.raises(ConfigError, match=message):
        edited(file, edit)
    assert file.read_text() == TEXT
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["orionfs.toml"]


def test_what_is_not_there_is_not_found(file: Path):
    with pytest.raises(NotFound, match="no array tank"):
        edited(file, lambda edit: edit.remove_array("tank"))


def test_an_inner_array_and_the_last_one_stay(file: Path):
    edited(file, lambda edit: edit.add_array(ArraySpec(name="top", level="raid0", members=("vault", "mirror"))))
    with pytest.raises(Refused, match="vault is a member of top"):
        edited(file, lambda edit: edit.remove_array("vault"))
    edited(file, lambda edit: edit.remove_array("top"))
    edited(file, lambda edit: edit.remove_array("vault"))
    with pytest.raises(Refused, match="only array"):
        edited(file, lambda edit: edit.remove_array("mirror"))


def test_arrays_written_inline_cannot_be_edited(file: Path):
    text = (
        'array = [{ name = "a", level = 0, members = ["x", "y"] }, { name = "b", level = 0, members = ["z", "w"] }]\n'
    )
    file.write_text(text)
    with pytest.raises(ConfigError, match="inline list"):
        edited(file, lambda edit: edit.set_key("a", "direct", True))
    with pytest.raises(ConfigError, match="inline list"):
        edited(file, lambda edit: edit.add_array(NEW))
    assert file.read_text() == text


def test_arrays_with_other_tables_between_them_are_edited_in_their_places(file: Path):
    text = '[[array]]\nname = "a"\nlevel = 0\nmembers = ["x", "y"]\n[mount]  # here\n[[array]]\nname = "b"\nlevel = 0\n'
    file.write_text(text + 'members = ["z", "w"]\n')
    edited(file, lambda edit: edit.set_key("b", "direct", True))
    edited(file, lambda edit: edit.add_array(NEW))
    assert [array.name for array in load_spec(file).arrays] == ["a", "b", "new"]
    assert load_spec(file).arrays[1].direct
    assert "[mount]  # here" in file.read_text()


def test_a_size_is_written_exactly():
    assert size_text(65536) == "64KiB"
    assert size_text((256 << 20) + 4096) == (256 << 20) + 4096
    assert size_text(3 << 39) == "1.5TiB" or size_text(3 << 39) == 3 << 39


# --- members and spares ----------------------------------------------------------------------------------------------


def test_a_spare_comes_and_goes_and_leaves_no_trace(file: Path):
    edited(file, lambda edit: edit.add_spare("vault", "s0"))
    assert edited(file, lambda edit: edit.add_spare("vault", "s1")).arrays[0].spares == ("s0", "s1")
    assert "# ssd" in file.read_text()
    edited(file, lambda edit: edit.remove_spare("s0"))
    assert edited(file, lambda edit: edit.remove_spare("s1")).arrays[0].spares == ()
    assert file.read_text() == TEXT


def test_a_spare_of_all_arrays_is_the_mounts(file: Path):
    spec = edited(file, lambda edit: edit.add_spare("", "s0"))
    assert spec.mount.spares == ("s0",)
    assert "# the family" in file.read_text()
    edited(file, lambda edit: edit.remove_spare("s0"))
    assert file.read_text() == TEXT
    file.write_text(TEXT.replace("[mount]\nallow_other = true   # the family\n", ""))
    assert edited(file, lambda edit: edit.add_spare("", "s0")).mount.spares == ("s0",)


def test_a_member_whose_slot_a_spare_has_taken_is_replaced_in_its_line(file: Path):
    edited(file, lambda edit: edit.add_spare("vault", "s0"))
    spec = edited(file, lambda edit: edit.put_member("vault", "d1", "s0"))
    assert (spec.arrays[0].members, spec.arrays[0].spares) == (("d0", "s0", "d2"), ())
    assert file.read_text() == TEXT.replace('"d1"', '"s0"')


def test_a_removed_member_leaves_its_slot_behind(file: Path):
    spec = edited(file, lambda edit: edit.put_member("mirror", "m1"))
    assert spec.arrays[1].members == ("m0", "missing")
    assert list(spec.arrays[1].present) == [(0, "m0")]


def test_a_former_member_that_is_listed_elsewhere_is_moved(file: Path):
    edited(file, lambda edit: edit.put_member("vault", "d1"))
    spec = edited(file, lambda edit: edit.put_member("vault", "d2", "d0"))
    assert spec.arrays[0].members == ("missing", "missing", "d0")


def test_the_parts_of_a_table_are_edited_in_that_table(file: Path):
    text = '[[array]]\nname = "a"\nlevel = 50\nmembers = ["u", "v", "w", "x", "y", "z"]\n'
    file.write_text(text)
    edited(file, lambda edit: edit.set_key("a.1", "read_policy", "nearest"))
    spec = edited(file, lambda edit: edit.put_member("a.1", "y", "g"))
    assert spec.parts("a")[1].members == ("x", "g", "z")
    assert spec.parts("a")[0].policies == {"read_policy": "nearest"}
    assert file.read_text() == text.replace('"y"', '"g"') + 'read_policy = "nearest"\n'


def test_a_file_that_somebody_has_changed_meanwhile_is_left_alone(file: Path):
    edit = Edit(file)
    edit.set_key("vault", "direct", True)
    file.write_text(TEXT + "# mine\n")
    with pytest.raises(Refused, match="changed by somebody else"):
        edit.write(SystemHostFs())
    assert file.read_text() == TEXT + "# mine\n"


def test_a_new_configuration_is_read_back(tmp_path: Path):
    array = ArraySpec(
        name="new",
        level="raid5",
        members=tuple(f"/somewhere/else/disk{number}.img" for number in range(4)),
        spares=("s0",),
        consistency="ppl",
        bitmap=False,
        policies={"stripe_cache": 32 << 20, "read_policy": "nearest", "max_read_errors": 7},
        member_size=64 << 20,
    )
    path = tmp_path / "orionfs.toml"
    path.write_text(new_text(array))
    (read,) = load_spec(path).arrays
    assert (read.members, read.spares, read.consistency, read.bitmap) == (array.members, ("s0",), "ppl", False)
    assert read.policies == array.policies
    assert max(len(line) for line in new_text(array).splitlines()) < 120


# --- any number of them ----------------------------------------------------------------------------------------------

LABELS = [f"{letter}.img" for letter in "abcdefgh"]
STEPS = st.tuples(st.sampled_from(["add", "drop", "leave", "take"]), st.sampled_from(LABELS), st.sampled_from(LABELS))
#: How people write lists; the comments have to survive, wherever members come and go.
FORMS = [
    'members = ["a.img", "b.img", "c.img"]  # mine\n',
    'members = [  # mine\n    "a.img",  # one\n    "b.img",\n    "c.img"\n]\n',
    'members = ["a.img",\n  "b.img", "c.img",  # mine\n]\nspares = [\n  # none yet\n]\n',
]


@given(form=st.sampled_from(FORMS), steps=st.lists(STEPS, max_size=12))
@settings(max_examples=60)
def test_any_sequence_of_edits_leaves_what_it_says(tmp_path_factory, form: str, steps: list[tuple[str, str, str]]):
    file = tmp_path_factory.mktemp("edit") / "orionfs.toml"
    file.write_text(f'# first\n[[array]]\nname = "v"\nlevel = "raid1"\n{form}# last\n[mount]\nmode = "0600"\n')
    members, spares = ["a.img", "b.img", "c.img"], []
    for what, label, other in steps:
        edit = Edit(file)
        if what == "add" and label not in members + spares:
            edit.add_spare("v", label)
            spares.append(label)
        elif what == "drop":
            assert edit.remove_spare(label) == (label in spares)
            spares = [spare for spare in spares if spare != label]
        elif what == "leave":
            assert edit.put_member("v", label) == (label in members)
            members = ["missing" if member == label else member for member in members]
        elif what == "take" and label in members and other in spares:
            assert edit.put_member("v", label, other)
            members[members.index(label)] = other
            spares.remove(other)
        (array,) = edit.write(SystemHostFs()).arrays
        assert (list(array.members), list(array.spares)) == (members, spares)
        text = file.read_text()
        assert text.startswith("# first\n")
        assert "# mine" in text
        assert "# last\n" in text
        assert text.endswith('[mount]\nmode = "0600"\n')
