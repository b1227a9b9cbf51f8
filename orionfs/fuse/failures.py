"""Failures: every exception of a handler becomes an errno here, and leaves a trace.

The transport ends the whole mount on any exception but its own, so this is the one place where all are caught.
"""

from __future__ import annotations

import errno
import logging

from orionfs.clock import Clock
from orionfs.errors import OrionError
from orionfs.exposed import Exposed
from orionfs.monitor.events import EventLog

logger = logging.getLogger("orionfs.fuse")

#: One failure is reported this often and no more: a broken device gets thousands of requests per second.
REPORT_INTERVAL_S = 60.0


class Failures:
    """Turns exceptions into errnos.  Used on the event loop only.

    - An :class:`~orionfs.errors.OrionError` and an OSError carry their errno.  EIO is reported as an event, since the
      program that got it seldom says what it was.
    - Anything else is a bug of ours: EIO, a traceback in the log, an event; and if the request was about to change a
      device, that device takes no more writes, because nobody knows what state the bug left it in.
    """

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._reported: dict[tuple[str, str, str], float] = {}

    def errno_of(self, handler: str, subject: str, error: Exception, exposed: Exposed | None, writing: bool) -> int:
        """The errno for *error*, which *handler* raised for *subject*; *exposed* is the device, if it is one's file."""
        if isinstance(error, OrionError | OSError):
            code = error.errno or errno.EIO
            if code == errno.EIO and self._is_news(handler, subject, error):
                message = f"{handler} failed: {error}"
                self._events.emit("io.error", subject, message, severity="error", handler=handler)
            # ENOSYS would make the kernel stop asking: an fsync that once gave it succeeds for ever after.
            return errno.EIO if code == errno.ENOSYS else code
        latching = writing and exposed is not None and not exposed.latched
        if latching or self._is_news(handler, subject, error):
            self._report_bug(handler, subject, error, latching)
        if latching and exposed is not None:
            exposed.latch(f"an internal error in {handler} left its state unknown")
        return errno.EIO

    def _report_bug(self, handler: str, subject: str, error: Exception, latching: bool) -> None:
        logger.error("%s of %s met an internal error", handler, subject, exc_info=error)
        consequence = "; it takes no more writes until it is mounted again" if latching else ""
        self._events.emit(
            "internal.error",
            subject,
            f"{handler} met an internal error ({type(error).__name__}: {error}){consequence}",
            severity="error",
            handler=handler,
            latched=latching,
        )

    def _is_news(self, handler: str, subject: str, error: Exception) -> bool:
        key = (handler, subject, type(error).__name__)
        now = self._clock.monotonic()
        last = self._reported.get(key)
        if last is not None and now - last < REPORT_INTERVAL_S:
            return False
        self._reported[key] = now
        return True
