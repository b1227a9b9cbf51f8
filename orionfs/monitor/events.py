"""What happened, in order: the log that ``.orionfs/events``, ``orionctl events`` and the daemon's log share."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

import trio

from orionfs.clock import Clock
from orionfs.monitor.timestamps import rfc3339

logger = logging.getLogger("orionfs")

Severity = Literal["info", "warning", "error"]

_LOG_LEVELS: dict[Severity, int] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    ``sequence`` counts from 1 without gaps.  ``kind`` is a dotted noun and verb (``member.failed``), ``subject`` the
    object that it happened to, ``message`` one sentence, ``facts`` JSON values for programs.
    """

    sequence: int
    wall_ns: int
    kind: str
    subject: str
    message: str
    severity: Severity = "info"
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``time`` is RFC 3339 in UTC."""
        return {
            "sequence": self.sequence,
            "time": rfc3339(self.wall_ns),
            "kind": self.kind,
            "subject": self.subject,
            "severity": self.severity,
            "message": self.message,
            "facts": self.facts,
        }


class EventLog:
    """The last *keep* events of one daemon.  For use on the event loop only; nothing here blocks but :meth:`wait`."""

    def __init__(self, clock: Clock, keep: int = 1024) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=keep)
        self._waiting = trio.lowlevel.ParkingLot()
        self._last = 0

    @property
    def last(self) -> int:
        """The sequence number of the newest event; 0 before the first."""
        return self._last

    def emit(self, kind: str, subject: str, message: str, *, severity: Severity = "info", **facts: Any) -> Event:
        """Record an event, write it to the log and wake everyone in :meth:`wait`.  *facts* must be JSON values."""
        self._last += 1
        event = Event(self._last, self._clock.wall_ns(), kind, subject, message, severity, facts)
        self._events.append(event)
        logger.log(_LOG_LEVELS[severity], "%s %s: %s", kind, subject, message)
        self._waiting.unpark_all()
        return event

    def since(self, sequence: int) -> list[Event]:
        """The events after *sequence* that are still kept, oldest first; 0 asks for all of them.

        If the first one is not ``sequence + 1``, the ones between have been dropped.
        """
        missing = self._last - sequence
        if missing <= 0:
            return []
        if missing >= len(self._events):
            return list(self._events)
        return [self._events[index] for index in range(len(self._events) - missing, len(self._events))]

    async def wait(self, sequence: int) -> None:
        """Return as soon as there is an event after *sequence*, at once if there already is.  A checkpoint."""
        if self._last > sequence:
            await trio.lowlevel.checkpoint()
            return
        while self._last <= sequence:
            await self._waiting.park()
