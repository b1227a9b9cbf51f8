"""The kernel's MD and OrionFS take each other's arrays: every level and layout, both ways, and after rough endings.

Many arrays share each boot of the virtual machine; a test asks for the boot that its array is in.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from orionfs.array.assembly import Source, assemble
from orionfs.array.creation import MdSpec, create_array
from orionfs.array.levels import LEVELS
from orionfs.array.superblock import RESYNC_DONE
from orionfs.array.superblock_io import read_superblock
from orionfs.backends.create import create_file
from orionfs.backends.file import FileDevice
from orionfs.environment import Environment
from tests.interop.vm import boot, device_name, why_not

pytestmark = [pytest.mark.interop, pytest.mark.skipif(bool(why_not()), reason=why_not())]

MIB = 1 << 20
CHUNK = 64 << 10
ENVIRONMENT = Environment()


class Shape(NamedTuple):
    """An array; *sizes* of its members in MiB.  *ending* is how whoever made it left it."""

    name: str
    boot: str
    level: str
    layout: str
    sizes: tuple[int, ...]
    ending: str = "clean"


#: What both sides make, in two boots because a virtual PC takes only so many disks.
BOTH = [
    Shape("linear", "mixed", "linear", "", (4, 6)),
    Shape("raid0", "mixed", "raid0", "original", (5, 5)),
    Shape("raid0-unequal", "mixed", "raid0", "original", (4, 6, 8)),
    Shape("raid0-unequal-alternate", "mixed", "raid0", "alternate", (4, 6, 8)),
    Shape("raid1", "mixed", "raid1", "", (6, 6)),
    *[Shape(f"raid5-{layout}", "parity", "raid5", layout, (5, 5, 5)) for layout in LEVELS["raid5"].layouts],
]
BY_ORIONFS = [
    *BOTH,
    Shape("raid1-degraded", "mixed", "raid1", "", (5, 5), "degraded"),
    Shape("raid1-degraded-killed", "mixed", "raid1", "", (5, 5), "degraded, killed"),
    Shape("raid5-degraded", "mixed", "raid5", "left-symmetric", (5, 5, 5), "degraded"),
    Shape("raid5-killed", "mixed", "raid5", "left-symmetric", (5, 5, 5), "killed"),
    Shape("raid5-degraded-killed", "mixed", "raid5", "left-symmetric", (5, 5, 5), "degraded, killed"),
    Shape("raid5-spoiled", "parity", "raid5", "left-symmetric", (5, 5, 5), "spoiled"),
]
BY_MDADM = [
    *BOTH,
    Shape("raid1-resyncing", "mixed", "raid1", "", (16, 16), "resyncing"),
    Shape("raid5-recovering", "mixed", "raid5", "left-symmetric", (16, 16, 16), "recovering"),
    Shape("raid5-failed", "mixed", "raid5", "left-symmetric", (5, 5, 5), "failed"),
]


# --- what OrionFS does ------------------------------------------------------------------------------------------------


@dataclass
class Events:
    """Collects what an array reports, and says when a resync is done."""

    seen: list[str] = field(default_factory=list)
    resynced: trio.Event = field(default_factory=trio.Event)

    def emit(self, kind, subject, message, *, severity="info", **facts):
        self.seen.append(f"{kind}: {message}")
        if kind == "resync.finished":
            self.resynced.set()


@asynccontextmanager
async def assembled(paths, *, events=None, without=(), background=True):
    """The array on the files *paths*, closed at the end."""
    sources = []
    for index, path in enumerate(paths):
        if index in without:
            sources.append(Source(path.name, None, "left out"))
        else:
            sources.append(Source(path.name, await FileDevice.open(path, environment=ENVIRONMENT)))
    array = await assemble("test", sources, environment=ENVIRONMENT, events=events or Events())
    async with trio.open_nursery() as nursery:
        if background:
            nursery.start_soon(array.run)
        try:
            yield array
        finally:
            await array.aclose()


async def contents(array):
    """All bytes of the array, in reads that do not respect chunks."""
    whole = bytearray(array.geometry.size)
    view = memoryview(whole)
    for offset in range(0, len(whole), 200 << 10):
        await array.read(offset, [view[offset : offset + (200 << 10)]])
    return bytes(whole)


def difference(found, expected):
    """Where two byte strings part; empty if they do not (pytest would print all of them)."""
    if found == expected:
        return ""
    pairs = enumerate(zip(found, expected, strict=False))
    place = next((index for index, (one, other) in pairs if one != other), min(len(found), len(expected)))
    return f"{len(found)} bytes differ from the expected {len(expected)} at {place}"


async def scribble(array, content, seed, count):
    """Random writes, from one sector to several stripes, to the array and to the bytearray *content*."""
    source = random.Random(seed)
    for _ in range(count):
        length = min(512 * source.choice([1, 7, 8, 128, source.randint(1, 1000)]), len(content))
        offset = 512 * source.randint(0, (len(content) - length) // 512)
        data = source.randbytes(length)
        await array.write(offset, [data])
        content[offset : offset + length] = data
    await array.flush()


async def make(shape, folder):
    """Make *shape* in *folder*, fill it and leave it as its ending says; its members and what it holds."""
    level = LEVELS[shape.level]
    paths = [folder / f"{shape.name}.{slot}" for slot in range(len(shape.sizes))]
    devices = []
    for path, size in zip(paths, shape.sizes, strict=True):
        await create_file(path, size * MIB, ENVIRONMENT)
        devices.append(await FileDevice.open(path, environment=ENVIRONMENT))
    layout = level.layouts[shape.layout]
    spec = MdSpec(level.md_level, f"host:{shape.name}"[:32], layout, CHUNK // 512 if level.chunked else 0)
    await create_array(devices, spec=spec, environment=ENVIRONMENT, freshly_made=True)
    for device in devices:
        await device.aclose()
    async with assembled(paths) as array:
        content = bytearray(random.Random(shape.name).randbytes(array.geometry.size))
        for offset in range(0, len(content), MIB):
            await array.write(offset, [memoryview(content)[offset : offset + MIB]])
        await scribble(array, content, shape.name, 200)
    if "degraded" in shape.ending:
        await leave(shape, paths, content, without=(1,))
    elif shape.ending == "killed":
        await leave(shape, paths, content, without=())
    if shape.ending in ("killed", "spoiled"):
        # As a cut between data and parity would leave it: the parity of row 2, on the first member, is wrong.
        image = bytearray(paths[0].read_bytes())
        image[MIB + 2 * CHUNK] ^= 0xFF
        paths[0].write_bytes(image)
    return paths, bytes(content)


async def leave(shape, paths, content, *, without):
    """Write a little more, without a member or with all of them, and close properly or not at all."""
    killed = "killed" in shape.ending
    async with assembled(paths, without=without, background=False) as array:
        await scribble(array, content, f"{shape.name} once more", 1 if killed else 20)
        images = [path.read_bytes() for path in paths]
    if killed:
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(image)


# --- what the kernel does ---------------------------------------------------------------------------------------------

VERIFY = """
n=$1; name=$2; shift 2
md=/sys/block/md$n/md
mdadm --assemble --run /dev/md$n "$@" || { echo "RESULT $name refused"; exit 0; }
vm-settle
sum=$(sha256sum </dev/md$n | cut -d' ' -f1)
size=$(blockdev --getsize64 /dev/md$n)
degraded=0; mismatches=0
if [ -e $md/sync_action ]; then
    degraded=$(cat $md/degraded)
    if [ $degraded = 0 ]; then echo check >$md/sync_action; vm-settle; mismatches=$(cat $md/mismatch_cnt); fi
