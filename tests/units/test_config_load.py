"""Loading a configuration: what it means, and for every mistake one sentence with its line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.array.levels import LEVELS
from orionfs.config.load import examine_text, load_spec
from orionfs.config.spec import LEVEL_ALIASES, ArraySpec
from orionfs.errors import AccessRefused, ConfigError, NotFound, OrionError

GOOD = """\
# comment
[[array]]
name = "vault"
level = "raid5"
chunk = "64KiB"
layout = "left-symmetric"
members = [
  "members/d0.img",
  "members/d1.img",  # the second
  "/dev/sdb",
]
member_size = "256MiB"
mode = "0640"
uid = 0
gid = "root"
truncate = "ignore"
read_only = true
direct = true

[mount]
allow_other = true
mode = 0o644
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "orionfs.toml"
    file.write_text(text)
    return file


def problem_of(text: str) -> ConfigError:
    """The first problem of a configuration with this text."""
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert spec is None
    return problems[0]


def array(**changes: str) -> str:
    """A good [[array]] with some keys written differently; None leaves a key out."""
    keys = {"name": '"vault"', "level": '"raid5"', "members": '["a", "b", "c"]'} | changes
    return "[[array]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value)


def test_everything_that_can_be_said_is_understood(tmp_path: Path):
    spec = load_spec(write(tmp_path, GOOD))
    assert spec.folder == tmp_path
    assert spec.state_folder == tmp_path / "state"
    assert spec.mount.allow_other
    assert spec.mount.mode == 0o644
    assert spec.arrays == (
        ArraySpec(
            name="vault",
            level="raid5",
            members=("members/d0.img", "members/d1.img", "/dev/sdb"),
            chunk=65536,
            layout="left-symmetric",
            member_size=256 << 20,
            mode=0o640,
            uid=0,
            gid=0,
            truncate="ignore",
            read_only=True,
            direct=True,
            line=2,
            member_lines=(8, 9, 10),
        ),
    )


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path):
    write(tmp_path, GOOD)
    assert load_spec(tmp_path) == load_spec(tmp_path / "orionfs.toml")


@pytest.mark.parametrize(("written", "level"), [*LEVEL_ALIASES.items(), *((level, level) for level in LEVELS)])
def test_a_level_has_several_names(written: str, level: str):
    members = '["a", "b", "c"]'
    for value in [f'"{written}"', f'"{written.upper()}"', *([written] if written.isdigit() else [])]:
        spec, problems = examine_text(array(level=value, members=members), Path("/store/orionfs.toml"))
        assert not problems
        assert spec is not None
        assert spec.arrays[0].level == level


MANY = "".join(array(name=f'"n{number}"', members=f'["{number}a", "{number}b"]') for number in range(257))

