"""Failures: every exception becomes an errno and leaves a trace, and a bug in a write stops the writes."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

import pytest

from orionfs.errors import TABLE, ConfigError, MediaError, NoSpace, OrionError, ReadOnly, Refused, Unsupported
from orionfs.fuse.failures import REPORT_INTERVAL_S, Failures
from orionfs.monitor.events import EventLog
from tests.units.fuse_kit import Rig


@dataclass
class SetClock:
    """A clock that shows what it is set to."""

    now: float = 0.0
    wall: int = field(default=1)

    def monotonic(self):
        return self.now

    def wall_ns(self):
        return self.wall

    elapsed_ns = wall_ns

    async def sleep(self, seconds):
        self.now += seconds


class Bug(RuntimeError):
    pass


async def errno_of(rig, error, *, writing=False):
    return rig.operations.errno_of("write", error, inode=await rig.inode("arrays/vault"), writing=writing)


@pytest.mark.parametrize("kind", [kind for kind in TABLE if kind is not OrionError])
async def test_errors_of_ours_have_the_errno_of_the_table(kind, expected_logs):
    expected_logs("io.error", "io.no-space", required=False)
    assert await errno_of(Rig(), kind("no")) == TABLE[kind].errno


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.EPERM, "no"), errno.EPERM),
        (FileNotFoundError(errno.ENOENT, "no"), errno.ENOENT),
        (OSError("without a number"), errno.EIO),
        (OSError(errno.ENOSYS, "not implemented"), errno.EIO),
        (Unsupported("no such operation"), errno.EOPNOTSUPP),
    ],
)
async def test_errors_of_the_host_keep_their_errno_but_for_enosys(error, code, expected_logs):
    expected_logs("io.error", required=False)
    assert await errno_of(Rig(), error) == code


@pytest.mark.parametrize(
    ("error", "kind", "severity"),
    [
        (MediaError("bad sector"), "io.error", "error"),
        (NoSpace("cannot write d0.img"), "io.no-space", "warning"),
        (Refused("its size is fixed", hint="conv=notrunc"), "request.refused", "info"),
    ],
)
async def test_what_a_program_cannot_know_the_reason_of_is_an_event(error, kind, severity, expected_logs):
    expected_logs(f"{kind} arrays/vault: write .*: {error.message}", required=severity != "info")
    rig = Rig()
    await errno_of(rig, error)
    (event,) = rig.events.since(0)
    assert (event.kind, event.subject, event.severity) == (kind, "arrays/vault", severity)
    assert error.message in event.message
    assert ";" in event.message or kind == "io.error"  # what to do next


async def test_what_says_enough_by_its_number_is_no_event():
    rig = Rig()
    for error in (ReadOnly("no"), ConfigError("no"), OSError(errno.EPERM, "no"), OSError(errno.ENOSPC, "the end")):
        await errno_of(rig, error)
    assert rig.events.last == 0


def test_a_storm_of_failures_is_reported_once_a_minute_per_kind(expected_logs):
    expected_logs("io.error", "internal.error", "met an internal error")
    clock = SetClock()
    events = EventLog(clock)
    failures = Failures(events, clock)

    def storm():
        before = events.last
        for _ in range(100):
            failures.errno_of("read", "arrays/vault", MediaError("bad sector"), None, writing=False)
            failures.errno_of("read", "arrays/other", MediaError("bad sector"), None, writing=False)
            failures.errno_of("read", "arrays/vault", Bug("oops"), None, writing=False)
        return events.last - before

    assert storm() == 3
    clock.now = REPORT_INTERVAL_S - 1
    assert storm() == 0
    clock.now = REPORT_INTERVAL_S
    assert storm() == 3


async def test_a_bug_is_eio_a_traceback_and_an_event(expected_logs, caplog):
    expected_logs("read of arrays/vault met an internal error", "internal.error")
    rig = Rig()
    inode = await rig.inode("arrays/vault")
    assert rig.operations.errno_of("read", Bug("oops"), inode=inode) == errno.EIO
    assert not rig.exposed.latched
    (event,) = rig.events.since(0)
    assert (event.kind, event.severity) == ("internal.error", "error")
    assert "Bug: oops" in event.message
    assert any(record.exc_info for record in caplog.records)


async def test_a_bug_in_a_write_latches_the_device_read_only(expected_logs):
    expected_logs("write of arrays/vault met an internal error", "internal.error")
    rig = Rig()
    assert await errno_of(rig, Bug("oops"), writing=True) == errno.EIO
    assert not rig.exposed.writable
    assert rig.exposed.xattrs()["user.orionfs.latched"]
    (event,) = rig.events.since(0)
    assert event.facts["latched"] is True
    assert await errno_of(rig, ReadOnly("it latched"), writing=True) == errno.EROFS


async def test_an_error_on_purpose_never_latches(expected_logs):
    expected_logs("io.no-space")
    rig = Rig()
    await errno_of(rig, NoSpace("full"), writing=True)
    assert rig.exposed.writable


async def test_a_bug_found_through_a_handle_names_the_file(expected_logs):
    expected_logs("write of arrays/vault met an internal error", "internal.error")
    rig = Rig()
    handle = await rig.open()
    assert rig.operations.errno_of("write", Bug("oops"), handle=handle, writing=True) == errno.EIO
    assert not rig.exposed.writable


async def test_a_bug_without_an_object_is_still_answered(expected_logs):
    expected_logs(r"read of \? met an internal error", "internal.error")
    rig = Rig()
    assert rig.operations.errno_of("read", KeyError(7), handle=7) == errno.EIO
