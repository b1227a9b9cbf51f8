"""The event log: order, what is kept, and waiting for more."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from orionfs.clock import SystemClock
from orionfs.monitor.events import EventLog
from orionfs.monitor.timestamps import rfc3339


class StoppedClock(SystemClock):
    """It is always the same moment."""

    @staticmethod
    def wall_ns() -> int:
        return 1_795_196_883_250_999_999


def test_an_event_says_what_happened_to_whom_and_when():
    log = EventLog(StoppedClock())
    event = log.emit("member.failed", "vault", "d2 is out of service", slot=2)
    assert event.to_json() == {
        "sequence": 1,
        "time": "2026-11-20T17:48:03.250Z",
        "kind": "member.failed",
        "subject": "vault",
        "severity": "info",
        "message": "d2 is out of service",
        "facts": {"slot": 2},
    }
    json.dumps(event.to_json())


@given(keep=st.integers(1, 10), count=st.integers(0, 25), since=st.integers(0, 30))
def test_the_newest_events_are_kept_in_order_and_without_gaps(keep: int, count: int, since: int):
    log = EventLog(SystemClock(), keep=keep)
    for number in range(count):
        log.emit("test", "subject", str(number))
    first_kept = max(count - keep, 0) + 1
    expected = list(range(max(since + 1, first_kept), count + 1))
    assert [event.sequence for event in log.since(since)] == expected
    assert log.last == count


def test_severity_decides_how_loud_the_log_is(caplog: pytest.LogCaptureFixture, expected_logs):
    expected_logs("test vault: smoke", "test vault: fire")
    caplog.set_level("INFO", "orionfs")
    log = EventLog(SystemClock())
    log.emit("test", "vault", "calm")
    log.emit("test", "vault", "smoke", severity="warning")
    log.emit("test", "vault", "fire", severity="error")
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "ERROR"]


async def test_waiting_ends_with_the_next_event_for_everyone(autojump_clock):
    log = EventLog(SystemClock())
    log.emit("test", "vault", "old")
    woken: list[float] = []

    async def wait() -> None:
        await log.wait(1)
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(5)
        assert woken == []
        log.emit("test", "vault", "new")
        now = trio.current_time()
    assert woken == [now, now]


async def test_waiting_for_what_has_happened_does_not_wait(autojump_clock):
    log = EventLog(SystemClock())
    log.emit("test", "vault", "old")
    with trio.fail_after(1):
        await log.wait(0)


async def test_waiting_can_be_cancelled(autojump_clock):
    log = EventLog(SystemClock())
    with trio.move_on_after(3) as scope:
        await log.wait(0)
    assert scope.cancelled_caught
    log.emit("test", "vault", "nobody waits any more")


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_timestamp_is_the_moment_to_the_millisecond(wall_ns: int):
    read = datetime.fromisoformat(rfc3339(wall_ns))
    assert read.tzinfo == UTC
    assert round(read.timestamp() * 1000) == wall_ns // 1_000_000
