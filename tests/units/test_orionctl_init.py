"""orionctl init: what it makes, that it can be run again, and everything that it must leave alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orionfs.config.load import load_spec
from orionfs.environment import Environment
from orionfs.errors import ConfigError, Refused
from orionfs.initialize import initialize, is_zero
from orionfs.testing.ram import RamDevice
from orionfs.tools.orionctl.main import run
from orionfs.units import MIB


@pytest.fixture
def orionctl(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``orionctl("init", folder)`` is (exit status, standard output, standard error)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_new_folder_gets_a_configuration_members_and_an_array(orionctl, tmp_path: Path):
    store = tmp_path / "deep" / "store"
    code, out, err = orionctl("init", store, "--size", "8MiB")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"configuration {store}/orionfs.toml: created",
        *(f"member members/d{number}.img: created, 8 MiB" for number in range(4)),
        "array vault: created",
    ]
    (array,) = load_spec(store).arrays
    assert (array.name, array.level, array.chunk, array.member_size) == ("vault", "raid5", 65536, 8 * MIB)
    for member in array.members:
        status = (store / member).stat()
        assert status.st_size == 8 * MIB
        assert status.st_blocks * 512 < MIB  # sparse
        assert status.st_mode & 0o777 == 0o600


def test_a_second_time_nothing_changes(orionctl, tmp_path: Path):
    orionctl("init", tmp_path / "s", "--size", "4MiB")
    before = contents(tmp_path / "s")
    code, out, _err = orionctl("init", tmp_path / "s")
    assert (code, out) == (0, "array vault: there already\n")
    assert contents(tmp_path / "s") == before


def test_every_choice_is_written(orionctl, tmp_path: Path):
    choices = ["--name", "tank", "--level", "5", "--members", "3", "--size", "16M", "--chunk", "4K", "--layout"]
    assert orionctl("init", tmp_path / "my.toml", *choices, "parity-first")[0] == 0
    (array,) = load_spec(tmp_path / "my.toml").arrays
    assert (array.name, array.level, len(array.members), array.chunk) == ("tank", "raid5", 3, 4096)
    assert (array.layout, array.members[0]) == ("parity-first", "my-members/d0.img")


USUAL = {"linear": 2, "raid0": 4, "mirror": 2, "4": 4, "5": 4, "6": 4, "10": 4, "1e": 3, "50": 6, "60": 8, "jbod": 2}


@pytest.mark.parametrize("level", USUAL)
def test_each_level_has_its_usual_number_of_members(orionctl, tmp_path: Path, level: str):
    assert orionctl("init", tmp_path / "s", "--level", level, "--size", "8MiB")[0] == 0
    assert len(list((tmp_path / "s" / "members").iterdir())) == USUAL[level]
    again = orionctl("init", tmp_path / "s")
    assert again[0] == 0
    assert "created" not in again[1]


@pytest.mark.parametrize("level", ["raid1", "6", "10", "50"])
def test_spares_are_made_with_the_rest(orionctl, tmp_path: Path, level: str):
    code, out, _err = orionctl("init", tmp_path / "s", "--level", level, "--spares", "2", "--size", "8MiB")
    assert code == 0
    assert "spare members/s1.img: created, 8 MiB" in out
    assert load_spec(tmp_path / "s").arrays[0].spares == ("members/s0.img", "members/s1.img")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (["--level", "raid9"], "there is no level raid9; it can be linear, raid0, raid1, raid4, raid5, raid6"),
        (["--name", "a/b"], '"a/b" cannot be a name; choose letters'),
        (["--members", "1"], "raid5 needs at least 2 members and this one has 1"),
        (["--members", "0"], "0 is not a possible number of members"),
        (["--spares", "-1"], "-1 is not a possible number of spares"),
        (["--level", "0", "--spares", "1"], "raid0 has no redundancy, so that no spare could ever take over"),
        (["--level", "50", "--members", "5"], "5 members cannot be divided into 2 groups of the same size"),
        (["--level", "1e", "--members", "4"], "raid1e is for an odd number of members and this one has 4"),
        (["--chunk", "5K"], "chunk 5 KiB (5120 bytes) is not a power of two"),
        (["--size", "1M"], "member_size 1 MiB is too small, the least is 2 MiB"),
        (["--layout", 'x"'], 'raid5 has no layout x"; it can be left-symmetric'),
        (["--level", "raid1", "--chunk", "64K"], "raid1 has no chunks"),
        (["--level", "raid1", "--layout", "near"], "raid1 has no layout near; leave --layout out"),
    ],
)
def test_a_wrong_choice_is_one_sentence_and_makes_nothing(orionctl, tmp_path: Path, choices: list[str], message: str):
    code, out, err = orionctl("init", tmp_path / "s", *choices)
    assert (code, out) == (2, "")
    assert err.startswith(f"orionctl: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_choices_for_a_configuration_that_is_there_are_refused(orionctl, tmp_path: Path):
    orionctl("init", tmp_path / "s", "--size", "4MiB")
    code, _out, err = orionctl("init", tmp_path / "s", "--level", "raid1")
    assert code == 2
    assert "is there already, so --level has no effect" in err


def test_a_dry_run_makes_nothing(orionctl, tmp_path: Path):
    code, out, _err = orionctl("init", tmp_path / "s", "--dry-run", "--json")
    plan = json.loads(out)
    assert (code, plan["schema"], plan["dry_run"]) == (0, "orionfs.init/1", True)
    assert [step["kind"] for step in plan["steps"]] == ["configuration", *["member"] * 4, "array"]
    assert not (tmp_path / "s").exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(orionctl):
    code, _out, err = orionctl("init", "/proc/store", "--size", "4MiB")
    assert code in (3, 7)
    assert err.count("\n") == 1


# --- what is there already -------------------------------------------------------------------------------------------

CONFIG = """\
[[array]]
name = "vault"
level = "raid5"
members = ["a", "b", "c"]
member_size = "4MiB"
"""


def store(folder: Path, config: str = CONFIG, **members: bytes) -> Path:
    """A configuration and members with these contents at 1 MiB."""
    (folder / "orionfs.toml").write_text(config)
    for name, data in members.items():
        with (folder / name).open("wb") as stream:
            stream.truncate(4 * MIB)
            stream.seek(MIB)
            stream.write(data)
    return folder


def test_members_that_are_all_zeros_are_used(orionctl, tmp_path: Path):
    store(tmp_path, a=b"", b=bytes(100000))
    code, out, _err = orionctl("init", tmp_path)
    assert (code, out) == (0, "member c: created, 4 MiB\narray vault: created\n")


def test_one_byte_that_is_not_zero_is_somebodys_data(orionctl, tmp_path: Path):
    store(tmp_path, a=b"", b=bytes(100000) + b"\1", c=b"")
    before = contents(tmp_path)
    code, out, err = orionctl("init", tmp_path)
    assert (code, out) == (5, "")
    assert err.startswith("orionctl: array vault: b holds data that is not OrionFS's, and nothing is ever made over")
    assert contents(tmp_path) == before


def test_nothing_is_made_if_one_of_several_arrays_is_refused(orionctl, tmp_path: Path):
    more = '[[array]]\nname = "m"\nlevel = "raid1"\nmembers = ["x", "y"]\nmember_size = "4MiB"\n'
    store(tmp_path, CONFIG + more, y=b"data")
    before = contents(tmp_path)
    assert orionctl("init", tmp_path)[0] == 5
    assert contents(tmp_path) == before


@pytest.mark.parametrize("replacement", [None, b""])
def test_an_array_with_a_member_missing_or_blank_is_never_made_anew(
    orionctl, tmp_path: Path, replacement: bytes | None
):
    store(tmp_path)
    assert orionctl("init", tmp_path)[0] == 0
    (tmp_path / "b").unlink()
    if replacement is not None:
        store(tmp_path, b=replacement)
    before = contents(tmp_path)
    code, _out, err = orionctl("init", tmp_path)
    problem = "is missing" if replacement is None else "is empty"
    assert code == 5
    assert f"array vault: b {problem} while other members already belong to an array" in err
    assert contents(tmp_path) == before


def test_a_missing_member_of_no_known_size_names_its_line(orionctl, tmp_path: Path):
    store(tmp_path, CONFIG.replace('member_size = "4MiB"\n', ""), a=b"", b=b"")
    code, _out, err = orionctl("init", tmp_path)
    assert code == 2
    assert err.startswith(f"orionctl: {tmp_path}/orionfs.toml:4: member c of vault does not exist")
    assert not (tmp_path / "c").exists()


def test_members_that_keep_nothing_are_refused(orionctl, tmp_path: Path):
    store(tmp_path, CONFIG.replace('"b"', '"memory:?size=8MiB"'))
    code, _out, err = orionctl("init", tmp_path)
    assert code == 2
    assert "keeps nothing, so no array can be made on it" in err
    assert not (tmp_path / "a").exists()


def test_a_directory_as_member_is_one_sentence(orionctl, tmp_path: Path):
    store(tmp_path)
    (tmp_path / "b").mkdir()
    code, _out, err = orionctl("init", tmp_path)
    assert code != 0
    assert err.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_nested_arrays_are_made_from_the_inside_out(orionctl, tmp_path: Path):
    config = '[[array]]\nname = "top"\nlevel = "raid0"\nmembers = ["left", "right"]\n'
    for name in ("left", "right"):
        config += (
            f'[[array]]\nname = "{name}"\nlevel = "raid1"\nmembers = ["{name}0", "{name}1"]\nmember_size = "8MiB"\n'
        )
    store(tmp_path, config)
    code, out, err = orionctl("init", tmp_path)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("array")] == [
        "array left: created",
        "array right: created",
        "array top: created",
    ]
    again = orionctl("init", tmp_path)[1]
    assert again.count("there already") == 3
    dry = orionctl("init", tmp_path, "--dry-run")[1]
    assert dry == again


def test_a_locked_member_is_in_use(orionctl, tmp_path: Path):
    import fcntl
    import struct

    store(tmp_path, a=b"")
    with (tmp_path / "a").open("r+b") as stream:
        fcntl.fcntl(stream, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        code, _out, err = orionctl("init", tmp_path)
    assert code == 5
    assert err.count("\n") == 1


async def test_an_attempt_that_was_cut_off_is_taken_up_again(tmp_path: Path):
    store(tmp_path)
    spec = load_spec(tmp_path)
    environment = Environment()
    await initialize(spec, environment)
    # As after a cut while superblocks were being prepared: event count 0, everyone a spare.
    from orionfs.array.superblock import ROLE_SPARE, Superblock

    for name in "ab":
        with (tmp_path / name).open("r+b") as stream:
            stream.seek(4096)
            superblock = Superblock.parse(stream.read(4096))
            superblock.events = 0
            superblock.dev_roles = [ROLE_SPARE] * superblock.max_dev
            stream.seek(4096)
            stream.write(superblock.encode())
    (tmp_path / "c").unlink()
    steps = await initialize(spec, environment)
    assert [(step.action, step.name) for step in steps] == [("created", "c"), ("created", "vault")]
    assert [(step.action, step.name) for step in await initialize(spec, environment)] == [("exists", "vault")]


async def test_a_dry_run_refuses_what_a_real_one_would(tmp_path: Path):
    store(tmp_path, a=b"data")
    with pytest.raises(Refused, match="holds data"):
        await initialize(load_spec(tmp_path), Environment(), dry_run=True)
    (tmp_path / "a").unlink()
    store(tmp_path, CONFIG.replace('member_size = "4MiB"\n', ""))
    with pytest.raises(ConfigError, match="nothing says how large"):
        await initialize(load_spec(tmp_path), Environment(), dry_run=True)


@pytest.mark.parametrize("place", [0, MIB - 512, MIB, 3 * MIB - 512])
async def test_a_byte_anywhere_is_found(place: int):
    device = RamDevice("d", 3 * MIB)
    assert await is_zero(device)
    await device.write(place, [b"\1" + bytes(511)])
    assert not await is_zero(device)


def test_what_cannot_be_a_member_is_named_with_its_line(orionctl, tmp_path: Path):
    store = tmp_path / "s"
    orionctl("init", store, "--size", "4MiB")
    (store / "members" / "d1.img").unlink()
    (store / "members" / "d1.img").mkdir()
    line = load_spec(store).arrays[0].line_of_member(1)
    code, out, err = orionctl("init", store)
    assert (code, out) == (2, "")
    assert f"{store}/orionfs.toml:{line}: " in err
    assert "d1.img is a directory" in err


@pytest.mark.parametrize(("size", "words"), [(0, "d1.img is empty"), (4 * MIB - 1, "not a multiple of 512")])
def test_a_member_that_was_cut_short_is_named_with_its_line(orionctl, tmp_path: Path, size: int, words: str):
    store = tmp_path / "s"
    orionctl("init", store, "--size", "4MiB")
    os.truncate(store / "members" / "d1.img", size)
    line = load_spec(store).arrays[0].line_of_member(1)
    before = contents(store)
    code, out, err = orionctl("init", store)
    assert (code, out) == (2, "")
    assert f"{store}/orionfs.toml:{line}: " in err
    assert words in err
    assert "truncate" not in err
    assert contents(store) == before