#: A configuration with one mistake: its text, the line, words of the sentence, words of the hint.
MISTAKES = {
    "syntax": ("[[array]]\nname vault\n", 2, "not TOML: expected '='", "mend this line"),
    "syntax at the end": ("[[array]]\nname = ", 2, "not TOML: invalid value", "mend"),
    "a key twice": ('[[array]]\nname = "a"\nname = "b"\n', 3, "overwrite", "mend"),
    "a huge number": (f"x = {'9' * 5000}\n", 0, "not TOML", "mend"),
    "nothing": ("", 0, "declares no [[array]]", "add one"),
    "array is a table": ('[array]\nname = "a"\n', 1, "not a list of tables", "[[array]]"),
    "array is a list": ("array = []\n", 1, "not a list of tables", "[[array]]"),
    "unknown key": (array(levle='"x"'), 5, 'unknown key "levle" in [[array]]', "did you mean level?"),
    "unknown key, nothing near": (array(zzz="1"), 5, 'unknown key "zzz"', "it can be chunk, "),
    "unknown table": (array() + "[mnt]\n", 5, 'unknown key "mnt"', "mount"),
    "unknown mount key": (array() + "[mount]\nallow_others = true\n", 6, "allow_others", "did you mean allow_other?"),
    "mount is no table": ("mount = 1\n" + array(), 1, "mount is not a table", "[mount]"),
    "no name": (array(name=""), 1, "has no name", "name ="),
    "no level": (array(level=""), 1, "has no level", "level ="),
    "no members": (array(members=""), 1, "has no members", "members ="),
    "name is a path": (array(name='"../x"'), 2, '"../x" cannot be a name', "letters"),
    "name is a number": (array(name="7"), 2, "not a text", "letters"),
    "name is empty": (array(name='""'), 2, '"" cannot be a name', "letters"),
    "name too long": (array(name=f'"{"n" * 33}"'), 2, "more than 32", "letters"),
    "name with control characters": (array(name=r'"a\u001b[2J"'), 2, r'"a\u001b[2J" cannot', "letters"),
    "unknown level": (array(level='"raid55"'), 3, 'no level "raid55"', "did you mean raid5?"),
    "level is true": (array(level="true"), 3, "no level true", "it can be"),
    "later level": (array(level='"raid6"'), 3, 'level "raid6" is not in this release', "it can be linear"),
    "later level by number": (array(level="10"), 3, "level 10 is not in this release", "raid5"),
    "later level z": (array(level='"z2"'), 3, "not in this release", "raid5"),
    "members is a text": (array(members='"a"'), 4, "not a list", "members = ["),
    "a member is a number": (array(members='["a",\n 2,\n "c"]'), 5, "member 2 is not a text", "quotes"),
    "a member is empty": (array(members='["a",\n "c", ""]'), 5, "names nothing", "path"),
    "too few members": (array(members='["a"]'), 4, "raid5 needs at least 2 members and this one has 1", "add"),
    "too many members": (array(members=str([f"d{n}" for n in range(385)])), 4, "385 members", "several"),
    "a remote member": (array(members='["a",\n"b",\n"nbd://h/c"]'), 6, "remote members (nbd) are not", "name a file"),
    "an unknown backend": (array(members='["a", "b", "ftp:c"]'), 4, "no backend ftp", "./ftp:c"),
    "a malformed URL": (array(members='["a", "b", "file:c?direct"]'), 4, "'direct' is not a parameter", "key=value"),
    "a zero byte": (array(members='["a",\n"file:%00", "c"]'), 5, "'file:%00' is not a path or URL", "without"),
    "a zero byte in a parameter": (array(members='["a", "b", "file:c?direct=%00"]'), 4, "zero byte", "without"),
    "chunk too small": (array(chunk='"2KiB"'), 5, "2 KiB is too small, the least is 4 KiB", "64KiB"),
    "chunk too large": (array(chunk='"2GiB"'), 5, "2 GiB is too large", "64KiB"),
    "chunk no power of two": (array(chunk="12288"), 5, "(12288 bytes) is not a power of two", "64KiB"),
    "chunk is no size": (array(chunk='"big"'), 5, "'big' is not a size", "64KiB"),
    "chunk is negative": (array(chunk="-1"), 5, "negative", "64KiB"),
    "chunk is a list": (array(chunk="[1]"), 5, "chunk is a list, not a size", "64KiB"),
    "chunk of a mirror": (array(level='"raid1"', chunk='"64KiB"'), 5, "raid1 has no chunks", "remove"),
    "layout of a mirror": (array(level='"raid1"', layout='"near"'), 5, "raid1 has no layouts", "remove"),
    "unknown layout": (array(layout='"left-symetric"'), 5, "layout cannot be", "did you mean left-symmetric?"),
    "member_size too small": (array(member_size='"1MiB"'), 5, "too small, the least is 2 MiB", "256MiB"),
    "member_size odd": (array(member_size="5000001"), 5, "5000001 is not a multiple of 4096", "= 4997120"),
    "mode in decimal": (array(mode="640"), 5, "mode is 640, which is not written in octal", "0o640"),
    "mode with sticky bits": (array(mode='"4755"'), 5, "bits beside the permissions", "0640"),
    "mode is words": (array(mode='"rw-"'), 5, 'mode is "rw-"', "0640"),
    "unknown user": (array(uid='"nobody-here"'), 5, 'no user "nobody-here"', "number"),
    "uid is negative": (array(uid="-2"), 5, "not a user", "number"),
    "unknown group": (array(gid='"nobody-here"'), 5, 'no group "nobody-here"', "number"),
    "truncate": (array(truncate='"maybe"'), 5, 'truncate cannot be "maybe"', "refuse, ignore, discard"),
    "read_only": (array(read_only='"yes"'), 5, 'read_only is "yes", not true or false', "read_only = true"),
    "member_layers": (array(member_layers='["lz4"]'), 5, "layers behind members are not in this release", "remove"),
    "spares": (array(spares='["s"]'), 5, "spare members are not in this release", "remove"),
    "pool": (array() + '[[pool]]\nname = "tank"\n', 5, "pools are not in this release", "remove"),
    "controller": (array() + "[[controller]]\n", 5, "NVMe controllers are not in this release", "remove"),
    "two arrays of one name": (array() + array(members='["x", "y"]'), 6, "another array", "name of its own"),
    "member used twice": (array(members='["a",\n "b",\n "./a"]'), 6, "a member of vault (as a), on line 4", "once"),
    "too many arrays": (MANY, 1025, "more than 256 arrays", "split"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_the_mend(mistake: str):
    text, line, message, hint = MISTAKES[mistake]
    problem = problem_of(text)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.line == line
    assert problem.exit_code == 2
    place = f"/store/orionfs.toml:{line}: " if line else "/store/orionfs.toml: "
    assert str(problem).startswith(place)
    assert "\n" not in str(problem)


def test_all_problems_are_found_and_sorted_by_line():
    text = array(chunk="1", mode="9", level='"raid6"') + "[mount]\nuid = true\n"
    _spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert [problem.line for problem in problems] == [3, 5, 6, 8]


def test_an_array_that_contains_itself_is_refused_with_the_way_round():
    text = array(name='"a"', members='["b", "x", "y"]') + array(name='"b"', members='["c", "z"]', level='"raid1"')
    text += array(name='"c"', level='"raid0"', members='["p",\n"a"]')
    problem = problem_of(text)
    assert problem.message == "array a would be made of itself (a -> b -> c -> a)"
    assert problem.line == 4


def test_an_array_that_is_its_own_member_is_refused():
    assert "(vault -> vault)" in problem_of(array(members='["vault", "b"]')).message


def test_a_symbolic_link_does_not_hide_that_a_member_is_used_twice(tmp_path: Path):
    (tmp_path / "link").symlink_to("a")
    file = write(tmp_path, array(members='["a", "b", "link"]'))
    with pytest.raises(ConfigError, match="already a member of vault") as caught:
        load_spec(file)
    assert caught.value.line == 4


def test_an_array_inside_of_two_is_refused():
    text = array(name='"in"', level="1", members='["a", "b"]')
    text += array(name='"one"', level="0", members='["in", "c"]') + array(
        name='"two"', level="0", members='["in", "d"]'
    )
    assert "already a member of one" in problem_of(text).message


def test_memory_members_are_new_devices_each_time():
    _spec, problems = examine_text(
        array(members='["memory:?size=8MiB", "memory:?size=8MiB"]'), Path("/store/orionfs.toml")
    )
    assert not problems


# --- the file itself -------------------------------------------------------------------------------------------------


def refusal(path: Path) -> OrionError:
    with pytest.raises(OrionError) as caught:
        load_spec(path)
    return caught.value


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path):
    error = refusal(tmp_path / "no.toml")
    assert isinstance(error, NotFound)
    assert error.exit_code == 3
    assert f"orionctl init {tmp_path}/no.toml" in error.hint


def test_a_folder_without_configuration_is_not_found(tmp_path: Path):
    assert "no orionfs.toml in" in refusal(tmp_path).message


def test_an_unreadable_file_is_refused_with_the_permission_code(tmp_path: Path, as_nobody):
    file = write(tmp_path, GOOD)
    file.chmod(0)
    with as_nobody():
        error = refusal(file)
    assert isinstance(error, AccessRefused)
    assert error.exit_code == 7
    assert error.message == f"{file} may not be read by this user"


def test_a_folder_that_may_not_be_searched_is_refused_with_the_permission_code(tmp_path: Path, as_nobody):
    (tmp_path / "closed").mkdir(mode=0)
    with as_nobody():
        assert refusal(tmp_path / "closed" / "store").exit_code == 7


@pytest.fixture
def as_nobody():
    """A context without the rights of root, who may read everything."""

    @contextmanager
    def drop() -> Iterator[None]:
        mine = os.geteuid()
        os.seteuid(65534 if mine == 0 else mine)
        try:
            yield
        finally:
            os.seteuid(mine)

    return drop


def test_a_pipe_is_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").message


def test_another_kind_of_file_is_refused(tmp_path: Path):
    file = tmp_path / "image"
    file.write_bytes(b"[[array]]\nname = '\xff'")
    error = refusal(file)
    assert str(error).startswith(f"{file}:2: this line is not UTF-8")
    with file.open("wb") as stream:
        stream.truncate(2 << 20)
    assert "larger than 256 KiB" in refusal(file).message


DEEP = {
    "lists": "x = " + "[" * 5000 + "]" * 5000,
    "a list over many lines": "x = " + "[" * 16 + "\n" * 3 + "[",
    "inline tables": "x = " + "{a=" * 5000,
    "a dotted key": "a" + ".a" * 40000 + " = 1",
    "a quoted key": "a" + ' . \'a\'."\\""' * 9 + " = 1",
    "a header": "[a" + ".a" * 40000 + "]",
    "a key in an inline table": "x = {a" + ".a" * 40000 + " = 1}",
}


@pytest.mark.parametrize("before", ["", "# it's\n", 'a = """\n"""""\n', "b = '''\n\\'''\n", 'c = "\\""\r\nd = 1\r\n'])
@pytest.mark.parametrize("kind", DEEP)
def test_deep_nesting_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch, kind: str, before: str):
    monkeypatch.setattr("tomllib.loads", lambda _text: pytest.fail("it would take time with the square of the depth"))
    problem = problem_of(before + DEEP[kind])
    assert "nested too deeply" in problem.message
    assert problem.line == before.count("\n") + 1 + (3 if "lines" in kind else 0)
    assert problem.exit_code == 2


