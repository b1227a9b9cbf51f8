"""The event log as a file."""

from __future__ import annotations

import json
import os

from hypothesis import given
from hypothesis import strategies as st

from orionfs.fuse.event_stream import EventStream
from orionfs.monitor.events import EventLog
from tests.units.fuse_kit import ENVIRONMENT, Rig


def emit(log, count=1):
    for _ in range(count):
        log.emit("test.happened", "vault", f"event {log.last + 1} näher")


async def read_all(rig, handle, offset=0, step=4096):
    text = b""
    while piece := await rig.read(handle, offset + len(text), step):
        text += piece
    return text


def sequences(text):
    assert text.endswith(b"\n")
    return [json.loads(line)["sequence"] for line in text.splitlines()]


async def test_a_reader_gets_the_history_then_what_happens_and_an_end_of_file_between():
    rig = Rig()
    emit(rig.events, 3)
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    history = await read_all(rig, handle)
    assert sequences(history) == [1, 2, 3]
    emit(rig.events, 2)
    assert sequences(await read_all(rig, handle, len(history))) == [4, 5]
    assert await rig.read(handle, 1 << 40, 100) == b""


async def test_a_line_is_the_event_as_json():
    rig = Rig()
    event = rig.events.emit("member.failed", "vault", "d2 failed", severity="info", member="d2")
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    assert json.loads(await read_all(rig, handle)) == event.to_json()


async def test_the_size_grows_with_the_events_and_mtime_is_that_of_the_last():
    rig = Rig()
    inode = await rig.inode(".orionfs/events")
    assert (await rig.operations.getattr(inode)).size == 0
    emit(rig.events, 5)
    found = await rig.operations.getattr(inode)
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    assert found.size == len(await read_all(rig, handle))
    assert found.mtime_ns == rig.events.since(4)[0].wall_ns


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(1, 700))
async def test_positions_never_change_their_meaning_and_no_kept_line_is_torn(bursts, step):
    log = EventLog(ENVIRONMENT.clock, keep=5)
    stream = EventStream(log, keep=5)
    written: dict[int, int] = {}  # position of every byte that was ever seen
    for burst in bursts:
        emit(log, burst)
        stream.sync()
        position = stream.start
        text = b""
        while piece := stream.read(position + len(text), step):
            text += piece
        assert position + len(text) == stream.end
        assert len(sequences(text)) <= 5
        assert sequences(text)[-1] == log.last
        for index, byte in enumerate(text, position):
            assert written.setdefault(index, byte) == byte


async def test_a_reader_that_asks_for_what_is_dropped_gets_the_oldest_that_is_kept_and_goes_on():
    rig = Rig()
    rig.operations.tree.node(await rig.inode(".orionfs/events")).stream = EventStream(rig.events, keep=4)
    slow = await rig.open(".orionfs/events", os.O_RDONLY)
    emit(rig.events, 2)
    first = await read_all(rig, slow)
    assert sequences(first) == [1, 2]
    emit(rig.events, 4)
    late = await rig.open(".orionfs/events", os.O_RDONLY)
    assert sequences(await read_all(rig, late, step=10)) == [3, 4, 5, 6]
    emit(rig.events, 4)
    assert sequences(await read_all(rig, slow, len(first))) == [7, 8, 9, 10]


async def test_it_can_be_read_backwards_from_its_end_as_tail_does():
    rig = Rig()
    emit(rig.events, 50)
    size = (await rig.operations.getattr(await rig.inode(".orionfs/events"))).size
    handle = await rig.open(".orionfs/events", os.O_RDONLY)
    last = (await rig.read(handle, size - 300, 300)).splitlines()[-1]
    assert json.loads(last)["sequence"] == 50
