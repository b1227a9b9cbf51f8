"""The verbs that change arrays, carried out over real files: what happens to the array, and to the configuration."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orionfs.array.superblock import OFFSET
from orionfs.config.load import load_spec
from orionfs.control.array_schema import ARRAY_VERBS
from orionfs.control.array_verbs import ArrayVerbs
from orionfs.control.schema import check_arguments
from orionfs.errors import ConfigError, InUse, NotFound, OrionError, ReadOnly, Refused, UsageError
from orionfs.manager import StorageManager
from orionfs.units import MIB
from tests.units.manager_kit import DATA, array, blank, made, named, opened, read, states, until, write


class Mounted:
    """A running manager with its verbs: ``await mounted.do("array.fail", array="vault", member="b")``."""

    def __init__(self, folder: Path, manager: StorageManager) -> None:
        self.folder = folder
        self.manager = manager
        self._verbs = ArrayVerbs(manager).verbs()

    async def do(self, verb: str, **arguments: Any) -> dict[str, Any]:
        (known,) = (each for each in ARRAY_VERBS if each.name == verb)
        check_arguments(known, arguments)
        answer = await self._verbs[verb](arguments)
        assert answer["schema"] == f"orionfs.{verb}/1"
        return answer

    def everything(self) -> tuple[object, ...]:
        """What a verb that is refused must not change."""
        files = {file: file.read_bytes() for file in self.folder.iterdir() if file.is_file()}
        return self.text, states(self.manager), files

    @property
    def text(self) -> str:
        """The configuration as it is on disk; the daemon has read the same."""
        text = (self.folder / "orionfs.toml").read_text()
        assert self.manager.configuration.text in ("", text)
        load_spec(self.folder)
        return text


@asynccontextmanager
async def mounted(folder: Path, text: str) -> AsyncIterator[Mounted]:
    manager = await opened(await made(folder, text))
    async with manager.running():
        yield Mounted(folder, manager)


def test_there_is_a_handler_for_every_verb():
    class Nothing:
        """A manager that nobody asks."""

    verbs = ArrayVerbs(Nothing())  # type: ignore[arg-type]
    assert verbs.verbs().keys() == {verb.name for verb in ARRAY_VERBS}


# --- members ---------------------------------------------------------------------------------------------------------


async def test_a_life_of_members(tmp_path: Path, expected_logs):
    expected_logs("b is out of service", "s is out of service")
    async with mounted(tmp_path, array()) as here:
        await write(here.manager)
        blank(tmp_path, "s", "t")
        answer = await here.do("array.fail", array="vault", member="1")
        assert answer["done"] == ["b taken out of service"]
        assert answer["next"] == "orionctl array replace vault b members/new.img"
        await here.do("array.add", array="vault", devices=["s"])
        assert 'spares = ["s"]' in here.text
        await until(here.manager, lambda: states(here.manager).get("s") == "active")
        await here.do("array.remove", array="vault", member="b")
        assert 'members = ["a", "s", "c"]' in here.text
        assert "spares" not in here.text
        assert states(here.manager) == {"a": "active", "s": "active", "c": "active"}

        answer = await here.do("array.replace", array="vault", member="a", by="t")
        assert answer["done"] == ["t added to vault", "a is being replaced"]
        await until(here.manager, lambda: states(here.manager) == {"t": "active", "s": "active", "c": "active"})
        await until(here.manager, lambda: 'members = ["t", "s", "c"]' in here.manager.configuration.text)
        assert "spares" not in here.text
        assert await read(here.manager) == DATA

        await here.do("array.fail", array="vault", member="s")
        await write(here.manager, DATA[::-1])
        answer = await here.do("array.readd", array="vault", member="s")
        await until(here.manager, lambda: states(here.manager).get("s") == "active")
        assert await read(here.manager) == DATA[::-1]
        await here.do("array.scrub", array="vault", kind="check")
        await until(here.manager, lambda: (named(here.manager, "vault").details["scrub"] or {}).get("finished", False))
        assert named(here.manager, "vault").details["scrub"]["mismatches"] == 0


async def test_a_failed_member_is_replaced_by_a_new_device_in_one_step(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    async with mounted(tmp_path, array()) as here:
        await write(here.manager)
        await here.do("array.fail", array="vault", member="b")
        blank(tmp_path, "n")
        await here.do("array.replace", array="vault", member="b", by="n")
        await until(here.manager, lambda: states(here.manager) == {"a": "active", "n": "active", "c": "active"})
        assert 'members = ["a", "n", "c"]' in here.text
        with pytest.raises(NotFound, match="no member b"):
            await here.do("array.replace", array="vault", member="b", by="n")


async def test_a_former_member_is_a_spare_like_any_other(tmp_path: Path, expected_logs):
    expected_logs("b is out of service", "b is not used, it is stale")
    async with mounted(tmp_path, array(spares='["s"]')) as here:
        await here.do("array.fail", array="vault", member="b")
        await until(here.manager, lambda: states(here.manager).get("s") == "active")
        await here.do("array.stop", array="vault")
        await here.do("array.assemble", array="vault")  # b is listed, and has no part in it
        assert "b" not in states(here.manager)
        await here.do("array.remove", array="vault", member="b")
        await here.do("array.add", array="vault", devices=["b"])
        assert states(here.manager)["b"] == "spare"


async def test_a_missing_member_whose_slot_is_taken_leaves_the_configuration_too(tmp_path: Path, expected_logs):
    expected_logs("is not used, it is missing", "degraded: slot 1 is empty")
    spec = await made(tmp_path, array())
    (tmp_path / "b").unlink()
    manager = await opened(spec)
    async with manager.running():
        here = Mounted(tmp_path, manager)
        assert named(manager, "vault").details["next"].startswith("bring b back, or  orionctl array replace vault b ")
        blank(tmp_path, "n")
        await here.do("array.add", array="vault", devices=["n"])
        await until(manager, lambda: states(manager) == {"a": "active", "n": "active", "c": "active"})
        with pytest.raises(NotFound, match="no member z"):
            await here.do("array.remove", array="vault", member="z")
        await here.do("array.remove", array="vault", member="b", dry_run=True)
        await here.do("array.remove", array="vault", member="b")
        assert 'members = ["a", "n", "c"]' in here.text
        assert "spares" not in here.text


async def test_a_missing_member_is_replaced_in_one_step(tmp_path: Path, expected_logs):
    expected_logs("is not used, it is missing", "degraded: slot 1 is empty")
    spec = await made(tmp_path, array())
    (tmp_path / "b").unlink()
    manager = await opened(spec)
    async with manager.running():
        here = Mounted(tmp_path, manager)
        blank(tmp_path, "n")
        await here.do("array.replace", array="vault", member="b", by="n")
        await until(manager, lambda: states(manager) == {"a": "active", "n": "active", "c": "active"})
        assert 'members = ["a", "n", "c"]' in here.text


async def test_a_removed_member_without_a_stand_in_leaves_an_empty_slot(tmp_path: Path, expected_logs):
    expected_logs("b is out of service", "degraded: slot 1 is empty")
    async with mounted(tmp_path, array(level="raid1", members="ab")) as here:
        await write(here.manager)
        await here.do("array.fail", array="vault", member="b")
        await here.do("array.remove", array="vault", member="b")
        assert 'members = ["a", "missing"]' in here.text
        await here.do("array.stop", array="vault")
        await here.do("array.assemble", array="vault")
        assert named(here.manager, "vault").details["slots"] == "U_"
        await here.do("array.add", array="vault", devices=["b"], force=True)
        await until(here.manager, lambda: named(here.manager, "vault").details["slots"] == "UU")


async def test_a_dry_run_changes_nothing(tmp_path: Path):
    async with mounted(tmp_path, array(spares='["s"]')) as here:
        blank(tmp_path, "n")
        before = here.everything()
        for verb, arguments in {
            "array.add": {"devices": ["n"]},
            "array.fail": {"member": "a"},
            "array.remove": {"member": "s"},
            "array.replace": {"member": "a", "by": "n"},
            "array.clear": {},
            "array.scrub": {"kind": "repair"},
            "array.pause": {},
            "array.resume": {},
            "array.cancel": {},
            "array.set": {"policies": ["read_policy=nearest"]},
            "array.stop": {"force": True},
        }.items():
            assert (await here.do(verb, array="vault", dry_run=True, **arguments))["done"], verb
        await here.do("array.create", name="m", level="1", members=["x", "y"], member_size=4 * MIB, dry_run=True)
        await here.do("spare.add", devices=["n"], dry_run=True)
        assert before == here.everything()


REFUSALS: dict[str, tuple[str, dict[str, Any], type[OrionError], str]] = {
    "no array": ("array.fail", {"array": "tank", "member": "a"}, NotFound, "no array tank"),
    "no member": ("array.fail", {"array": "vault", "member": "z"}, NotFound, "no member z"),
    "no such slot": ("array.fail", {"array": "vault", "member": "7"}, NotFound, "no member 7"),
    "a member in use": ("array.remove", {"array": "vault", "member": "a"}, Refused, "a is in use"),
    "a member twice": ("array.add", {"array": "vault", "devices": ["a"]}, Refused, "belongs to vault already"),
    "another's member": ("array.add", {"array": "vault", "devices": ["x"]}, ConfigError, "already a member of mirror"),
    "a file that is not there": ("array.add", {"array": "vault", "devices": ["zz"]}, NotFound, "there is no file"),
    "too small": ("array.add", {"array": "vault", "devices": ["small"]}, Refused, "small has 3 MiB"),
    "in use": ("array.add", {"array": "vault", "devices": ["swap"]}, Refused, "already holds swap space"),
    "a shared spare in use": ("spare.add", {"devices": ["swap"]}, Refused, "already holds swap space"),
    "no spare": ("array.replace", {"array": "vault", "member": "a"}, Refused, "no spare to replace a with"),
    "no such spare": ("spare.remove", {"device": "s"}, NotFound, "no spare s"),
    "active again": ("array.readd", {"array": "vault", "member": "a"}, Refused, "a is active"),
    "no such job": ("array.scrub", {"array": "vault", "kind": "polish"}, Refused, "no job polish"),
    "no such policy": ("array.set", {"array": "vault", "policies": ["speed=1"]}, UsageError, "no policy 'speed'"),
    "a bad value": ("array.set", {"array": "vault", "policies": ["read_policy=best"]}, UsageError, "cannot be 'best'"),
    "no value": ("array.set", {"array": "vault", "policies": ["read_policy"]}, UsageError, "says nothing"),
    "nothing to set": ("array.set", {"array": "vault", "policies": []}, UsageError, "no policy is named"),
    "a policy of raid0": (
        "array.set",
        {"array": "fast", "policies": ["read_policy=nearest"]},
        ConfigError,
        "raid0 has no redundancy",
    ),
    "a spare of raid0": ("array.add", {"array": "fast", "devices": ["n"]}, ConfigError, "raid0 has no redundancy"),
    "a check of raid0": ("array.scrub", {"array": "fast", "kind": "check"}, Refused, "no redundancy to compare"),
    "a member of jbod": ("array.fail", {"array": "disks", "member": "q"}, Refused, "one device of a jbod"),
    "running already": ("array.assemble", {"array": "vault"}, Refused, "vault runs already"),
    "unknown array": ("array.assemble", {"array": "tank"}, NotFound, "no array tank"),
    "a name that is taken": (
        "array.create",
        {"name": "vault", "level": "1", "members": ["u", "v"], "member_size": 4 * MIB},
        ConfigError,
        "another array",
    ),
    "too few members": (
        "array.create",
        {"name": "m", "level": "6", "members": ["u", "v"], "member_size": 4 * MIB},
        ConfigError,
        "raid6 needs at least 4 members",
    ),
    "no size": (
        "array.create",
        {"name": "m", "level": "1", "members": ["u", "v"]},
        ConfigError,
        "nothing says how large",
    ),
    "members with data": (
        "array.create",
        {"name": "m", "level": "1", "members": ["swap", "n"]},
        Refused,
        "holds data that is not OrionFS's",
    ),
    "a bad policy of a new array": (
        "array.create",
        {"name": "m", "level": "1", "members": ["u", "v"], "policies": ["read_policy=best"]},
        UsageError,
        "cannot be 'best'",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(tmp_path: Path, name: str):
    verb, arguments, kind, message = REFUSALS[name]
    text = array() + array("mirror", "raid1", "xy") + array("fast", "raid0", "pr") + array("disks", "jbod", "q")
    async with mounted(tmp_path, text) as here:
        blank(tmp_path, "n", "swap")
        blank(tmp_path, "small", size=3 * MIB)
        with (tmp_path / "swap").open("r+b") as file:
            file.seek(OFFSET - 10)
            file.write(b"SWAPSPACE2")
        before = here.everything()
        with pytest.raises(kind, match=message) as caught:
            await here.do(verb, **arguments)
        assert "\n" not in str(caught.value)
        assert before == here.everything()


async def test_adding_to_a_stopped_array_is_refused(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        await here.do("array.stop", array="vault")
        blank(tmp_path, "s")
        with pytest.raises(Refused, match="vault is stopped") as caught:
            await here.do("array.add", array="vault", devices=["s"])
        assert caught.value.hint == "orionctl array assemble vault"
        with pytest.raises(Refused, match="stopped already"):
            await here.do("array.stop", array="vault")


async def test_the_last_member_cannot_be_failed(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    async with mounted(tmp_path, array(level="raid1", members="ab")) as here:
        await here.do("array.fail", array="vault", member="b")
        for dry_run in (True, False):
            with pytest.raises(Refused, match="cannot"):
                await here.do("array.fail", array="vault", member="a", dry_run=dry_run)
        await write(here.manager)


async def test_a_failed_member_that_is_still_held_is_not_added_anew(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    async with mounted(tmp_path, array()) as here:
        await here.do("array.fail", array="vault", member="b")
        with pytest.raises(Refused, match="b is a member of vault that is failed") as caught:
            await here.do("array.add", array="vault", devices=["b"])
        assert "orionctl array re-add vault b" in caught.value.hint


async def test_a_configuration_that_is_broken_meanwhile_keeps_members_as_they_are(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        blank(tmp_path, "s")
        (tmp_path / "orionfs.toml").write_text("[[array]\n")
        with pytest.raises(ConfigError, match="not TOML"):
            await here.do("array.add", array="vault", devices=["s"])
        assert sorted(states(here.manager)) == ["a", "b", "c"]
        (tmp_path / "orionfs.toml").write_text(array())


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("array.add", {"array": "vault", "devices": ["n"]}),
        ("array.fail", {"array": "vault", "member": "a"}),
        ("array.remove", {"array": "vault", "member": "s"}),
        ("array.replace", {"array": "vault", "member": "a", "by": "n"}),
        ("array.scrub", {"array": "vault", "kind": "repair"}),
        ("array.set", {"array": "vault", "policies": ["read_policy=nearest"]}),
        ("array.stop", {"array": "vault", "forget": True}),
        ("array.create", {"name": "m", "level": "1", "members": ["n", "o"], "member_size": 4 * MIB}),
        ("spare.add", {"devices": ["n"]}),
        ("spare.remove", {"device": "s"}),
    ],
)
async def test_nothing_is_changed_in_a_mount_that_is_read_only(tmp_path: Path, verb: str, arguments: dict[str, Any]):
    spec = await made(tmp_path, array(spares='["s"]') + array("mirror", "raid1", "xy"))
    blank(tmp_path, "n")
    manager = await opened(spec, read_only=True)
    async with manager.running():
        here = Mounted(tmp_path, manager)
        before = here.everything()
        with pytest.raises(ReadOnly, match="read-only"):
            await here.do(verb, **arguments)
        assert here.everything() == before
        await here.do("array.stop", array="vault")
        await here.do("array.assemble", array="vault")
        assert here.everything() == before


async def test_a_degraded_array_gets_a_rebuild_before_a_replacement(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    async with mounted(tmp_path, array(level="raid6", members="abcd")) as here:
        await here.do("array.fail", array="vault", member="b")
        blank(tmp_path, "n")
        before = here.text
        with pytest.raises(Refused, match="vault is degraded"):
            await here.do("array.replace", array="vault", member="a", by="n")
        with pytest.raises(Refused, match="b is failed"):
            await here.do("array.replace", array="vault", member="b")
        assert here.text == before
        assert "n" not in states(here.manager)


async def test_a_group_that_somebody_reads_keeps_all_of_its_table_running(tmp_path: Path):
    async with mounted(tmp_path, array(level="raid50", members="abcdef")) as here:
        group = next(one for one in here.manager.exposed if one.name == "vault.1")
        group.open_count = 1
        with pytest.raises(InUse, match=r"vault\.1 is open in 1 place"):
            await here.do("array.stop", array="vault")
        assert sorted(here.manager.arrays) == ["vault", "vault.0", "vault.1"]
        group.open_count = 0


async def test_error_counters_are_cleared(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        here.manager.arrays["vault"].roster.slots[0].counters.read_errors = 3
        here.manager.arrays["vault"].roster.slots[1].counters.read_errors = 4
        await here.do("array.clear", array="vault", member="a")
        counts = [child.counters["read_errors"] for child in named(here.manager, "vault").children]
        assert counts == [0, 4, 0]
        await here.do("array.clear", array="vault")
        assert named(here.manager, "vault").children[1].counters["read_errors"] == 0
        with pytest.raises(NotFound, match="vault has no member z"):
            await here.do("array.clear", array="vault", member="z")


async def test_policies_change_now_and_for_the_next_time(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        chosen = ["read_policy=round-robin", "rebuild_ceiling=10M", "max_read_errors=3"]
        await here.do("array.set", array="vault", policies=chosen)
        policies = named(here.manager, "vault").details["policies"]
        assert (policies["read_policy"], policies["rebuild_ceiling"], policies["max_read_errors"]) == (
            "round-robin",
            10 * MIB,
            3,
        )
        assert 'rebuild_ceiling = "10M"\nmax_read_errors = 3\n' in here.text
    (vault,) = load_spec(tmp_path).arrays
    assert vault.policies == {"read_policy": "round-robin", "rebuild_ceiling": 10 * MIB, "max_read_errors": 3}


async def test_jobs_pause_and_go_on(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        await here.do("array.pause", array="vault")
        await here.do("array.scrub", array="vault", kind="check")
        await until(here.manager, lambda: named(here.manager, "vault").details["job"] is not None)
        assert named(here.manager, "vault").details["job"]["state"] == "paused"
        await here.do("array.resume", array="vault")
        await until(here.manager, lambda: (named(here.manager, "vault").details["scrub"] or {}).get("finished", False))
        await here.do("array.cancel", array="vault")


# --- groups and shared spares ----------------------------------------------------------------------------------------


async def test_groups_are_reached_by_the_name_of_their_table(tmp_path: Path, expected_logs):
    expected_logs("f is out of service")
    async with mounted(tmp_path, array(level="raid50", members="abcdef")) as here:
        await write(here.manager)
        answer = await here.do("array.fail", array="vault", member="f")
        assert answer["array"] == "vault.1"
        with pytest.raises(UsageError, match=r"0 may be in any of vault\.0, vault\.1"):
            await here.do("array.fail", array="vault", member="0")
        blank(tmp_path, "s")
        answer = await here.do("array.add", array="vault", devices=["s"])
        assert answer["done"] == ["s is a spare of the groups of vault"]
        assert 'spares = ["s"]' in here.text
        await until(here.manager, lambda: states(here.manager, "vault.1").get("s") == "active")
        await here.do("array.remove", array="vault", member="f")
        assert 'members = ["a", "b", "c", "d", "e", "s"]' in here.text
        assert "spares" not in here.text
        assert len((await here.do("array.scrub", array="vault", kind="check"))["done"]) == 2
        await here.do("array.set", array="vault", policies=["spare_policy=manual"])
        assert here.manager.arrays["vault.0"].policies.spare_policy == "manual"
        answer = await here.do("array.stop", array="vault")
        assert answer["done"] == ["vault stopped", "vault.0 stopped", "vault.1 stopped"]
        await here.do("array.assemble", array="vault")
        assert await read(here.manager) == DATA
        with pytest.raises(InUse, match=r"vault\.0 is a member of vault"):
            await here.do("array.stop", array="vault.0")


async def test_a_shared_spare_comes_and_goes(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        blank(tmp_path, "s")
        await here.do("spare.add", devices=["s"])
        assert '[mount]\nspares = ["s"]\n' in here.text
        assert [spare["name"] for spare in here.manager.spares.describe()] == ["s"]
        await here.do("spare.remove", device="s")
        assert here.manager.spares.describe() == []
        assert "spares" not in here.text
        (tmp_path / "s").rename(tmp_path / "elsewhere")  # nobody holds it


async def test_a_shared_spare_is_used_at_once_where_one_is_missed(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    async with mounted(tmp_path, array() + array("mirror", "raid1", "xy")) as here:
        await here.do("array.fail", array="vault", member="b")
        blank(tmp_path, "s")
        await here.do("spare.add", devices=["s"])
        await until(here.manager, lambda: states(here.manager).get("s") == "active")
        with pytest.raises(Refused, match="s belongs to vault"):
            await here.do("spare.remove", device="s")
        await here.do("array.remove", array="vault", member="b")
        assert 'members = ["a", "s", "c"]' in here.text
        assert "spares" not in here.text


# --- arrays ----------------------------------------------------------------------------------------------------------


async def test_an_array_is_made_beside_others(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        shown = []
        here.manager.on_show = shown.append
        answer = await here.do(
            "array.create",
            name="six",
            level="6",
            members=["u", "v", "w", "x"],
            spares=["s"],
            chunk=16384,
            member_size=4 * MIB,
            consistency="journal",
            policies=["stripe_cache=2M", "read_policy=nearest"],
        )
        assert answer["done"][-1] == "array six: created"
        assert [one.name for one in shown] == ["six"]
        described = named(here.manager, "six")
        assert (described.state, described.details["level"], described.details["chunk"]) == ("clean", "raid6", 16384)
        assert described.details["policies"]["stripe_cache"] == 2 * MIB
        assert states(here.manager, "six")["s"] == "spare"
        assert here.text.startswith(array())
        await write(here.manager, name="six")
    manager = await opened(load_spec(tmp_path))
    assert await read(manager, "six") == DATA
    await manager.aclose()


async def test_an_array_is_made_over_arrays_that_run(tmp_path: Path):
    text = array("left", "raid1", "ab") + array("right", "raid1", "cd")
    async with mounted(tmp_path, text) as here:
        left = next(one for one in here.manager.exposed if one.name == "left")
        left.open_count = 1
        with pytest.raises(InUse, match="left is open"):
            await here.do("array.create", name="both", level="0", members=["left", "right"])
        left.open_count = 0
        await here.do("array.create", name="both", level="0", members=["left", "right"])
        await write(here.manager, name="both")
        assert left.claimed_by == "both"
        await here.do("array.stop", array="both", forget=True)
        assert "both" not in here.text
        assert left.claimed_by == ""


async def test_groups_are_made_with_one_command(tmp_path: Path):
    async with mounted(tmp_path, array()) as here:
        members = [f"g{number}" for number in range(6)]
        answer = await here.do("array.create", name="wide", level="50", members=members, member_size=4 * MIB, groups=3)
        assert [line for line in answer["done"] if line.startswith("array")] == [
            "array wide.0: created",
            "array wide.1: created",
            "array wide.2: created",
            "array wide: created",
        ]
        assert {one.name: one.claimed_by for one in here.manager.exposed}["wide.2"] == "wide"
        await write(here.manager, name="wide")


async def test_an_array_that_was_added_by_hand_is_assembled(tmp_path: Path):
    await made(tmp_path, array("mirror", "raid1", "xy"))
    async with mounted(tmp_path, array()) as here:
        (tmp_path / "orionfs.toml").write_text(array() + array("mirror", "raid1", "xy"))
        await here.do("array.assemble", array="mirror")
        assert named(here.manager, "mirror").state == "clean"


async def test_assembling_a_nested_array_starts_what_it_is_made_of(tmp_path: Path):
    text = array("left", "raid1", "ab") + array("right", "raid1", "cd")
    text += array("both", "raid0", "ab").replace('["a", "b"]', '["left", "right"]')
    async with mounted(tmp_path, text) as here:
        await write(here.manager, name="both")
        for name in ("both", "left"):
            await here.do("array.stop", array=name)
        answer = await here.do("array.assemble", array="both")
        assert sorted(answer["done"]) == ["both assembled", "left assembled"]
        assert await read(here.manager, "both") == DATA


async def test_a_dirty_and_degraded_array_is_assembled_by_force_only(tmp_path: Path, expected_logs):
    expected_logs("vault", "started by force")
    async with mounted(tmp_path, array(consistency='"resync"', bitmap="false")) as here:
        await write(here.manager)
        await until(here.manager, lambda: named(here.manager, "vault").state == "active")
        for name in "abc":
            shutil.copy(tmp_path / name, tmp_path / f"{name}.dirty")
        await here.do("array.stop", array="vault")
        for name in "ab":
            shutil.move(tmp_path / f"{name}.dirty", tmp_path / name)
        (tmp_path / "c").unlink()
        with pytest.raises(Refused, match="dirty and degraded"):
            await here.do("array.assemble", array="vault")
        await here.do("array.assemble", array="vault", force=True)
        assert named(here.manager, "vault").state == "degraded"


async def test_a_forgotten_array_leaves_its_members_as_they_are(tmp_path: Path):
    async with mounted(tmp_path, array() + array("mirror", "raid1", "xy")) as here:
        await write(here.manager, name="mirror")
        await here.do("array.stop", array="mirror", forget=True)
        assert here.text == array()
        before = (tmp_path / "x").read_bytes()
        with pytest.raises(Refused, match="only array"):
            await here.do("array.stop", array="vault", forget=True)
        assert named(here.manager, "vault").state == "clean"
    assert (tmp_path / "x").read_bytes() == before