fi
mdadm --stop /dev/md$n
echo "RESULT $name $size $sum $degraded $mismatches"
"""

#: Arrays are filled from a disk of random bytes, from chunk $n of it on: a virtual PC makes them too slowly.
MAKE = """
n=$1; name=$2; settle=$3; shift 3
mdadm --create /dev/md$n --run --metadata 1.2 --name $name "$@"
if [ $settle = yes ]; then vm-settle; fi
size=$(blockdev --getsize64 /dev/md$n)
fill() { dd if=$source of=/dev/md$n bs=64k skip=$1 count=$((size / 65536)) conv=fsync 2>/dev/null; }
fill $n
"""

STOP = """
mdadm --stop /dev/md$n
echo "RESULT $name $size"
"""

#: What happens to a failed array then: one member goes, and the others are written to without it.
AGAIN = 5
FAIL = f"""
mdadm --fail /dev/md$n $victim
fill $((n + {AGAIN}))
"""


def results(output):
    """The RESULT lines: name to the words that follow."""
    lines = [line.split() for line in output.splitlines() if line.startswith("RESULT ")]
    return {words[1]: words[2:] for words in lines}


class Laboratory:
    """Boots at most once for each group of arrays and each direction, when the first test asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._boots: dict[str, dict[str, list[str]] | AssertionError] = {}
        self.contents: dict[str, bytes] = {}
        self.paths: dict[str, list[Path]] = {}

    def verified(self, shape):
        """What the kernel found on the array that OrionFS made."""
        return self._once(self._verify, BY_ORIONFS, shape)

    def made(self, shape):
        """What the kernel stored on the array that mdadm made, and its members."""
        (size,) = self._once(self._make, BY_MDADM, shape)
        return self.contents[f"kernel-{shape.name}"][: int(size)], self._paths(shape)

    def _once(self, act, shapes, shape):
        """What *act*, done once for all *shapes* of one boot, found out about *shape*; a failure is not tried again."""
        key = f"{act.__name__} {shape.boot}"
        if key not in self._boots:
            try:
                self._boots[key] = act([item for item in shapes if item.boot == shape.boot])
            except AssertionError as error:
                self._boots[key] = error
        found = self._boots[key]
        if isinstance(found, AssertionError):
            raise found
        return found[shape.name]

    def _paths(self, shape):
        return [self.folder / f"kernel-{shape.name}.{slot}" for slot in range(len(shape.sizes))]

    def _verify(self, shapes):
        disks, script = [], f"cat >/tmp/verify <<'END'\nset -e\n{VERIFY}\nEND\n"
        for number, shape in enumerate(shapes):
            paths, self.contents[shape.name] = trio.run(make, shape, self.folder)
            self.paths[shape.name] = paths
            names = " ".join(device_name(len(disks) + index) for index in range(len(paths)))
            script += f"sh /tmp/verify {number} {shape.name} {names} || exit 1\n"
            disks += paths
        return results(boot(disks, script))

    def _make(self, shapes):
        source = self.folder / f"source-{shapes[0].boot}"
        noise = random.Random(shapes[0].boot).randbytes(40 * MIB)
        source.write_bytes(noise)
        disks, script = [source], f"cd /tmp; export source={device_name(0)}\n"
        for number, shape in enumerate(sorted(shapes, key=lambda item: item.ending in ("resyncing", "recovering"))):
            paths = self._paths(shape)
            names = [device_name(len(disks) + index) for index in range(len(paths))]
            for path, size in zip(paths, shape.sizes, strict=True):
                with path.open("wb") as file:
                    file.truncate(size * MIB)
            slow = shape.ending in ("resyncing", "recovering")
            if slow:
                script += "echo 1 >/proc/sys/dev/raid/speed_limit_min; echo 100 >/proc/sys/dev/raid/speed_limit_max\n"
            steps = MAKE + (FAIL if shape.ending == "failed" else "") + STOP
            options = [f"--level {shape.level}", f"--raid-devices {len(names)}"]
            options += [f"--layout {shape.layout}"] if shape.layout else []
            options += ["--chunk 64"] if LEVELS[shape.level].chunked else []
            script += f"cat >make <<'END'\nset -e\nvictim={names[0]}\n{steps}\nEND\n"
            arguments = " ".join([str(number), shape.name, "no" if slow else "yes", *options, *names])
            script += f"sh make {arguments} || exit 1\n"
            disks += paths
            first = CHUNK * (number + (AGAIN if shape.ending == "failed" else 0))
            self.contents[f"kernel-{shape.name}"] = noise[first:]
        return results(boot(disks, script))


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    lab = Laboratory(tmp_path_factory.mktemp("kernel"))
    yield lab
    shutil.rmtree(lab.folder)


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", BOTH, ids=lambda shape: shape.name)
def test_the_kernel_assembles_what_orionfs_wrote(laboratory, shape):
    size, total, degraded, mismatches = laboratory.verified(shape)
    content = laboratory.contents[shape.name]
    assert int(size) == len(content)
    assert total == hashlib.sha256(content).hexdigest()
    assert degraded == "0"
    assert mismatches == "0", "data and redundancy disagree"


