"""StorageManager: how it ends when the host has no space left."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from orionfs.array.superblock import OFFSET, RESYNC_DONE, SIZE, Superblock
from orionfs.config.load import load_spec
from orionfs.environment import Environment
from orionfs.errors import NoSpace
from orionfs.hostfs import SystemHostFs
from orionfs.initialize import initialize
from orionfs.manager import ManagerOptions, StorageManager

TEXT = '[[array]]\nname = "vault"\nlevel = "raid1"\nmembers = ["a", "b"]\nmember_size = "4MiB"\n'


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
