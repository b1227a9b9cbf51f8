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
from orionfs.array.policies import Policies
from orionfs.config.graph import claimed, spares_of
from orionfs.config.levels import LEVEL_ALIASES, level_names
from orionfs.config.load import examine_text, load_spec
from orionfs.config.spec import ArraySpec, Spec
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

REDUNDANT = """\
[[array]]
name = "vault"
level = "raid5"
members = ["d0", "d1", "d2"]
consistency = "journal"
spares = [
  "s0",
  "s1",
]
bitmap = true
read_policy = "nearest"
write_policy = "through"
whole_stripes = "journal"
spare_policy = "manual"
stripe_cache = "32MiB"
rebuild_floor = "1MiB"
rebuild_ceiling = "100MB"
max_read_errors = 5

[[array]]
name = "mirror"
level = "raid1"
members = ["m0", "m1"]
write_mostly = ["m1"]
bitmap = false

[mount]
spares = ["s2"]
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


def test_everything_about_redundancy_is_understood(tmp_path: Path):
    spec = load_spec(write(tmp_path, REDUNDANT))
    vault, mirror = spec.arrays
    assert (vault.consistency, vault.bitmap) == ("journal", True)
    assert Policies(**vault.policies) == Policies(
        read_policy="nearest",
        write_policy="through",
        whole_stripes="journal",
        spare_policy="manual",
        stripe_cache=32 << 20,
        rebuild_floor=1 << 20,
        rebuild_ceiling=100_000_000,
        max_read_errors=5,
    )
    assert (vault.spares, vault.spare_lines) == (("s0", "s1"), (7, 8))
    assert (mirror.write_mostly, mirror.bitmap, mirror.policies) == (("m1",), False, {})
    assert spec.mount.spares == ("s2",)


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path):
    write(tmp_path, GOOD)
    assert load_spec(tmp_path) == load_spec(tmp_path / "orionfs.toml")


KNOWN_ALIASES = [(written, level) for written, level in LEVEL_ALIASES.items() if level in level_names()]


@pytest.mark.parametrize(("written", "level"), [*KNOWN_ALIASES, *((level, level) for level in LEVELS)])
def test_a_level_has_several_names(written: str, level: str):
    members = {"raid1e": '["a", "b", "c"]'}.get(level, '["a", "b", "c", "d", "e", "f", "g", "h"]')
    for value in [f'"{written}"', f'"{written.upper()}"', *([written] if written.isdigit() else [])]:
        spec, problems = examine_text(array(level=value, members=members), Path("/store/orionfs.toml"))
        assert not problems
        assert spec is not None
        assert (spec.arrays[0].declared_level or spec.arrays[0].level) == level


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
    "unknown key, nothing near": (array(zzz="1"), 5, 'unknown key "zzz"', "it can be bitmap, "),
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
    "later level": (array(level='"raid5e"'), 3, 'level "raid5e" is not in this release', "it can be linear"),
    "no level by number": (array(level="11"), 3, "no level 11", "it can be linear"),
    "more copies than members": (
        array(level='"raid10"\nlayout = "n4"'),
        4,
        "layout n4 keeps 4 copies and so needs 4 members, and this array has 3",
        "fewer copies",
    ),
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
    "spares are no list": (array(spares='"s"'), 5, 'spares is "s", not a list', "spares = ["),
    "a spare is a number": (array(spares="[1]"), 5, "spare 1 is not a text", "quotes"),
    "a spare is empty": (array(spares='["a1", " "]'), 5, 'spare 2 is " ", which names nothing', "path"),
    "a remote spare": (array(spares='["nbd://h/s"]'), 5, "remote spares (nbd) are not in this release", "file"),
    "a spare of raid0": (array(level='"raid0"', spares='["s"]'), 5, "raid0 has no redundancy", "another level"),
    "a spare that is a member": (array(spares='["c"]'), 5, "spare c of vault is already a member of vault", "once"),
    "a spare by another name": (array(spares='["s",\n"./b"]'), 6, "already a member of vault (as b)", "once"),
    "a spare twice": (
        array(spares='["s"]') + array(name='"two"', members='["x", "y"]', spares='["s"]'), 10,
        "spare s of two is already a spare of vault, on line 5", "once"),
    "a shared spare that is dedicated": (
        array(spares='["s"]') + '[mount]\nspares = ["s"]\n', 7, "spare s is already a spare of vault", "once"),
    "a shared spare twice": (
        array() + '[mount]\nspares = ["s", "s"]\n', 6, "spare s is already a shared spare, on line 6", "once"),
    "an array as a spare": (
        array(spares='["in"]') + array(name='"in"', members='["x", "y"]'), 5, "spare in of vault is an array", "./in"),
    "a missing spare": (array(spares='["missing"]'), 5, "a spare cannot be missing", "take it out"),
    "a missing member of raid0": (
        array(level='"raid0"', members='["a",\n"missing"]'), 5, "raid0 cannot do without a member", "every"),
    "write_mostly of raid5": (array(write_mostly='["a"]'), 5, "for levels that keep copies", "remove"),
    "write_mostly is no list": (array(level="1", write_mostly="true"), 5, "write_mostly is true, not a list", "["),
    "write_mostly nobody": (array(level="1", write_mostly='["z"]'), 5, '"z" is write_mostly, and no', "a, b, c"),
    "write_mostly twice": (array(level="1", write_mostly='["a", "a"]'), 5, '"a" is listed twice', "once"),
    "consistency": (array(consistency='"jurnal"'), 5, 'consistency cannot be "jurnal"', "did you mean journal?"),
    "consistency of a mirror": (array(level="1", consistency='"journal"'), 5, "raid1 has none", "remove"),
    "ppl of raid1": (array(level="1", consistency='"ppl"'), 5, "for levels with parity", "remove"),
    "ppl with a bitmap": (array(consistency='"ppl"', bitmap="true"), 6, "exclude each other", "bitmap = false"),
    "bitmap is a word": (array(bitmap='"internal"'), 5, 'bitmap is "internal", not true or false', "bitmap = true"),
    "bitmap of raid0": (array(level="0", bitmap="true"), 5, "raid0 has no redundancy", "remove"),
    "read_policy": (array(read_policy='"fastest"'), 5, 'read_policy cannot be "fastest"', "adaptive, round-robin"),
    "write_policy": (array(write_policy='"back"', consistency='"resync"'), 5, "needs a journal", "through"),
    "stripe_cache": (array(stripe_cache="4096"), 5, "4 KiB is too small, the least is 1 MiB", "64MiB"),
    "stripe_cache is a word": (array(stripe_cache='"big"'), 5, "'big' is not a size", "64KiB"),
    "max_read_errors": (array(max_read_errors="0"), 5, "max_read_errors is 0, not a whole number of at least 1", "= 2"),
    "max_read_errors is true": (array(max_read_errors="true"), 5, "max_read_errors is true", "= 2"),
    "ceiling below floor": (
        array(rebuild_floor='"2M"', rebuild_ceiling='"1M"'), 6, "rebuild_ceiling 1 MiB is below", "0 for none"),
    "a policy of raid0": (array(level="0", read_policy='"nearest"'), 5, "read_policy has no effect", "remove"),
    "raid1e of four": (array(level='"1e"', members='["a", "b", "c", "d"]'), 4, "an odd number of members", "raid10"),
    "raid1e with a layout": (array(level='"1e"', layout='"f2"'), 5, "raid1e has no layouts", "remove"),
    "ppl of raid6": (
        array(level="6", members=str([*"abcd"]), consistency='"ppl"'), 5, "exists for raid5 only", "journal"),
    "groups of raid5": (array(groups="2"), 5, "raid5 has no groups", "raid50 and raid60"),
    "groups that do not divide": (
        array(level="50", groups="4", members=str([*"abcdef"])), 5, "6 members cannot be divided into 4 groups", "add"),
    "members that two groups do not divide": (
        array(level="50", members=str([*"abcde"])), 4, "5 members cannot be divided into 2 groups", "add"),
    "groups that are too small": (
        array(level="50", groups="6", members=str([*"abcdef"])), 5, "needs at least 2 members, and 1 are left", "add"),
    "one group": (array(level="50", groups="1", members=str([*"abcdef"])), 5, "1 group would be raid5", "groups = 2"),
    "groups are a word": (
        array(level="50", groups='"two"', members=str([*"abcdef"])), 5, 'groups is "two", not a whole', "groups = 2"),
    "the name of a group": (
        array(level="50", members=str([*"abcdef"])) + array(name='"vault.1"', members='["x", "y"]'), 6,
        'another array "vault.1" on line 1', "of its own"),
    "a name that is too long for groups": (
        array(level="50", name=f'"{"n" * 31}"', members=str([*"abcdef"])), 2, "too long for its parts", "at most 30"),
    "chunk of jbod": (array(level='"jbod"', chunk='"64KiB"'), 5, "jbod has no chunks", "remove"),
    "spares of jbod": (array(level='"jbod"', spares='["s"]'), 5, "jbod has no redundancy", "another level"),
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
    text = array(chunk="1", mode="9", level='"raid5e"') + "[mount]\nuid = true\n"
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


# --- tables that stand for several arrays ----------------------------------------------------------------------------


def spec_of(text: str) -> Spec:
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert not problems
    assert spec is not None
    return spec


def test_raid50_is_a_raid0_over_raid5_arrays():
    keys = {"bitmap": "false", "stripe_cache": '"8MiB"', "member_size": '"64MiB"', "spares": '["s"]', "mode": '"0640"'}
    spec = spec_of(array(level="50", groups="3", members=str([*"abcdefghi"]), chunk='"16KiB"', **keys))
    outer, *inner = spec.arrays
    assert (outer.name, outer.level, outer.declared_level, outer.chunk) == ("vault", "raid0", "raid50", 32 << 10)
    assert (outer.members, outer.groups, outer.part_of) == (("vault.0", "vault.1", "vault.2"), 3, "")
    assert [part.members for part in inner] == [("a", "b", "c"), ("d", "e", "f"), ("g", "h", "i")]
    for part in inner:
        assert (part.level, part.chunk, part.part_of, part.bitmap) == ("raid5", 16 << 10, "vault", False)
        assert (part.policies, part.member_size, part.mode) == ({"stripe_cache": 8 << 20}, 64 << 20, 0o640)
    assert claimed(spec) == {"vault.0": "vault", "vault.1": "vault", "vault.2": "vault"}
    assert [(spare.label, spare.serves) for spare in spares_of(spec)] == [("s", ("vault.0", "vault.1", "vault.2"))]
    assert spec.names == ("vault",)
    assert [part.name for part in spec.parts("vault")] == ["vault.0", "vault.1", "vault.2"]


def test_the_chunk_over_groups_is_a_stripe_of_one_up_to_a_power_of_two():
    for each, chunk in ((2, 64), (3, 128), (4, 256), (5, 256), (6, 512)):
        members = [f"d{number}" for number in range(2 * each)]
        assert spec_of(array(level="50", members=str(members))).arrays[0].chunk == chunk << 10


def test_raid1e_is_near_copies_on_an_odd_number_of_members():
    (vault,) = spec_of(array(level='"1E"', members='["a", "b", "c", "d", "e"]')).arrays
    assert (vault.level, vault.layout, vault.declared_level) == ("raid10", "n2", "raid1e")
    assert LEVELS[vault.level].layouts["n2"] == 0x102


def test_jbod_is_one_file_for_each_member():
    spec = spec_of(array(level='"jbod"', members='["a",\n"b"]'))
    assert [(one.name, one.level, one.members, one.part_of) for one in spec.arrays] == [
        ("vault.0", "jbod", ("a",), "vault"),
        ("vault.1", "jbod", ("b",), "vault"),
    ]
    assert [one.line_of_member(0) for one in spec.arrays] == [4, 5]


def test_shared_spares_serve_every_array_with_redundancy():
    text = array(spares='["d"]') + array(name='"m"', level="1", members='["x", "y"]')
    text += array(name='"fast"', level="0", members='["p", "q"]') + '[mount]\nspares = [\n"s0",\n"s1"]\n'
    spares = spares_of(spec_of(text))
    assert [(spare.label, spare.serves, spare.dedicated) for spare in spares] == [
        ("d", ("vault",), True),
        ("s0", ("vault", "m"), False),
        ("s1", ("vault", "m"), False),
    ]
    assert [spare.line for spare in spares] == [5, 16, 17]


def test_an_empty_slot_is_declared_by_the_word_that_mdadm_has():
    (vault,) = spec_of(array(members='["a", "missing", "missing"]')).arrays
    assert list(vault.present) == [(0, "a")]


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


KEYS = ["name", "level", "members", "chunk", "layout", "mode", "uid", "truncate", "read_only", "member_size"]
KEYS += ["spares", "write_mostly", "consistency", "bitmap", "groups", "read_policy", "stripe_cache", "max_read_errors"]
VALUES = [
    "1",
    "-1",
    "true",
    '"x"',
    '"raid0"',
    '"jbod"',
    '"raid50"',
    '["a", "b", "c", "missing"]',
    '["a", "b"]',
    "[1, [2]]",
    "{ a = 1 }",
    "1.5",
    "2020-01-01",
    '""',
    "0o7",
]


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)), max_size=3))
def test_values_of_any_type_are_a_spec_or_problems_with_lines(tables: list[dict[str, str]]):
    text = "".join("[[array]]\n" + "".join(f"{key} = {value}\n" for key, value in t.items()) for t in tables)
    spec, problems = examine_text(text, Path("/store/orionfs.toml"))
    assert (spec is None) == bool(problems)
    assert all(problem.line > 0 or not tables for problem in problems)