@pytest.mark.parametrize("name", ["raid1-degraded", "raid1-degraded-killed", "raid5-degraded"])
def test_the_kernel_does_not_trust_a_member_that_orionfs_wrote_without(laboratory, name):
    shape = next(shape for shape in BY_ORIONFS if shape.name == name)
    size, total, degraded, _mismatches = laboratory.verified(shape)
    content = laboratory.contents[name]
    assert int(size) == len(content)
    assert degraded == "1"
    assert total == hashlib.sha256(content).hexdigest()


def test_the_kernel_resyncs_what_orionfs_left_dirty(laboratory):
    shape = next(shape for shape in BY_ORIONFS if shape.name == "raid5-killed")
    _size, total, degraded, mismatches = laboratory.verified(shape)
    assert degraded == "0"
    assert mismatches == "0", "the planted mismatch is still there: nothing was resynced"
    assert total == hashlib.sha256(laboratory.contents[shape.name]).hexdigest()


@pytest.mark.parametrize("shape", BOTH, ids=lambda shape: shape.name)
def test_orionfs_opens_again_what_the_kernel_has_run(laboratory, shape):
    laboratory.verified(shape)
    events = Events()

    async def reopen():
        async with assembled(laboratory.paths[shape.name], events=events) as array:
            assert difference(await contents(array), laboratory.contents[shape.name]) == ""

    trio.run(reopen)
    assert events.seen == []


