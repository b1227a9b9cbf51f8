"""AttributeStore: chmod, chown and utimes outlive the mount, and a damaged file costs nothing but them."""

from __future__ import annotations

import errno
import json

import pytest
import trio

from orionfs.attributes import SCHEMA, AttributeStore
from orionfs.environment import Environment
from orionfs.errors import NoSpace, OrionError, Refused
from orionfs.fuse.operations import Changes
from orionfs.hostfs import SystemHostFs
from orionfs.monitor.events import EventLog
from tests.units.fuse_kit import GID, UID, Rig, fails_with

ENVIRONMENT = Environment()
CONFIGURED = {"mode": 0o600, "uid": 1, "gid": 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "attributes.json"


@pytest.fixture
async def open_store(path):
    """``await open_store()`` opens the file anew; the stores are closed when the test ends."""
    stores = []

    async def open_it(environment=ENVIRONMENT, events=None):
        events = events or EventLog(environment.clock)
        stores.append(await AttributeStore.open(path, environment=environment, events=events))
        return stores[-1]

    yield open_it
    for store in stores:
        store._worker.close()


def failing(**calls):
    """An environment whose host filesystem raises what *calls* say, by method name."""

    class Failing(SystemHostFs):
        def __getattribute__(self, name):
            if name not in calls:
                return super().__getattribute__(name)

            def fail(*arguments, **more):
                raise calls[name]

            return fail

    return Environment(hostfs=Failing())


async def test_what_is_changed_is_there_after_the_next_open(open_store):
    store = await open_store()
    attributes = store.get("arrays/vault", **CONFIGURED)
    assert (attributes.mode, attributes.uid, attributes.gid) == (0o600, 1, 2)
    attributes.mode, attributes.uid, attributes.mtime_ns = 0o640, 7, 12345
    await store.save()
    again = (await open_store()).get("arrays/vault", **CONFIGURED)
    assert again == attributes


async def test_one_key_is_one_record(open_store):
    store = await open_store()
    assert store.get("arrays/vault", **CONFIGURED) is store.get("arrays/vault", **CONFIGURED)


async def test_nothing_is_written_before_something_changes(open_store, path):
    store = await open_store()
    store.get("arrays/vault", **CONFIGURED)
    await store.save()
    assert not path.parent.exists()


async def test_a_save_without_changes_leaves_the_file_alone(open_store, path):
    store = await open_store()
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    await store.save()
    before = path.stat().st_ino
    await store.save()
    assert path.stat().st_ino == before


async def test_what_the_configuration_says_now_wins_over_what_was_changed_before(open_store):
    store = await open_store()
    attributes = store.get("arrays/vault", **CONFIGURED)
    attributes.mode, attributes.gid = 0o640, 9
    await store.save()
    edited = {**CONFIGURED, "mode": 0o660}
    store = await open_store()
    attributes = store.get("arrays/vault", **edited)
    assert (attributes.mode, attributes.gid) == (0o660, 9)
    await store.save()
    back = (await open_store()).get("arrays/vault", **CONFIGURED)
    assert back.mode == 0o600, "a change that was overruled must not come back"


async def test_objects_that_are_not_in_this_mount_are_kept(open_store):
    store = await open_store()
    store.get("arrays/away", **CONFIGURED).mode = 0o604
    await store.save()
    store = await open_store()
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    await store.save()
    assert (await open_store()).get("arrays/away", **CONFIGURED).mode == 0o604


OBJECT = {**CONFIGURED, "atime_ns": 1, "mtime_ns": 2, "ctime_ns": 3, "configured": CONFIGURED}
DAMAGED = {
    "nothing": b"",
    "half of it": b'{"schema": "orionfs.attributes/1", "obj',
    "not text": bytes(range(256)),
    "a list": b"[]",
    "too deep": b"[" * 100000,
    "another schema": json.dumps({"schema": "orionfs.attributes/2", "objects": {}}).encode(),
    "no objects": json.dumps({"schema": SCHEMA}).encode(),
}
for name, wrong in {
    "a mode that is none": {"mode": 0o10000},
    "a mode as text": {"mode": "0600"},
    "a boolean": {"uid": True},
    "a negative owner": {"uid": -1},
    "a group of 33 bits": {"gid": 1 << 32},
    "a time beyond all": {"mtime_ns": 1 << 63},
    "a fraction": {"mtime_ns": 1.5},
    "no configured": {"configured": None},
    "configured nonsense": {"configured": {**CONFIGURED, "mode": None}},
}.items():
    DAMAGED[name] = json.dumps({"schema": SCHEMA, "objects": {"arrays/vault": {**OBJECT, **wrong}}}).encode()


@pytest.mark.parametrize("raw", DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_file_is_set_aside_and_defaults_are_used(raw, open_store, path, expected_logs):
    expected_logs("attributes.damaged")
    path.parent.mkdir()
    path.write_bytes(raw)
    events = EventLog(ENVIRONMENT.clock)
    store = await open_store(events=events)
    (event,) = events.since(0)
    (aside,) = path.parent.glob("attributes.json.damaged-*")
    assert aside.read_bytes() == raw
    assert str(aside) in event.message
    attributes = store.get("arrays/vault", **CONFIGURED)
    assert attributes.mode == 0o600
    attributes.mode = 0o640
    await store.save()
    assert (await open_store()).get("arrays/vault", **CONFIGURED).mode == 0o640


async def test_a_file_that_cannot_be_set_aside_is_never_overwritten(open_store, path, expected_logs):
    expected_logs("attributes.damaged .* stays as it is")
    path.parent.mkdir()
    path.write_bytes(b"precious?")
    store = await open_store(failing(replace=OSError(errno.EROFS, "read-only")))
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    with pytest.raises(Refused):
        await store.save()
    assert path.read_bytes() == b"precious?"


async def test_a_file_that_cannot_be_read_is_never_overwritten(open_store, path, expected_logs):
    expected_logs("attributes.unreadable")
    store = await open_store(failing(read=OSError(errno.EIO, "bad sector")))
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    with pytest.raises(Refused):
        await store.save()
    assert not path.exists()


async def test_a_save_that_fails_says_so_and_the_next_one_tries_again(open_store, path):
    store = await open_store(failing(replace=OSError(errno.ENOSPC, "full")))
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    for _ in range(2):
        with pytest.raises(NoSpace, match=str(path)):
            await store.save()


async def test_saves_at_once_end_with_the_newest_state(open_store):
    store = await open_store()
    attributes = store.get("arrays/vault", **CONFIGURED)

    async def change(mode):
        attributes.mode = mode
        await store.save()

    async with trio.open_nursery() as nursery:
        for mode in (0o604, 0o640, 0o644):
            nursery.start_soon(change, mode)
    assert (await open_store()).get("arrays/vault", **CONFIGURED).mode == attributes.mode


# --- through the operations ------------------------------------------------------------------------------------------


async def test_chmod_is_on_disk_when_it_returns(open_store):
    rig = Rig()
    rig.use(await open_store())
    await rig.operations.setattr(await rig.inode("arrays/vault"), Changes(mode=0o604, mtime_ns=5))
    again = (await open_store()).get("arrays/vault", mode=0o640, uid=UID, gid=GID)
    assert (again.mode, again.mtime_ns) == (0o604, 5)


async def test_chmod_that_cannot_be_saved_fails_and_changes_nothing(open_store):
    rig = Rig()
    rig.use(await open_store(failing(replace=OSError(errno.ENOSPC, "full"))))
    inode = await rig.inode("arrays/vault")
    with fails_with(errno.ENOSPC):
        await rig.operations.setattr(inode, Changes(mode=0o604, uid=9))
    found = await rig.operations.getattr(inode)
    assert (found.mode & 0o777, found.uid) == (0o640, UID)


async def test_closing_saves_mtime(open_store):
    rig = Rig()
    store = await open_store()
    rig.use(store)
    await rig.operations.write(await rig.open(), 0, b"x" * 512)
    await store.aclose()
    again = (await open_store()).get("arrays/vault", mode=0o640, uid=UID, gid=GID)
    assert again.mtime_ns == rig.exposed.attributes.mtime_ns


async def test_closing_lets_go_of_the_worker_also_if_saving_fails(open_store):
    store = await open_store(failing(replace=OSError(errno.ENOSPC, "full")))
    store.get("arrays/vault", **CONFIGURED).mode = 0o640
    with pytest.raises(OrionError):
        await store.aclose()
    assert store._worker._thread is None
