"""InlineRule: whether the writes of a member may run on the event loop."""

from __future__ import annotations

#: A write that takes this long is slow ...
SLOW_NS = 1_000_000
#: ... and one that takes this long was felt by every other device: one is enough.
STALL_NS = 10_000_000
#: The writes that "recent" means.  Of so many, the 99th percentile (nearest rank) is the second slowest.
RECENT = 128


class InlineRule:
    """Watches how long writes take; :attr:`inline` while the 99th percentile of the recent ones is under 1 ms.

    A thread hop costs as much as several writes into the page cache, but a member that makes its writer wait (a full
    write-back queue, a cold block beneath half a page) must not make the event loop wait with it.  So a member whose
    inline writes become slow has to show :data:`RECENT` swift ones on its worker before they come back.

    Time that fits :data:`SLOW_NS` needs only :attr:`count` to be raised; everything else goes through :meth:`slow`.
    """

    __slots__ = ("_last_slow", "_slow_before", "count", "inline")

    def __init__(self) -> None:
        self.inline = True
        self._restart()

    def _restart(self) -> None:
        self.count = 0
        self._last_slow = self._slow_before = -RECENT

    def _healthy(self) -> bool:
        return self.count - self._slow_before >= RECENT

    def record(self, took_ns: int) -> None:
        """A write took *took_ns*, wherever it ran."""
        self.count += 1
        if took_ns >= SLOW_NS:
            self.slow(took_ns)
        elif not self.inline and self.count >= RECENT and self._healthy():
            self.inline = True
            self._restart()

    def slow(self, took_ns: int) -> None:
        """The write that :attr:`count` was just raised for took *took_ns*, which is at least :data:`SLOW_NS`."""
        self._slow_before = self.count if took_ns >= STALL_NS else self._last_slow
        self._last_slow = self.count
        if self.inline and not self._healthy():
            self.inline = False
            self._restart()