def test_the_kernel_would_have_found_wrong_parity(laboratory):
    """What the zeros of the other tests are worth: the same mismatch on an array that is marked clean."""
    shape = next(shape for shape in BY_ORIONFS if shape.name == "raid5-spoiled")
    _size, _total, degraded, mismatches = laboratory.verified(shape)
    assert degraded == "0"
    assert int(mismatches) > 0


def test_the_kernel_too_refuses_a_dirty_and_degraded_raid5(laboratory):
    shape = next(shape for shape in BY_ORIONFS if shape.name == "raid5-degraded-killed")
    assert laboratory.verified(shape) == ["refused"]


@pytest.mark.parametrize("shape", BY_MDADM, ids=lambda shape: shape.name)
def test_orionfs_assembles_what_the_kernel_wrote(laboratory, shape):
    expected, paths = laboratory.made(shape)

    async def check():
        events = Events()
        before = [await superblock_of(path) for path in paths]
        async with assembled(paths, events=events) as array:
            assert difference(await contents(array), expected) == ""
            await check_ending(shape, before, array, events)

    trio.run(check)


async def superblock_of(path):
    device = await FileDevice.open(path, environment=ENVIRONMENT)
    try:
        return await read_superblock(device)
    finally:
        await device.aclose()


async def check_ending(shape, before, array, events):
    """That the kernel left the array in the state that is tested, and that OrionFS saw it."""
    slots = array.describe().details["slots"]
    if shape.ending == "clean":
        assert slots == "U" * len(shape.sizes)
        assert all(superblock.is_clean for superblock in before)
        assert events.seen == []
    elif shape.ending == "resyncing":
        assert slots == "UU"
        assert 0 < before[0].resync_offset < before[0].size < RESYNC_DONE
        with trio.fail_after(60):
            await events.resynced.wait()
    elif shape.ending == "recovering":
        assert slots == "UU_"
        assert before[2].is_recovering
        assert 0 < before[2].recovery_offset < before[2].size
    else:
        assert slots == "_UU"
        assert before[0].role == 0, "it does not know that it has failed"
        assert before[1].events > before[0].events + 1
