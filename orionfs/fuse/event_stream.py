"""EventStream: the event log as the growing text of ``.orionfs/events``."""

from __future__ import annotations

import json
from collections import deque

from orionfs.monitor.events import EventLog


class EventStream:
    """One JSON object per line, addressed by byte from the first event of the mount on.

    Positions never change their meaning, so ``tail -f`` and two readers at once agree on them.  Old lines are let go of
    (:attr:`start` moves up) when there are more than *keep*; a reader that is behind sees the gap in the events'
    ``sequence``.
    """

    def __init__(self, log: EventLog, *, keep: int = 1024) -> None:
        self.log = log
        #: Position of the first byte that is still kept.
        self.start = 0
        #: Position after the last byte.
        self.end = 0
        #: When the last event happened; 0 before the first.
        self.mtime_ns = 0
        self._keep = keep
        self._lines: deque[bytes] = deque()
        self._sequence = 0
        self._text: bytes | None = b""

    def sync(self) -> None:
        """Take in what has happened since the last call; :attr:`start` and :attr:`end` are then as of now."""
        if self.log.last == self._sequence:
            return
        for event in self.log.since(self._sequence):
            line = json.dumps(event.to_json(), ensure_ascii=False).encode() + b"\n"
            self._lines.append(line)
            self.end += len(line)
            self.mtime_ns = event.wall_ns
        self._sequence = self.log.last
        while len(self._lines) > self._keep:
            self.start += len(self._lines.popleft())
        self._text = None

    def read(self, position: int, length: int) -> bytes:
        """At most *length* bytes from *position*, which is not before :attr:`start`; empty at the end."""
        if self._text is None:
            self._text = b"".join(self._lines)
        begin = position - self.start
        return self._text[begin : begin + length]