@pytest.mark.parametrize("quote", ['"', "'", '"""', "'''"])
def test_what_stands_in_strings_and_comments_is_not_nesting(quote: str):
    noise = "." * 20 + "[" * 20 + "#a.b" * 20
    text = f"[[array]] # {noise}\nname = 'x'\nlevel = 'raid1'\nmembers = [{quote}{noise}{quote}, # {noise}\n'b',\n]\n"
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert not problems
    assert spec is not None
    assert spec.arrays[0].members[0] == noise


def test_the_largest_configuration_is_not_refused_for_its_size_or_depth():
    members = [[f"members/array-{number}/d{disk}.img" for disk in range(24)] for number in range(256)]
    text = "".join(array(name=f'"n{number}"', members=str(names)) for number, names in enumerate(members))
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert not problems
    assert spec is not None
    assert len(spec.arrays) == 256


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_a_spec_or_problems(text: str):
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert (spec is None) == bool(problems)


KEYS = ["name", "level", "members", "chunk", "layout", "mode", "uid", "truncate", "read_only", "member_size", "spares"]
VALUES = ["1", "-1", "true", '"x"', '"raid0"', '["a", "b"]', "[1, [2]]", "{ a = 1 }", "1.5", "2020-01-01", '""', "0o7"]


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=3))
def test_values_of_any_type_are_a_spec_or_problems_with_lines(tables: list[dict[str, str]]):
    text = "".join("[[array]]\n" + "".join(f"{key} = {value}\n" for key, value in t.items()) for t in tables)
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert (spec is None) == bool(problems)
    assert all(problem.line > 0 or not tables for problem in problems)
