"""Watching for devices that come back: what is offered, when, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from orionfs.environment import Environment
from orionfs.monitor.events import EventLog
from orionfs.testing.simulation import InlineThreads, SimClock
from orionfs.watch import INTERVAL_S, Absent, Watch, look

FILE = (1, 2, 4096, 7)
OTHER = (1, 3, 4096, 8)


class Stage:
    """A watch over one path, whose contents and return the test decides."""

    def __init__(self, *, failed: bool = False, accepts: bool = True) -> None:
        environment = Environment(clock=SimClock(), threads=InlineThreads())
        self.events = EventLog(environment.clock)
        self.one = Absent("vault", "d1", Path("/store/d1"), failed)
        self.there: tuple[int, ...] | None = FILE if failed else None
        self.absent = True
        self.accepts = accepts
        self.offers: list[float] = []
        self.watch = Watch(environment, self.events, absent=self.list, offer=self.offer, look=lambda _path: self.there)

    def list(self) -> list[Absent]:
        return [self.one] if self.absent else []

    async def offer(self, one: Absent) -> bool:
        assert one == self.one
        self.offers.append(trio.current_time())
        self.absent = not self.accepts
        return self.accepts


@pytest.fixture
async def begun(nursery):
    """``await begun(stage)`` lets the watch run."""

    async def begin(stage: Stage) -> Stage:
        nursery.start_soon(stage.watch.run)
        await trio.testing.wait_all_tasks_blocked()
        return stage

    return begin


async def test_what_comes_back_is_offered_once_it_has_been_the_same_twice(begun, autojump_clock):
    stage = await begun(Stage())
    await trio.sleep(10)
    assert stage.offers == []
    stage.there = FILE
    await trio.sleep(10)
    assert len(stage.offers) == 1
    assert 10 + INTERVAL_S <= stage.offers[0] <= 10 + 2 * INTERVAL_S + 0.1


async def test_a_file_that_is_still_being_copied_is_left_alone(begun, autojump_clock):
    stage = await begun(Stage())
    for size in range(8):
        stage.there = (1, 2, size * 4096, size)
        await trio.sleep(INTERVAL_S)
    assert stage.offers == []
    await trio.sleep(3)
    assert len(stage.offers) == 1


async def test_what_was_refused_is_offered_again_only_when_it_is_another(begun, autojump_clock):
    stage = await begun(Stage(accepts=False))
    stage.there = FILE
    await trio.sleep(30)
    assert len(stage.offers) == 1
    stage.there = OTHER
    await trio.sleep(30)
    assert len(stage.offers) == 2
    stage.there = None
    await trio.sleep(5)
    stage.there = OTHER
    await trio.sleep(30)
    assert len(stage.offers) == 3


async def test_the_file_that_has_failed_is_no_news(begun, autojump_clock):
    stage = await begun(Stage(failed=True))
    await trio.sleep(30)
    assert stage.offers == []
    stage.there = (*FILE[:2], FILE[2], FILE[3] + 1)  # written to, by us or others
    await trio.sleep(30)
    assert stage.offers == []
    stage.there = OTHER
    await trio.sleep(5)
    assert len(stage.offers) == 1


async def test_a_device_that_was_away_is_worth_a_try_even_if_it_looks_the_same(begun, autojump_clock):
    stage = await begun(Stage(failed=True))
    stage.there = None
    await trio.sleep(3)
    stage.there = FILE
    await trio.sleep(5)
    assert len(stage.offers) == 1


async def test_nobody_looks_while_nothing_is_missed_and_an_event_is_what_begins_it(begun, autojump_clock):
    stage = Stage()
    stage.absent = False
    looks = []
    stage.watch._look = lambda path: looks.append(path)
    await begun(stage)
    await trio.sleep(100)
    assert looks == []
    stage.absent = True
    stage.events.emit("member.failed", "vault", "d1 is out of service")
    await trio.sleep(5)
    assert len(looks) >= 4
    stage.absent = False
    await trio.sleep(2)
    count = len(looks)
    await trio.sleep(100)
    assert len(looks) == count


def test_a_file_is_told_from_another_and_from_itself_after_a_change(tmp_path: Path):
    path = tmp_path / "d1"
    assert look(path) is None
    path.write_bytes(b"1")
    before = look(path)
    assert before == look(path)
    path.write_bytes(b"22")
    assert look(path) not in (None, before)
    assert look(path / "beneath") is None
    assert look(Path("/dev/loop0")) is None or len(look(Path("/dev/loop0"))) == 2
