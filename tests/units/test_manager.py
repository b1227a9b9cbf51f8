"""StorageManager: which members it starts without, and how it ends when the host has no space left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from orionfs.array.superblock import OFFSET, RESYNC_DONE, SIZE, Superblock
from orionfs.config.load import load_spec
from orionfs.config.spec import Spec
from orionfs.environment import Environment
from orionfs.errors import ConfigError, IntegrityError, NoSpace, OrionError
from orionfs.hostfs import SystemHostFs
from orionfs.initialize import initialize
from orionfs.manager import ManagerOptions, StorageManager

TEXT = '[[array]]\nname = "vault"\nlevel = "raid1"\nmembers = ["a", "b"]\nmember_size = "4MiB"\n'


async def made(folder: Path, level: str = "raid1") -> Spec:
    (folder / "orionfs.toml").write_text(TEXT.replace("raid1", level))
    spec = load_spec(folder)
    await initialize(spec, Environment())
    return spec


@pytest.mark.parametrize("size", [0, 511, (4 << 20) - 1, (4 << 20) + 1])
async def test_an_array_starts_without_a_member_of_a_size_that_no_device_has(tmp_path: Path, expected_logs, size: int):
    expected_logs("array.notice")
    spec = await made(tmp_path)
    os.truncate(tmp_path / "b", size)
    manager = await StorageManager.open(spec, environment=Environment(), options=ManagerOptions())
    (description,) = manager.descriptions()
    assert description.state == "degraded"
    assert [child.state for child in description.children] == ["active", "damaged"]
    await manager.exposed[0].device.write(0, [b"data"])
    await manager.aclose()
    assert (tmp_path / "b").stat().st_size == size


async def test_an_array_that_cannot_do_without_such_a_member_does_not_start(tmp_path: Path):
    spec = await made(tmp_path, "raid0")
    os.truncate(tmp_path / "b", 0)
    with pytest.raises(IntegrityError, match=r"b is damaged: .*/b is empty") as caught:
        await StorageManager.open(spec, environment=Environment(), options=ManagerOptions())
    assert caught.value.exit_code == 4
    assert "truncate" not in str(caught.value)


@pytest.mark.parametrize("kind", ["a directory", "a named pipe", "a character device", "a loop of symbolic links"])
async def test_what_can_be_no_member_is_a_mistake_of_the_configuration(tmp_path: Path, kind: str):
    spec = await made(tmp_path)
    member = tmp_path / "b"
    member.unlink()
    match kind:
        case "a directory":
            member.mkdir()
        case "a named pipe":
            os.mkfifo(member)
        case "a character device":
            member.symlink_to("/dev/zero")
        case _:
            member.symlink_to(member)
    with pytest.raises(ConfigError) as caught:
        await StorageManager.open(spec, environment=Environment(), options=ManagerOptions())
    assert (caught.value.path, caught.value.line) == (str(spec.path), 4)


async def test_a_process_without_descriptors_does_not_leave_good_members_out(tmp_path: Path, monkeypatch):
    """An array that started without them would make them stale."""
    spec = await made(tmp_path)
    open_it = os.open

    def limited(path: str, flags: int, *arguments: int) -> int:
        if str(path).endswith("/b"):
            raise OSError(errno.EMFILE, "Too many open files")
        return open_it(path, flags, *arguments)

    monkeypatch.setattr(os, "open", limited)
    with pytest.raises(OrionError, match="Too many open files"):
        await StorageManager.open(spec, environment=Environment(), options=ManagerOptions())


class FullHost(SystemHostFs):
    """Files of the host cannot be replaced, as on a full filesystem."""

    def replace(self, path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_times_that_cannot_be_kept_at_the_end_are_not_taken_for_lost_data(tmp_path: Path, expected_logs):
    expected_logs("attributes.not-saved")
    (tmp_path / "orionfs.toml").write_text(TEXT)
    spec = load_spec(tmp_path)
    await initialize(spec, Environment())
    manager = await StorageManager.open(spec, environment=Environment(hostfs=FullHost()), options=ManagerOptions())
    (exposed,) = manager.exposed
    await exposed.device.write(0, [b"data"])
    exposed.attributes.mtime_ns += 1
    with pytest.raises(NoSpace) as caught:
        await manager.aclose()
    assert "the members are closed" in caught.value.message
    assert "No space left on device" in caught.value.message
    assert caught.value.hint == "no data is affected"
    for member in (tmp_path / "a", tmp_path / "b"):
        superblock = Superblock.parse(member.read_bytes()[OFFSET : OFFSET + SIZE])
        assert superblock.resync_offset == RESYNC_DONE
