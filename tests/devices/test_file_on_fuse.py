"""A file that another program serves by FUSE is a sound member, however that program takes a hole."""

import subprocess
import time

import pytest

from orionfs.backends.file import FileDevice
from orionfs.backends.medium import Medium
from orionfs.environment import Environment
from orionfs.testing.conformance import check_device
from orionfs.units import MIB


@pytest.fixture
def exported(tmp_path, requires):
    """A raw image that QEMU exports: it treats PUNCH_HOLE as advice and keeps what is not a whole block of its own."""
    requires("qemu-storage-daemon")
    image, mountpoint = tmp_path / "image.raw", tmp_path / "exported"
    mountpoint.touch()
    with image.open("wb") as file:
        file.truncate(4 * MIB)
    server = subprocess.Popen(
        [
            "qemu-storage-daemon",
            *("--blockdev", f"driver=file,node-name=image,filename={image}"),
            *("--export", f"type=fuse,id=export,node-name=image,mountpoint={mountpoint},writable=on"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 30
        while mountpoint.stat().st_size == 0:
            assert time.monotonic() < deadline, "it does not export"
            assert server.poll() is None, server.stdout.read()
        yield mountpoint
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()


@pytest.mark.fuse
@pytest.mark.interop
@pytest.mark.parametrize("seed", range(3))
async def test_a_file_on_fuse_keeps_the_contract(exported, seed):
    async def make():
        device = await FileDevice.open(exported, environment=Environment())
        assert device.medium is Medium.REMOTE
        return device

    await check_device(make, reopen=make, requests=40, seed=seed)
