"""What the daemon answers to each verb of the schema."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import trio

from orionfs.clock import SystemClock
from orionfs.control.array_schema import ARRAY_VERBS
from orionfs.control.schema import VERBS
from orionfs.control.verbs import Answers
from orionfs.errors import NotFound
from orionfs.monitor.events import EventLog

REPORT = {
    "schema": "orionfs.status/1",
    "mounts": [
        {
            "mountpoint": "/mnt/o",
            "spec": "/srv/orionfs.toml",
            "version": "0.1.0",
            "uptime_s": 1,
            "gauges": {},
            "spares": [],
            "arrays": [
                {
                    "name": "vault",
                    "level": "raid5",
                    "declared_level": "",
                    "part_of": "",
                    "slots": "UUU",
                    "state": "clean",
                    "size": 1024,
                    "degraded": 0,
                    "dirty": False,
                    "counters": {},
                    "details": {},
                    "members": [],
                    "job": None,
                    "jobs": [],
                    "scrub": None,
                    "bitmap": None,
                }
            ],
        }
    ],
}


@pytest.fixture
def events() -> EventLog:
    return EventLog(SystemClock())


@pytest.fixture
def verbs(events: EventLog) -> Any:
    return Answers(report=lambda: REPORT, events=events, config_text=lambda: "# mine\n").verbs()


def test_there_is_a_handler_for_every_verb(verbs: Any):
    changes = {verb.name for verb in ARRAY_VERBS}
    assert verbs.keys() | changes == VERBS.keys()
    assert changes == {name for name, verb in VERBS.items() if verb.changes}


async def test_every_answer_is_json_with_its_schema(verbs: Any):
    for name in verbs:
        answer = await verbs[name]({"object": "vault"})
        json.dumps(answer)
        if isinstance(answer, dict) and name != "ping":
            assert answer["schema"] == f"orionfs.{name}/1"


async def test_ping_says_who_answers(verbs: Any):
    assert await verbs["ping"]({}) == {"pid": os.getpid(), "version": "0.1.0", "mountpoint": "/mnt/o"}


@pytest.mark.parametrize("name", ["vault", "arrays/vault", "/mnt/o/arrays/vault"])
async def test_an_object_is_shown_by_each_of_its_names(verbs: Any, name: str):
    shown = await verbs["show"]({"object": name})
    assert shown["object"]["path"] == "/mnt/o/arrays/vault"
    assert shown["object"]["level"] == "raid5"


async def test_an_object_that_is_not_there_is_not_found(verbs: Any):
    with pytest.raises(NotFound, match="has no object tank") as caught:
        await verbs["show"]({"object": "tank"})
    assert caught.value.hint == "it has: vault"


async def test_events_wait_for_the_next_one_but_not_for_ever(verbs: Any, events: EventLog, autojump_clock):
    events.emit("test", "vault", "one")
    assert (await verbs["events"]({}))["last"] == 1
    before = trio.current_time()
    assert (await verbs["events"]({"since": 1, "wait_s": 7}))["events"] == []
    assert trio.current_time() - before == pytest.approx(7)

    async def happen() -> None:
        await trio.sleep(2)
        events.emit("test", "vault", "two")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(happen)
        answer = await verbs["events"]({"since": 1, "wait_s": 7})
    assert [event["message"] for event in answer["events"]] == ["two"]
    assert trio.current_time() - before == pytest.approx(9)
