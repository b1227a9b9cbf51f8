"""StorageManager while it runs: arrays stop and start, spares take over, members come back, all over real files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio

from orionfs.array.array import Array
from orionfs.array.superblock import RESYNC_DONE
from orionfs.config.load import load_spec
from orionfs.errors import InUse, NotFound, Refused, Removed
from orionfs.units import MIB
from tests.units.manager_kit import (
    DATA,
    array,
    blank,
    made,
    named,
    opened,
    read,
    states,
    superblock,
    until,
    write,
)

# --- stop and start --------------------------------------------------------------------------------------------------


async def test_a_stopped_array_lets_go_of_clean_members_and_starts_again(tmp_path: Path):
    manager = await opened(await made(tmp_path, array()))
    shown, hidden = [], []
    manager.on_show, manager.on_hide = shown.append, hidden.append
    async with manager.running():
        await write(manager)
        former = manager.exposed[0]
        async with manager.changing:
            await manager.stop("vault")
        assert (hidden, manager.exposed, manager.arrays) == ([former], [], {})
        assert all(superblock(tmp_path / name).resync_offset == RESYNC_DONE for name in "abc")
        assert named(manager, "vault").state == "stopped"
        with pytest.raises(Removed):
            await former.device.read(0, [bytearray(512)])
        with pytest.raises(Refused, match="vault is stopped"):
            manager.device("vault")
        other = await opened(manager.spec)  # nobody locks the members
        await other.aclose()
        async with manager.changing:
            await manager.start(["vault"])
        assert [one.name for one in shown] == ["vault"]
        assert await read(manager) == DATA
        await write(manager, DATA[::-1])
    assert all(superblock(tmp_path / name).resync_offset == RESYNC_DONE for name in "abc")


async def test_an_open_array_is_stopped_by_force_only(tmp_path: Path):
    manager = await opened(await made(tmp_path, array()))
    async with manager.running():
        manager.exposed[0].open_count = 1
        with pytest.raises(InUse, match="vault is open in 1 place") as caught:
            await manager.stop("vault")
        assert "--force" in caught.value.hint
        assert await read(manager) == bytes(len(DATA))
        await manager.stop("vault", force=True)
        with pytest.raises(NotFound, match="does not run"):
            await manager.stop("vault")


async def test_a_close_that_is_on_its_way_is_waited_for(tmp_path: Path):
    manager = await opened(await made(tmp_path, array()))
    async with manager.running(), trio.open_nursery() as nursery:
        exposed = manager.exposed[0]
        exposed.open_count = 1

        async def close() -> None:
            await trio.sleep(0.05)
            exposed.release()

        nursery.start_soon(close)
        await manager.stop("vault")


NESTED = (
    array("left", "raid1", "ab")
    + array("right", "raid1", "cd")
    + array("both", "raid0").replace('["a", "b", "c"]', '["left", "right"]')
)


async def test_what_an_array_is_made_of_stays_and_cannot_be_stopped_before_it(tmp_path: Path):
    manager = await opened(await made(tmp_path, NESTED))
    async with manager.running():
        await write(manager, name="both")
        with pytest.raises(InUse, match="left is a member of both"):
            await manager.stop("left")
        await manager.stop("both")
        assert sorted(manager.arrays) == ["left", "right"]
        await manager.stop("left")
        await manager.start(["left", "both"])
        assert await read(manager, "both") == DATA
        assert {one.name: one.claimed_by for one in manager.exposed} == {"left": "both", "right": "both", "both": ""}


async def test_an_array_over_a_stopped_one_does_not_start(tmp_path: Path):
    manager = await opened(await made(tmp_path, NESTED))
    async with manager.running():
        await manager.stop("both")
        await manager.stop("left")
        with pytest.raises(NotFound, match="left is missing: it is stopped"):
            await manager.start(["both"])
        assert sorted(manager.arrays) == ["right"]


# --- levels that stand for several arrays ----------------------------------------------------------------------------


async def test_raid50_is_mounted_with_its_groups_beneath_it(tmp_path: Path, expected_logs):
    expected_logs("is not used, it is missing", r"degraded: slot \d is empty")
    manager = await opened(await made(tmp_path, array(level="raid50", members="abcdef")))
    async with manager.running():
        assert {one.name: one.claimed_by for one in manager.exposed} == {
            "vault": "",
            "vault.0": "vault",
            "vault.1": "vault",
        }
        assert named(manager, "vault").details["declared_level"] == "raid50"
        assert named(manager, "vault").details["level"] == "raid0"
        await write(manager)
    for name in ("a", "f"):
        (tmp_path / name).unlink()
    manager = await opened(manager.spec)
    async with manager.running():
        assert await read(manager) == DATA
        assert [named(manager, name).state for name in ("vault.0", "vault.1")] == ["degraded", "degraded"]


async def test_jbod_is_each_member_as_it_is(tmp_path: Path):
    (tmp_path / "b").write_bytes(DATA)
    spec = await made(tmp_path, array("disks", "jbod", "ab"))
    assert (tmp_path / "a").stat().st_size == 4 * MIB
    assert (tmp_path / "b").read_bytes() == DATA
    manager = await opened(spec)
    async with manager.running():
        assert await read(manager, "disks.1") == DATA
        await write(manager, name="disks.0")
        assert [(one.name, one.state) for one in manager.descriptions()] == [("disks.0", "clean"), ("disks.1", "clean")]
        await manager.stop("disks.1")
        assert sorted(manager.arrays) == ["disks.0"]
    assert (tmp_path / "a").read_bytes()[: len(DATA)] == DATA


async def test_a_jbod_does_not_start_without_a_member(tmp_path: Path):
    spec = await made(tmp_path, array("disks", "jbod", "ab"))
    (tmp_path / "b").unlink()
    with pytest.raises(NotFound, match=r"disks\.1: there is no file"):
        await opened(spec)


# --- spares ----------------------------------------------------------------------------------------------------------


async def test_a_blank_spare_of_an_array_joins_it_and_is_found_again(tmp_path: Path):
    await made(tmp_path, array())
    (tmp_path / "orionfs.toml").write_text(array(spares='["s"]'))
    blank(tmp_path, "s")
    spec = load_spec(tmp_path)
    manager = await opened(spec)
    assert [spare["state"] for spare in manager.spares.describe()] == ["idle"]
    async with manager.running():
        await until(manager, lambda: states(manager).get("s") == "spare")
        assert manager.spares.describe() == []
    assert superblock(tmp_path / "s").set_uuid == superblock(tmp_path / "a").set_uuid
    manager = await opened(spec)
    assert states(manager)["s"] == "spare"
    await manager.aclose()


async def test_a_spare_that_holds_something_is_left_alone(tmp_path: Path, expected_logs):
    expected_logs(r"s is there and is not used: .*already holds a GPT partition table")
    spec = await made(tmp_path, array())
    (tmp_path / "orionfs.toml").write_text(array(spares='["s"]'))
    spec = load_spec(tmp_path)
    blank(tmp_path, "s")
    with (tmp_path / "s").open("r+b") as file:
        file.seek(512)
        file.write(b"EFI PART")
    before = (tmp_path / "s").read_bytes()
    manager = await opened(spec)
    async with manager.running():
        await until(manager, lambda: manager.spares.describe() != [])
        await until(manager, lambda: manager.spares.describe()[0]["state"] == "unavailable")
        assert "GPT" in manager.spares.describe()[0]["why"]
    assert (tmp_path / "s").read_bytes() == before


SHARED = array() + array("mirror", "raid1", "xy") + '[mount]\nspares = ["s0", "s1"]\n'


async def test_a_shared_spare_takes_over_where_it_is_needed_first(tmp_path: Path, expected_logs):
    expected_logs("b is out of service", "b is not used, it is missing")
    spec = await made(tmp_path, SHARED)
    blank(tmp_path, "s1", size=5 * MIB)
    blank(tmp_path, "s0")
    manager = await opened(spec)
    async with manager.running():
        await write(manager)
        assert [spare["state"] for spare in manager.spares.describe()] == ["idle", "idle"]
        await manager.arrays["vault"].fail("b")
        await until(manager, lambda: states(manager).get("s0") == "active")
        assert [spare["name"] for spare in manager.spares.describe()] == ["s1"]
        assert await read(manager) == DATA
    (tmp_path / "b").unlink()
    manager = await opened(spec)
    async with manager.running():
        assert named(manager, "vault").details["slots"] == "UUU"
        assert states(manager)["s0"] == "active"
        assert await read(manager) == DATA


@pytest.mark.parametrize("count", [1, 2])
async def test_arrays_that_need_a_spare_at_once_do_not_get_the_same(tmp_path: Path, expected_logs, count: int):
    expected_logs("[by] is out of service")
    spares = ["s0", "s1"][:count]
    text = array() + array("mirror", "raid1", "xy") + f"[mount]\nspares = {spares!r}\n"
    spec = await made(tmp_path, text)
    blank(tmp_path, *spares)
    manager = await opened(spec)
    async with manager.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.arrays["vault"].fail, "b")
            nursery.start_soon(manager.arrays["mirror"].fail, "y")
        whole = lambda: [one.name for one in manager.descriptions() if "_" not in one.details["slots"]]  # noqa: E731
        await until(manager, lambda: len(whole()) == count and manager.spares.describe() == [])
        await trio.sleep(0.1)
        assert len(whole()) == count


async def test_a_shared_spare_that_is_too_small_or_in_use_is_passed_over(tmp_path: Path, expected_logs):
    expected_logs("b is out of service", "s0: it holds an XFS filesystem")
    spec = await made(tmp_path, SHARED)
    blank(tmp_path, "s0")
    blank(tmp_path, "s1", size=3 * MIB)
    with (tmp_path / "s0").open("r+b") as file:
        file.write(b"XFSB")
    manager = await opened(spec)
    async with manager.running():
        await manager.arrays["vault"].fail("b")
        await until(manager, lambda: any("XFS" in spare["why"] for spare in manager.spares.describe()))
        assert named(manager, "vault").state == "degraded"
        assert len(manager.spares.describe()) == 2


async def test_groups_share_the_spares_of_their_table(tmp_path: Path, expected_logs):
    expected_logs("e is out of service")
    spec = await made(tmp_path, array(level="raid50", members="abcdef", spares='["s"]'))
    manager = await opened(spec)
    async with manager.running():
        await write(manager)
        inner = manager.arrays["vault.1"]
        assert isinstance(inner, Array)
        await inner.fail("e")
        await until(manager, lambda: states(manager, "vault.1").get("s") == "active")
        assert await read(manager) == DATA


async def test_with_the_manual_policy_no_spare_takes_over(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    spec = await made(tmp_path, array(spare_policy='"manual"') + '[mount]\nspares = ["s"]\n')
    blank(tmp_path, "s")
    manager = await opened(spec)
    async with manager.running():
        await until(manager, lambda: states(manager).get("s") == "spare")
        await manager.arrays["vault"].fail("b")
        await trio.sleep(0.2)
        assert states(manager)["s"] == "spare"


async def test_spares_go_with_their_array_and_come_back_with_it(tmp_path: Path):
    spec = await made(tmp_path, array(spares='["s"]'))
    manager = await opened(spec)
    async with manager.running():
        await until(manager, lambda: states(manager).get("s") == "spare")
        await manager.stop("vault")
        await trio.sleep(0.2)  # nobody opens it meanwhile
        assert manager.spares.describe() == []
        await manager.start(["vault"])
        assert states(manager)["s"] == "spare"


async def test_a_spare_that_is_not_there_keeps_nothing_from_starting_and_is_used_when_it_comes(
    tmp_path: Path, expected_logs
):
    expected_logs("spare.not-usable s: there is no file")
    spec = await made(tmp_path, array())
    (tmp_path / "orionfs.toml").write_text(array(spares='["s"]'))
    manager = await opened(load_spec(tmp_path))
    assert spec.arrays[0].name == "vault"
    async with manager.running():
        assert [spare["state"] for spare in manager.spares.describe()] == ["unavailable"]
        blank(tmp_path, "s")
        await until(manager, lambda: states(manager).get("s") == "spare")


# --- members that come back ------------------------------------------------------------------------------------------


async def test_a_member_whose_file_comes_back_is_taken_back(tmp_path: Path, expected_logs):
    expected_logs("is not used, it is missing", r"degraded: slot \d is empty")
    spec = await made(tmp_path, array())
    (tmp_path / "b").rename(tmp_path / "aside")
    manager = await opened(spec)
    async with manager.running():
        await write(manager)
        (tmp_path / "aside").rename(tmp_path / "b")
        await until(manager, lambda: states(manager).get("b") == "active")
        assert named(manager, "vault").details["slots"] == "UUU"
    (tmp_path / "a").unlink()
    manager = await opened(spec)
    assert await read(manager) == DATA
    await manager.aclose()


async def test_another_file_in_its_place_is_refused_and_not_touched(tmp_path: Path, expected_logs):
    expected_logs(
        "b is not used, it is missing",
        "degraded: slot 1 is empty",
        "b is there and is not used: does not hold an MD superblock|b is there and is not used: holds no",
    )
    spec = await made(tmp_path, array())
    (tmp_path / "b").unlink()
    manager = await opened(spec)
    async with manager.running():
        (tmp_path / "b").write_bytes(DATA)
        events = manager.events
        await until(manager, lambda: any(one.kind == "member.not-usable" for one in events.since(0)))
        assert states(manager)["b"] == "missing"
    assert (tmp_path / "b").read_bytes() == DATA


async def test_a_member_that_missed_writes_is_brought_up_to_date_at_the_next_start(tmp_path: Path, expected_logs):
    expected_logs("is not used, it is (missing|stale)", r"degraded: slot \d is empty")
    spec = await made(tmp_path, array())
    shutil.copy(tmp_path / "b", tmp_path / "aside")
    (tmp_path / "b").unlink()
    manager = await opened(spec)
    async with manager.running():
        await write(manager)
        (tmp_path / "orionfs.toml").touch()
    (tmp_path / "aside").rename(tmp_path / "b")
    manager = await opened(spec)
    async with manager.running():
        await until(manager, lambda: states(manager).get("b") == "active")
    (tmp_path / "c").unlink()
    manager = await opened(spec)
    assert await read(manager) == DATA
    await manager.aclose()


async def test_a_member_that_failed_is_not_taken_back_until_its_file_is_another(tmp_path: Path, expected_logs):
    expected_logs("b is out of service")
    spec = await made(tmp_path, array())
    manager = await opened(spec)
    async with manager.running():
        await write(manager)
        await manager.arrays["vault"].fail("b")
        await trio.sleep(0.3)
        assert states(manager)["b"] == "failed"
        shutil.copy(tmp_path / "b", tmp_path / "aside")  # its disk came back as another one
        (tmp_path / "aside").rename(tmp_path / "b")
        await until(manager, lambda: states(manager).get("b") == "active")
        assert await read(manager) == DATA


async def test_nothing_joins_a_mount_that_is_read_only(tmp_path: Path, expected_logs):
    expected_logs("b is not used, it is missing", "degraded: slot 1 is empty")
    spec = await made(tmp_path, array(spares='["s"]'))
    (tmp_path / "b").rename(tmp_path / "aside")
    manager = await opened(spec, read_only=True)
    async with manager.running():
        (tmp_path / "aside").rename(tmp_path / "b")
        await trio.sleep(0.3)
        assert states(manager) == {"a": "active", "b": "missing", "c": "active", "s": "spare"}


async def test_an_empty_slot_that_is_declared_is_just_that(tmp_path: Path, expected_logs):
    expected_logs("degraded: slot 1 is empty")
    await made(tmp_path, array())
    (tmp_path / "orionfs.toml").write_text(array().replace('"b"', '"missing"'))
    manager = await opened(load_spec(tmp_path))
    assert [child.name for child in named(manager, "vault").children] == ["a", "slot 1", "c"]
    await manager.aclose()
