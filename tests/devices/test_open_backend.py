"""What a member's URL opens, and what is refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionfs.backends import SCHEMES, OpenOptions, open_backend, parse_url, path_of
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.backends.memory import PIECE, MemoryDevice
from orionfs.backends.null import NullDevice
from orionfs.environment import Environment
from orionfs.errors import ConfigError, NoSpace, NotFound, ReadOnly, Refused
from orionfs.extents import Extent, Kind
from orionfs.units import MIB


async def open_url(url, base=Path("/"), **options):
    return await open_backend(url, base=base, options=OpenOptions(**options), environment=Environment())


@pytest.mark.parametrize(
    "name", ["d0.img", "members/d0.img", "./a:b.img", "with space.img", "100%.img", "question?.img", "d#0.img"]
)
async def test_a_bare_path_is_taken_literally(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    await create_file(path, MIB, Environment())
    device = await open_url(name, tmp_path)
    assert isinstance(device, FileDevice)
    assert device.name == name
    assert device.geometry.size == MIB
    assert Path(device.describe().where) == path == path_of(name, tmp_path)
    await device.aclose()


async def test_a_file_url_is_decoded_and_takes_parameters(tmp_path):
    await create_file(tmp_path / "a b?.img", MIB, Environment())
    for url in ("file:a%20b%3f.img?direct=yes", f"file://{tmp_path}/a%20b%3F.img?direct=yes"):
        device = await open_url(url, tmp_path)
        assert device.describe().details["direct"] is True
        assert path_of(url, tmp_path) == tmp_path / "a b?.img"
        await device.aclose()


async def test_options_reach_the_file(tmp_path):
    await create_file(tmp_path / "d0", MIB, Environment())
    device = await open_url("d0", tmp_path, read_only=True, lock=False, direct=True)
    assert device.read_only
    assert device.describe().details == {"inline_writes": False, "lock": False, "direct": True}
    await device.aclose()


async def test_memory_and_null_are_made_of_their_parameters():
    memory = await open_url("memory:?size=64MiB")
    assert isinstance(memory, MemoryDevice)
    assert (memory.geometry.size, memory.geometry.logical_block) == (64 * MIB, 512)
    null = await open_url("null:?size=1TiB&block=4096")
    assert isinstance(null, NullDevice)
    assert (null.geometry.size, null.geometry.logical_block) == (1 << 40, 4096)
    assert null.describe().details == {"stores": False}
    assert path_of("memory:?size=64MiB", Path("/")) is None
    for url in ("memory:?size=1MiB", "null:?size=1MiB"):
        device = await open_url(url, read_only=True)
        for request in (device.write(0, [bytes(512)]), device.write_zeroes(0, 512), device.discard(0, 512)):
            with pytest.raises(ReadOnly):
                await request


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nbd+smoke://host/x", "no backend 'nbd\\+smoke'"),
        ("", "names no file"),
        ("file:", "names no file"),
        ("file:x?fast=yes", "no parameter 'fast'"),
        ("file:x?direct=maybe", "neither yes nor no"),
        ("file:x?direct", "'direct' is not a parameter"),
        ("file:x?direct=yes&direct=yes", "not a parameter"),
        ("memory:", "no size"),
        ("memory:d0?size=1MiB", "takes no path"),
        ("memory:?size=big", "'big' is not a size"),
        ("memory:?size=0", "not a multiple"),
        ("memory:?size=1000", "not a multiple"),
        ("memory:?size=-5", "not a size"),
        ("memory:?size=1MiB&block=1000", "power of two"),
        ("null:?size=6KiB&block=4096", "not a multiple"),
        ("a\0b", "not a path"),
    ],
)
async def test_a_url_that_makes_no_sense_is_refused(url, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        await open_url(url)
    assert "\n" not in str(caught.value)


async def test_a_missing_member_is_named():
    with pytest.raises(NotFound, match=r"there is no file /no/such/place\.img"):
        await open_url("place.img", Path("/no/such"))


@given(st.text() | st.from_regex(r"[a-z]{1,3}:[^?]*\?[a-z=&]*"))
def test_any_text_is_a_url_or_a_clear_error(text):
    try:
        url = parse_url(text)
    except ConfigError as error:
        complaint = error
    else:
        assert url.text == text
        assert url.scheme == "file" or text.startswith(url.scheme + ":")
        return
    assert complaint.hint


def test_parsing_urls_loads_no_event_loop():
    script = "import sys; import orionfs.backends; print('trio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert set(SCHEMES) == {"file", "memory", "null"}


# --- creation ------------------------------------------------------------------------------------------------------


async def test_a_created_file_is_sparse_private_and_durable(tmp_path, monkeypatch):
    synced = []

    def sync(descriptor, call=os.fsync):
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve())
        call(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    path = tmp_path / "d0.img"
    await create_file(path, 1 << 40, Environment())
    facts = path.stat()
    assert (facts.st_size, facts.st_blocks, facts.st_mode & 0o777) == (1 << 40, 0, 0o600)
    assert synced == [path, tmp_path]


async def test_creation_never_replaces_anything(tmp_path):
    path = tmp_path / "d0.img"
    path.write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("d0.img", "dangling"):
        with pytest.raises(Refused, match="exists already") as caught:
            await create_file(tmp_path / name, MIB, Environment())
        assert caught.value.exit_code == 5
    assert path.read_text() == "precious"


async def test_what_cannot_be_created_leaves_nothing_behind(tmp_path):
    for size in (0, -512, 1000):
        with pytest.raises(ConfigError, match="multiple of 512"):
            await create_file(tmp_path / "d0", size, Environment())
    with pytest.raises(NotFound, match="there is no folder"):
        await create_file(tmp_path / "no" / "d0", MIB, Environment())
    with pytest.raises((NoSpace, ConfigError), match="cannot create"):
        await create_file(tmp_path / "d0", 1 << 62, Environment())
    with pytest.raises(ConfigError, match="not a path"):
        await create_file(tmp_path / "a\0b", MIB, Environment())
    assert not list(tmp_path.iterdir())


# --- memory --------------------------------------------------------------------------------------------------------


async def test_memory_takes_space_only_for_what_was_written():
    device = MemoryDevice("memory", 8 * PIECE)
    assert device.allocated() == 0
    await device.write(PIECE - 512, [bytes([1]) * 1024])
    assert device.allocated() == 2 * PIECE
    assert [extent async for extent in device.extents(0, 8 * PIECE)] == [
        Extent(0, 2 * PIECE, Kind.DATA),
        Extent(2 * PIECE, 6 * PIECE, Kind.HOLE),
    ]
    await device.write_zeroes(PIECE, 512)
    assert device.allocated() == 2 * PIECE
    await device.discard(PIECE, PIECE)
    assert device.allocated() == PIECE
    await device.aclose()
